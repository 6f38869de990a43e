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

// Sweep takes over what dead processes left in the journal and tries again what couldn't be removed. It is called at
// start and at every tick, and goes through the same queues as every removal.
func (s *Solver) Sweep(ctx context.Context) error {
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
	objects, err := s.cfg.Storage.List(ctx, journalFolder)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	dead := map[string]func(){}
	for slot := range slotsOf(objects) {
		if s.slots[slot] != nil || s.isClosing() {
			continue
		}
		if unlock, err := s.cfg.Storage.TryLock(ctx, slotLock(slot)); err == nil {
			dead[slot] = unlock
		}
	}
	var failures []error
	for slot, unlock := range dead {
		failures = append(failures, s.takeOver(ctx, slot, unlock))
	}
	elsewhere, err := s.elsewhere(ctx, objects)
	if err != nil {
		return errors.Join(append(failures, fmt.Errorf("journal: %w", err))...)
	}
	s.retryRemovals(due, elsewhere)
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
		if err := s.takeOver(ctx, slot, unlock); err != nil {
			return err
		}
		s.slot = slot
		return nil
	}
	return fmt.Errorf("none of %d slots is free: %w", maxSlots, last)
}

// takeOver makes a slot ours, whose lock we hold, with the records in it. On failure it isn't ours, and a later sweep
// finds it again. The journal is locked.
func (s *Solver) takeOver(ctx context.Context, slot string, unlock func()) error {
	s.slots[slot] = unlock
	if err := s.inherit(ctx, slot); err != nil {
		delete(s.slots, slot)
		unlock()
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// inherit queues the records in a slot of ours for removal.
func (s *Solver) inherit(ctx context.Context, slot string) error {
	objects, err := s.cfg.Storage.List(ctx, journalFolder)
	if err != nil {
		return err
	}
	entries := map[string]journaled{}
	for _, object := range objects {
		if slotOf(object) != slot {
			continue
		}
		if err := s.load(ctx, object, entries); err != nil {
			return err
		}
	}
	if len(entries) == 0 {
		return nil
	}
	elsewhere, err := s.elsewhere(ctx, objects)
	if err != nil {
		return err
	}
	s.adopt(entries, elsewhere)
	return nil
}

// load reads one object into entries. One that is gone was its owner's, who has just finished with it; one that isn't
// readable as JSON is told of, and stays.
func (s *Solver) load(ctx context.Context, object string, entries map[string]journaled) error {
	data, err := s.cfg.Storage.Load(ctx, object)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var entry journaled
	if err := json.Unmarshal(data, &entry); err != nil {
		s.cfg.Logger.Error("journal entry is damaged and stays: remove the _acme-challenge records that it names by hand, then the entry", "object", object, "err", err)
		return nil
	}
	entries[object] = entry
	return nil
}

// elsewhere returns the records in slots that aren't ours. They are left to those: the process that holds one has
// resumed the order of a dead one, or will be swept itself.
func (s *Solver) elsewhere(ctx context.Context, objects []string) (map[recordKey]bool, error) {
	entries := map[string]journaled{}
	for _, object := range objects {
		if slot := slotOf(object); slot != "" && s.slots[slot] == nil {
			if err := s.load(ctx, object, entries); err != nil {
				return nil, err
			}
		}
	}
	keys := map[recordKey]bool{}
	for _, entry := range entries {
		for _, key := range entry.keys() {
			keys[key] = true
		}
	}
	return keys, nil
}

// adopt queues the records of a dead process for removal. Orders of ours that resumed its orders keep theirs.
func (s *Solver) adopt(entries map[string]journaled, elsewhere map[recordKey]bool) {
	var done []*group
	s.mu.Lock()
	for object, entry := range entries {
		g := &group{object: object}
		for _, key := range entry.keys() {
			if elsewhere[key] {
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
			done = append(done, g)
			continue
		}
		s.cfg.Logger.Info("removing records that an earlier process left", "provider", entry.Provider, "zone", entry.Zone, "records", g.left)
	}
	s.mu.Unlock()
	s.drop(done)
}

// retryRemovals queues again what couldn't be removed, is due by the given time and can be removed now.
func (s *Solver) retryRemovals(due time.Time, elsewhere map[recordKey]bool) {
	var done []*group
	s.mu.Lock()
	for key, r := range s.records {
		_, configured := s.provider(r.provider)
		switch {
		case r.users > 0 || r.failures == 0 || r.leaving || !configured:
		case elsewhere[key]: // another process needs it by now, and removes it
			done = append(done, r.forget(r.groups...)...)
			delete(s.records, key)
		case errors.Is(r.failure, errNoProvider) || !due.Before(r.retryAt):
			s.queue(key).remove(r)
		}
	}
	s.mu.Unlock()
	s.drop(done)
}
