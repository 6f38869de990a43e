package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/store"
	"autocertd/internal/zones"
)

// Sweep takes over what dead processes left in the journal and tries again what couldn't be removed. It is called at
// start and at every tick, and goes through the same queues as every removal.
func (s *Solver) Sweep(ctx context.Context) error {
	s.Zones().Probe(ctx)
	return s.sweep(ctx, time.Now())
}

// retryNow is the sweep of the end: it doesn't wait for the time of a retry, and takes nothing over.
func (s *Solver) retryNow(ctx context.Context) {
	s.mu.Lock()
	failed := false
	for _, r := range s.records {
		failed = failed || r.failures > 0
	}
	s.mu.Unlock()
	if !failed {
		return
	}
	if err := s.sweep(ctx, time.Now().Add(time.Hour)); err != nil {
		s.cfg.Logger.Warn("records that couldn't be removed aren't tried again", "err", err)
	}
}

// sweep tries again what is due by the given time.
func (s *Solver) sweep(ctx context.Context, due time.Time) error {
	s.journal.Lock()
	defer s.journal.Unlock()
	if s.slots == nil {
		return nil
	}
	for slot, lease := range s.slots {
		if lease.Context().Err() != nil { // what is in it is taken over again, if nobody else has it
			s.dropSlotLocked(slot)
		}
	}
	keys, err := listJournal(ctx, s.cfg.Storage, s.badSlot)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	s.reconsider(ctx)
	dead := map[string]store.Lease{}
	for slot := range slotsOf(keys) {
		if s.slots[slot] != nil || s.isClosing() {
			continue
		}
		if lease, err := s.cfg.Storage.Try(ctx, slotLock(slot)); err == nil {
			dead[slot] = lease
		}
	}
	var failures []error
	for slot, lease := range dead {
		failures = append(failures, s.takeOver(ctx, slot, lease))
	}
	s.retryRemovals(ctx, due)
	return errors.Join(failures...)
}

func (s *Solver) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func slotLock(slot string) string { return "journal-" + slot }

// slotOf is the slot that an object of the journal belongs to, "" for what isn't of the journal.
func slotOf(object string) string {
	parts := strings.Split(object, "/")
	if len(parts) != 3 {
		return ""
	}
	return parts[1]
}

func slotsOf(objects []string) map[string]bool {
	slots := map[string]bool{}
	for _, object := range objects {
		if slot := slotOf(object); slot != "" {
			slots[slot] = true
		}
	}
	return slots
}

// takeSlot makes sure that there is a slot to write to: one that was taken over, or else the first that is free. The
// journal is locked.
func (s *Solver) takeSlot(ctx context.Context) error {
	if s.slot != "" {
		return nil
	}
	for slot := range s.slots {
		if !s.unfit[slot] {
			s.slot = slot
			return nil
		}
	}
	var last error
	for n := range maxSlots {
		slot := strconv.Itoa(n)
		if s.slots[slot] != nil {
			continue // ours, and unfit
		}
		lease, err := s.cfg.Storage.Try(ctx, slotLock(slot))
		if last = err; err != nil {
			continue // somebody else's, or nobody's to have
		}
		if last = s.takeOver(ctx, slot, lease); last != nil {
			s.setAside(journalFolder+"/"+slot, "another one is used", last)
			continue
		}
		s.slot = slot
		return nil
	}
	return fmt.Errorf("none of %d slots is free: %w", maxSlots, last)
}

