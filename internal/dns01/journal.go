package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"syscall"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/durable"
	"autocertd/internal/store"
	"autocertd/internal/zones"
)

// The journal: journal/SLOT/SEQUENCE is one group of records that were about to be sent. It is durable before the first
// of them is sent and goes when the last was removed, so that at any moment every record of ours in a zone is in it.
//
// A slot belongs to the process that holds its lease, and is written through that. The records in a slot whose lease is free
// are a dead process's.
const (
	journalFolder = "journal"
	maxSlots      = 64 // processes that publish at a time
)

// group is one object of the journal.
type group struct {
	object string
	lease  store.Lease // of its slot
	left   int         // records not yet removed; guarded by the solver's mu
}

// journaled is how a group is stored.
type journaled struct {
	Provider string            `json:"provider"`
	Zone     string            `json:"zone"`
	Records  []journaledRecord `json:"records"`
}

type journaledRecord struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	Challenge string `json:"challenge,omitempty"` // the name that led here, where it is another one
}

// challengeOf is the name of the challenge that the record of an entry answers.
func (j journaled) challengeOf(key zones.TXT) string {
	for _, r := range j.Records {
		if r.Name == key.Name && r.Value == key.Value && r.Challenge != "" {
			return r.Challenge
		}
	}
	return key.Name
}

// keys are the records of an entry.
func (j journaled) keys() []zones.TXT {
	keys := make([]zones.TXT, len(j.Records))
	for i, r := range j.Records {
		keys[i] = zones.TXT{Provider: j.Provider, Zone: j.Zone, Name: r.Name, Value: r.Value}
	}
	return keys
}

// enter writes a group into the journal. Dying after it leaves an entry for records that perhaps aren't there: removing
// what is absent is harmless. A slot that can't be written is given up for the next one.
func (s *Solver) enter(zone zones.Zone, records []*record) (*group, error) {
	object := journaled{Provider: zone.Provider, Zone: zone.Name}
	for _, r := range records {
		entry := journaledRecord{Name: r.Name, Value: r.Value}
		if r.challenge != r.Name {
			entry.Challenge = r.challenge
		}
		object.Records = append(object.Records, entry)
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	for {
		g, err := s.save(records, data)
		switch {
		case err == nil:
			return g, nil
		case g != nil && errors.Is(err, store.ErrLost):
			s.lost(g)
		case g == nil || !isForbidden(err):
			return nil, err
		default:
			s.giveUp(g, err)
		}
	}
}

// save writes one object for the records. The group is nil when nothing was written, and no slot is left to try.
func (s *Solver) save(records []*record, data []byte) (*group, error) {
	g, err := s.nextGroup(s.ctx, len(records))
	if err != nil {
		return nil, fmt.Errorf("nothing was sent, since it can't be noted in the journal: %w", err)
	}
	s.mu.Lock()
	for _, r := range records {
		r.groups = append(r.groups, g)
	}
	s.mu.Unlock()
	if err := g.lease.Save(s.ctx, g.object, data); err != nil {
		s.leave(g, records) // the object may be there although Save failed
		return g, fmt.Errorf("nothing was sent, since it can't be noted in the journal: %w", err)
	}
	return g, nil
}

// isForbidden reports whether an object can't be read or written because of what stands at its place, not because storage
// fails.
func isForbidden(err error) bool {
	_, large := errors.AsType[*durable.TooLargeError](err)
	return large || errors.Is(err, durable.ErrIrregular) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ELOOP)
}

// giveUp takes another slot for what is written from now on. What the slot holds is still ours to remove.
func (s *Solver) giveUp(g *group, err error) {
	s.journal.Lock()
	defer s.journal.Unlock()
	slot := slotOf(g.object)
	if s.slot == slot {
		s.slot = ""
	}
	s.unfit[slot] = true
	s.setAside(journalFolder+"/"+slot, "another one is used", err)
}

// lost takes another slot for what is written from now on. Whoever has the lost one by now removes what is in it.
func (s *Solver) lost(g *group) {
	s.journal.Lock()
	defer s.journal.Unlock()
	slot := slotOf(g.object)
	if lease := s.slots[slot]; lease != nil && lease.Context().Err() != nil {
		s.dropSlotLocked(slot)
	}
}

// dropSlotLocked gives a slot up that is ours no longer.
func (s *Solver) dropSlotLocked(slot string) {
	s.slots[slot].Release()
	delete(s.slots, slot)
	delete(s.unfit, slot)
	if s.slot == slot {
		s.slot = ""
	}
}

// setAside tells once of something in the journal that can't be used. The journal is locked.
func (s *Solver) setAside(object, instead string, err error) {
	if s.aside[object] {
		return
	}
	s.aside[object] = true
	s.cfg.Logger.Error("a part of the journal can't be used and stays as it is; "+instead+"; see who owns it, and remove it when the zone has no record of ours",
		"object", object, "err", err)
}

