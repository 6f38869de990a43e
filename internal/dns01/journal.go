package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// The journal: journal/SLOT/SEQUENCE is one group of records that were about to be sent. It is durable before the first
// of them is sent and goes when the last was removed, so that at any moment every record of ours in a zone is in it.
//
// A slot belongs to the process that holds its lock. The records in a slot whose lock is free are a dead process's.
const (
	journalFolder = "journal"
	maxSlots      = 64 // processes that publish at a time
)

// group is one object of the journal.
type group struct {
	object string
	left   int // records not yet removed; guarded by the solver's mu
}

// journaled is how a group is stored.
type journaled struct {
	Provider string            `json:"provider"`
	Zone     string            `json:"zone"`
	Records  []journaledRecord `json:"records"`
}

type journaledRecord struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// keys are the records of an entry.
func (j journaled) keys() []recordKey {
	keys := make([]recordKey, len(j.Records))
	for i, r := range j.Records {
		keys[i] = recordKey{j.Provider, j.Zone, r.Name, r.Value}
	}
	return keys
}

// enter writes a group into the journal. Dying after it leaves an entry for records that perhaps aren't there: removing
// what is absent is harmless.
func (s *Solver) enter(zone zoneKey, records []*record) (*group, error) {
	object := journaled{Provider: zone.provider, Zone: zone.zone}
	for _, r := range records {
		object.Records = append(object.Records, journaledRecord{r.name, r.value})
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	name, err := s.nextObject(s.ctx)
	if err != nil {
		return nil, fmt.Errorf("nothing was sent, since it can't be noted in the journal: %w", err)
	}
	g := &group{object: name, left: len(records)}
	s.mu.Lock()
	for _, r := range records {
		r.groups = append(r.groups, g)
	}
	s.mu.Unlock()
	if err := s.cfg.Storage.Save(s.ctx, g.object, data); err != nil {
		s.leave(g, records) // the object may be there although Save failed
		return nil, fmt.Errorf("nothing was sent, since it can't be noted in the journal: %w", err)
	}
	return g, nil
}

// nextObject names the next object of our slot.
func (s *Solver) nextObject(ctx context.Context) (string, error) {
	s.journal.Lock()
	defer s.journal.Unlock()
	if err := s.takeSlot(ctx); err != nil {
		return "", err
	}
	s.sequence = max(s.sequence+1, time.Now().UnixNano())
	return journalFolder + "/" + s.slot + "/" + strconv.FormatInt(s.sequence, 36), nil
}

// leave takes records out of one group, which aren't in the zone on its account.
func (s *Solver) leave(g *group, records []*record) {
	var done []*group
	s.mu.Lock()
	for _, r := range records {
		if i := slices.Index(r.groups, g); i >= 0 {
			done = append(done, r.forget(g)...)
		}
	}
	s.mu.Unlock()
	s.drop(done)
}

// forget takes the record out of groups, each as often as it is given, and returns those that are empty now. The
// solver's mu is held.
func (r *record) forget(groups ...*group) (done []*group) {
	for _, g := range slices.Clone(groups) {
		i := slices.Index(r.groups, g)
		r.groups = slices.Delete(r.groups, i, i+1)
		if g.left--; g.left == 0 {
			done = append(done, g)
		}
	}
	return done
}

// drop deletes the objects of groups that are empty. When that fails, the next process removes their records once more,
// which is harmless.
func (s *Solver) drop(done []*group) {
	for _, g := range done {
		if err := s.cfg.Storage.Delete(context.WithoutCancel(s.ctx), g.object); err != nil {
			s.cfg.Logger.Warn("journal entry can't be deleted; the next start does it", "object", g.object, "err", err)
		}
	}
}

// removed settles a group of removals.
func (s *Solver) removed(zone zoneKey, records []*record, results []error) {
	now := time.Now()
	var done []*group
	failed := map[string][]*record{}
	s.mu.Lock()
	for i, r := range records {
		r.leaving = false
		if err := results[i]; err != nil {
			r.failures++
			r.table = nil // the next try is with what is configured then: perhaps the key was replaced
			r.failure, r.retryAt = err, now.Add(removalBackoff(r.failures))
			failed[err.Error()] = append(failed[err.Error()], r)
			continue
		}
		r.failures, r.failure = 0, nil
		done = append(done, r.forget(r.groups...)...)
		if r.users == 0 {
			delete(s.records, r.recordKey)
		}
	}
	s.mu.Unlock()
	s.drop(done)
	for _, list := range failed {
		s.tell(zone, list)
	}
}

// tell logs once for all records that couldn't be removed for one reason.
func (s *Solver) tell(zone zoneKey, failed []*record) {
	s.mu.Lock()
	first, failure, retry := failed[0].name, failed[0].failure, failed[0].retryAt
	s.mu.Unlock()
	logger := s.cfg.Logger.With("provider", zone.provider, "zone", zone.zone, "records", len(failed), "first", first)
	if errors.Is(failure, errNoProvider) {
		logger.Warn("records can't be removed: their provider isn't in the configuration any more; put it back until they are gone")
		return
	}
	logger.Warn("records can't be removed now; trying again later", "retry", retry.UTC().Format(time.RFC3339), "err", failure)
}

// removalBackoff is when a removal is tried again after it failed: after a minute, then ever later up to an hour.
func removalBackoff(failures int) time.Duration {
	return min(time.Minute<<min(failures-1, 6), time.Hour)
}