// takeOver makes a slot ours, whose lease we hold, with the records in it. On failure it isn't ours, and a later sweep
// finds it again. The journal is locked.
func (s *Solver) takeOver(ctx context.Context, slot string, lease store.Lease) error {
	s.slots[slot] = lease
	if err := s.inherit(ctx, slot); err != nil {
		delete(s.slots, slot)
		lease.Release()
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// inherit queues the records in a slot of ours for removal.
func (s *Solver) inherit(ctx context.Context, slot string) error {
	objects, err := scan(ctx, s.cfg.Storage, journalFolder+"/"+slot)
	switch {
	case err != nil && isForbidden(err):
		s.badSlot(slot, err)
		return nil
	case err != nil:
		return err
	}
	entries := map[string]journaled{}
	for _, o := range objects {
		if err := s.read(o, entries); err != nil {
			return err
		}
	}
	if len(entries) == 0 {
		return nil
	}
	s.adopt(entries, s.slots[slot], s.elsewhere(ctx), s.wanted(ctx))
	return nil
}

// read reads one object into entries. One that can't be read is told of, stays, and keeps nobody from using the others.
func (s *Solver) read(o store.Object, entries map[string]journaled) error {
	switch {
	case isForbidden(o.Err):
		s.setAside(o.Key, "the others are used", o.Err)
		return nil
	case o.Err != nil:
		return o.Err
	}
	var entry journaled
	if err := json.Unmarshal(o.Data, &entry); err != nil {
		if !s.aside[o.Key] {
			s.cfg.Logger.Error("journal entry is damaged and stays: remove the _acme-challenge records that it names by hand, then the entry", "object", o.Key, "err", err)
		}
		s.aside[o.Key] = true
		return nil
	}
	entries[o.Key] = entry
	return nil
}

// elsewhere returns the records in slots that aren't ours. They are left to those: the process that holds one has
// resumed the order of a dead one, or will be swept itself. The journal is locked.
func (s *Solver) elsewhere(ctx context.Context) map[zones.TXT]bool {
	objects, err := scanJournal(ctx, s.cfg.Storage, s.badSlot)
	if err != nil {
		s.setAside(journalFolder, "the others are used", err)
	}
	entries := map[string]journaled{}
	for _, o := range objects {
		if slot := slotOf(o.Key); slot != "" && s.slots[slot] == nil {
			if err := s.read(o, entries); err != nil {
				s.setAside(o.Key, "the others are used", err)
			}
		}
	}
	keys := map[zones.TXT]bool{}
	for _, entry := range entries {
		for _, key := range entry.keys() {
			keys[key] = true
		}
	}
	return keys
}

// keepTime is how long a record of a dead process stays for an open order that doesn't go on. CAs look within minutes for
// what they were told to look for.
const keepTime = 10 * time.Minute

// wanted returns whether the name of a challenge is for a hostname of an open order; all are, when these can't be read. The
// journal is locked.
func (s *Solver) wanted(ctx context.Context) func(name string) bool {
	if s.cfg.Wanted == nil {
		return func(string) bool { return false }
	}
	hostnames, err := s.cfg.Wanted(ctx)
	if err != nil {
		s.cfg.Logger.Warn("it isn't known which orders are open, so records of earlier processes stay for some minutes", "err", err)
		return func(string) bool { return true }
	}
	open := map[string]bool{}
	for _, h := range hostnames {
		open[strings.TrimPrefix(zones.Canonical(h), "*.")] = true
	}
	return func(name string) bool { return open[dnschallenge.Hostname(name)] }
}

// reconsider removes the kept records whose orders have ended, or had their time. The journal is locked.
func (s *Solver) reconsider(ctx context.Context) {
	s.mu.Lock()
	kept := false
	for _, r := range s.records {
		kept = kept || !r.kept.IsZero()
	}
	s.mu.Unlock()
	if !kept {
		return
	}
	wanted, now := s.wanted(ctx), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseKept(func(r *record) bool { return !wanted(r.challenge) || !now.Before(r.kept) })
}

// releaseKept removes those of the kept records. mu is held.
func (s *Solver) releaseKept(which func(*record) bool) {
	for _, r := range s.records {
		if r.kept.IsZero() || !which(r) {
			continue
		}
		r.kept = time.Time{}
		if r.users == 0 && !r.sending {
			s.settle(r)
		}
	}
}

// adopt queues the records of a dead process for removal. Orders of ours that resumed its orders keep theirs, and those
// that may yet be resumed keep theirs for a while.
func (s *Solver) adopt(entries map[string]journaled, lease store.Lease, elsewhere map[zones.TXT]bool, wanted func(challenge string) bool) {
	var done []*group
	s.mu.Lock()
	for object, entry := range entries {
		g := &group{object: object, lease: lease}
		kept := 0
		for _, key := range entry.keys() {
			if elsewhere[key] {
				continue
			}
			r := s.records[key]
			if r == nil {
				r = &record{TXT: key, challenge: entry.challengeOf(key)}
				s.records[key] = r
			}
			r.groups = append(r.groups, g)
			g.left++
			switch {
			case r.users > 0:
			case wanted(r.challenge) && !s.closing:
				r.kept = time.Now().Add(keepTime)
				kept++
			default:
				s.queue(key).remove(r)
			}
		}
		if g.left == 0 {
			done = append(done, g)
			continue
		}
		if kept > 0 {
			s.cfg.Logger.Info("records that an earlier process left stay until their orders have ended", "provider", entry.Provider, "zone", entry.Zone, "records", kept)
		}
		if kept < g.left {
			s.cfg.Logger.Info("removing records that an earlier process left", "provider", entry.Provider, "zone", entry.Zone, "records", g.left-kept)
		}
	}
	s.mu.Unlock()
	s.drop(done)
}

// retryRemovals queues again what couldn't be removed, is due by the given time and can be removed now. What another process
// needs by now is left to that. The journal is locked.
func (s *Solver) retryRemovals(ctx context.Context, due time.Time) {
	s.mu.Lock()
	failed := false
	for _, r := range s.records {
		failed = failed || s.retriesLocked(r)
	}
	s.mu.Unlock()
	if !failed {
		return
	}
	elsewhere := s.elsewhere(ctx)
	var done []*group
	s.mu.Lock()
	for key, r := range s.records {
		switch {
		case !s.retriesLocked(r):
		case elsewhere[key]:
			done = append(done, r.forget(r.groups...)...)
			delete(s.records, key)
		case errors.Is(r.failure, zones.ErrNoProvider) || !due.Before(r.retryAt):
			s.queue(key).remove(r)
		}
	}
	s.mu.Unlock()
	s.drop(done)
}

// retriesLocked reports whether the removal of a record failed, and can be tried again.
func (s *Solver) retriesLocked(r *record) bool {
	_, configured := s.provider(r.Provider)
	return r.users == 0 && r.kept.IsZero() && r.failures > 0 && !r.leaving && configured
}