// nextGroup names the next object of our slot, for so many records.
func (s *Solver) nextGroup(ctx context.Context, records int) (*group, error) {
	s.journal.Lock()
	defer s.journal.Unlock()
	if err := s.takeSlot(ctx); err != nil {
		return nil, err
	}
	s.sequence = max(s.sequence+1, time.Now().UnixNano())
	object := journalFolder + "/" + s.slot + "/" + strconv.FormatInt(s.sequence, 36)
	return &group{object: object, lease: s.slots[s.slot], left: records}, nil
}

// listJournal lists the journal, without the objects of slots that can't be read, for which bad is called.
func listJournal(ctx context.Context, storage Storage, bad func(slot string, err error)) ([]string, error) {
	return eachSlot(func(prefix string) ([]string, error) { return storage.List(ctx, prefix) }, bad)
}

// scanJournal is listJournal with what the objects hold.
func scanJournal(ctx context.Context, storage Storage, bad func(slot string, err error)) ([]store.Object, error) {
	return eachSlot(func(prefix string) ([]store.Object, error) { return scan(ctx, storage, prefix) }, bad)
}

func scan(ctx context.Context, storage Storage, prefix string) (objects []store.Object, err error) {
	for o, err := range storage.Scan(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// eachSlot gets the journal as a whole, or where that is forbidden slot by slot.
func eachSlot[T any](get func(prefix string) ([]T, error), bad func(slot string, err error)) ([]T, error) {
	all, err := get(journalFolder)
	if err == nil || !isForbidden(err) {
		return all, err
	}
	failures := map[string]error{}
	for n := range maxSlots {
		slot := strconv.Itoa(n)
		list, failure := get(journalFolder + "/" + slot)
		switch {
		case failure == nil:
			all = append(all, list...)
		case !isForbidden(failure):
			return nil, failure
		default:
			failures[slot] = failure
		}
	}
	if len(failures) == maxSlots { // it isn't the slots that forbid it
		return nil, err
	}
	for _, slot := range slices.Sorted(maps.Keys(failures)) {
		bad(slot, failures[slot])
	}
	return all, nil
}

// badSlot sets a slot aside that can't be read. The journal is locked.
func (s *Solver) badSlot(slot string, err error) {
	s.setAside(journalFolder+"/"+slot, "the others are used", err)
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
// which is harmless. So does whoever has a slot by now that we lost.
func (s *Solver) drop(done []*group) {
	for _, g := range done {
		err := g.lease.Delete(context.WithoutCancel(s.ctx), g.object)
		if err != nil && !errors.Is(err, store.ErrLost) {
			s.cfg.Logger.Warn("journal entry can't be deleted; the next start does it", "object", g.object, "err", err)
		}
	}
}

// removed settles a group of removals.
func (s *Solver) removed(zone zones.Zone, records []*record, results []error) {
	now := time.Now()
	var done []*group
	var failed [][]*record // those that failed for one reason together
	s.mu.Lock()
	for i, r := range records {
		r.leaving = false
		if err := results[i]; err != nil {
			r.failures++
			r.table = nil // the next try is with what is configured then: perhaps the key was replaced
			r.failure, r.retryAt = err, now.Add(removalBackoff(r.failures))
			like := slices.IndexFunc(failed, func(list []*record) bool { return cure.Same(list[0].failure, err) })
			if like < 0 {
				like, failed = len(failed), append(failed, nil)
			}
			failed[like] = append(failed[like], r)
			continue
		}
		r.failures, r.failure = 0, nil
		done = append(done, r.forget(r.groups...)...)
		if r.users == 0 {
			delete(s.records, r.TXT)
		}
	}
	s.mu.Unlock()
	s.drop(done)
	for _, list := range failed {
		s.tell(zone, list)
	}
}

// tell logs once for all records that couldn't be removed for one reason.
func (s *Solver) tell(zone zones.Zone, failed []*record) {
	s.mu.Lock()
	first, failure, retry := failed[0].Name, failed[0].failure, failed[0].retryAt
	s.mu.Unlock()
	logger := s.cfg.Logger.With("provider", zone.Provider, "zone", zone.Name, "records", len(failed), "first", first)
	if errors.Is(failure, zones.ErrNoProvider) {
		logger.Warn("records can't be removed: their provider isn't in the configuration any more; put it back until they are gone")
		return
	}
	logger.Warn("records can't be removed now; trying again later", "retry", retry.UTC().Format(time.RFC3339), "err", failure)
}

// removalBackoff is when a removal is tried again after it failed: after a minute, then ever later up to an hour.
func removalBackoff(failures int) time.Duration {
	return min(time.Minute<<min(failures-1, 6), time.Hour)
}
