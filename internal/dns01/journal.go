package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
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
	left   int // records not yet removed
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

// enter writes a group into the journal. Dying after it leaves an entry for records that perhaps aren't there: removing
// what is absent is harmless.
func (s *Solver) enter(zone zoneKey, records []*record) (*group, error) {
	ctx := context.Background()
	if err := s.takeSlot(ctx); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	object := journaled{Provider: zone.provider, Zone: zone.zone}
	for _, r := range records {
		object.Records = append(object.Records, journaledRecord{r.name, r.value})
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.sequence = max(s.sequence+1, time.Now().UnixNano())
	g := &group{object: journalFolder + "/" + s.slot + "/" + strconv.FormatInt(s.sequence, 36), left: len(records)}
	for _, r := range records {
		r.groups = append(r.groups, g)
	}
	s.mu.Unlock()
	if err := s.cfg.Storage.Save(ctx, g.object, data); err != nil {
		s.left(g, records)
		return nil, fmt.Errorf("journal: %w", err)
	}
	return g, nil
}

// left takes records out of one group that were never in the zone.
func (s *Solver) left(g *group, records []*record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		for i := range r.groups {
			if r.groups[i] == g {
				r.groups = append(r.groups[:i:i], r.groups[i+1:]...)
				s.release(g)
				break
			}
		}
	}
}

// release counts one record out of a group and deletes the object with the last. mu is held; deleting a small file is
// short, and when it fails the records are removed once more by the next process, which is harmless.
func (s *Solver) release(g *group) {
	if g.left--; g.left > 0 {
		return
	}
	if err := s.cfg.Storage.Delete(context.Background(), g.object); err != nil {
		s.cfg.Logger.Warn("journal entry can't be deleted", "object", g.object, "err", err)
	}
}

// removed settles a group of removals.
func (s *Solver) removed(records []*record, results []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range records {
		if err := results[i]; err != nil {
			r.failures++
			r.retryAt = time.Now().Add(removalBackoff(r.failures))
			s.cfg.Logger.Warn("record can't be removed now; trying again later", "provider", r.provider, "zone", r.zone, "record", r.name, "retry", r.retryAt.UTC().Format(time.RFC3339), "err", err)
			continue
		}
		r.failures = 0
		for _, g := range r.groups {
			s.release(g)
		}
		r.groups = nil
		if r.users == 0 {
			delete(s.records, r.recordKey)
		}
	}
}

// removalBackoff is when a removal is tried again after it failed: after a minute, then ever later up to an hour.
func removalBackoff(failures int) time.Duration {
	return min(time.Minute<<min(failures-1, 6), time.Hour)
}

// takeSlot makes sure that there is a slot to write to: one that was taken over, or else the first that is free.
func (s *Solver) takeSlot(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slot != "" {
		return nil
	}
	for slot := range s.slots {
		s.slot = slot
		return nil
	}
	var last error
	for n := range maxSlots {
		slot := strconv.Itoa(n)
		unlock, err := s.cfg.Storage.TryLock(ctx, slotLock(slot))
		if last = err; err != nil {
			continue // somebody else's
		}
		if err := s.takeOver(ctx, slot, unlock, nil); err != nil {
			unlock()
			return err
		}
		s.slot = slot
		return nil
	}
	return fmt.Errorf("none of %d slots is free: %w", maxSlots, last)
}

func slotLock(slot string) string { return "journal-" + slot }

// Sweep takes over what dead processes left in the journal and tries again what couldn't be removed. It is called at
// start and at every tick, and goes through the same queues as every removal.
func (s *Solver) Sweep(ctx context.Context) error {
	objects, err := s.cfg.Storage.List(ctx, journalFolder)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var failures []error
	living := map[recordKey]bool{}
	dead := map[string]func(){}
	for _, object := range objects {
		slot := strings.Split(object, "/")[1]
		if s.slots[slot] != nil || dead[slot] != nil {
			continue
		}
		unlock, err := s.cfg.Storage.TryLock(ctx, slotLock(slot))
		if err == nil {
			dead[slot] = unlock
			continue
		}
		entry, err := s.loadEntry(ctx, object)
		for key := range entry.keys() {
			living[key] = err == nil
		}
	}
	for slot, unlock := range dead {
		failures = append(failures, s.takeOver(ctx, slot, unlock, living))
	}
	s.retryRemovals(time.Now())
	return errors.Join(failures...)
}

// takeOver makes a dead process's slot ours and queues its records for removal, apart from those that a living process
// holds too: it has resumed the dead one's order. mu is held.
func (s *Solver) takeOver(ctx context.Context, slot string, unlock func(), living map[recordKey]bool) error {
	s.slots[slot] = unlock
	objects, err := s.cfg.Storage.List(ctx, journalFolder+"/"+slot)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, object := range objects {
		entry, err := s.loadEntry(ctx, object)
		if err != nil {
			s.cfg.Logger.Error("journal entry can't be read; its records, if any, stay", "object", object, "err", err)
			continue
		}
		g := &group{object: object}
		for key := range entry.keys() {
			if living[key] {
				continue
			}
			r := s.records[key]
			if r == nil {
				r = &record{recordKey: key}
				s.records[key] = r
			}
			r.groups = append(r.groups, g)
			g.left++
			if r.users == 0 {
				s.queue(key).remove(r)
			}
		}
		if g.left == 0 {
			g.left = 1
			s.release(g)
		}
		s.cfg.Logger.Info("removing records that an earlier process left", "zone", entry.Zone, "records", g.left)
	}
	return nil
}

func (s *Solver) loadEntry(ctx context.Context, object string) (entry journaled, err error) {
	data, err := s.cfg.Storage.Load(ctx, object)
	if errors.Is(err, fs.ErrNotExist) { // its owner has just finished with it
		return entry, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &entry)
	}
	return entry, err
}

func (j journaled) keys() func(yield func(recordKey) bool) {
	return func(yield func(recordKey) bool) {
		for _, r := range j.Records {
			if !yield(recordKey{j.Provider, j.Zone, r.Name, r.Value}) {
				return
			}
		}
	}
}

// retryRemovals queues again what couldn't be removed and whose time has come. mu is held.
func (s *Solver) retryRemovals(now time.Time) {
	for _, r := range s.records {
		if r.users == 0 && r.failures > 0 && !r.leaving && !now.Before(r.retryAt) {
			s.queue(r.recordKey).remove(r)
		}
	}
}
