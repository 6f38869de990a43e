package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"autocertd/internal/store"
)

// JournalRecord is a record that a process published, or was about to, and hasn't removed yet.
type JournalRecord struct {
	Provider, Zone, Name, Value string
	Object                      string        // of the journal
	Holder                      *store.Holder // the living process that removes it; nil when its process died
	Damaged                     error         // why Object can't be read; its records aren't known then
}

func (r JournalRecord) key() recordKey { return recordKey{r.Provider, r.Zone, r.Name, r.Value} }

// ListRecords reads the journal: each record once, sorted by zone and name. Of several processes that have one, a living
// one is named, since it removes the record. The lock of a slot is tried to see whether its process lives, and given
// back at once; a sweep that finds it held in that moment comes again.
func ListRecords(ctx context.Context, storage Storage) ([]JournalRecord, error) {
	var all []JournalRecord
	bad := func(slot string, err error) {
		all = append(all, JournalRecord{Object: journalFolder + "/" + slot, Damaged: err})
	}
	objects, err := listJournal(ctx, storage, bad)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	holders, locks := map[string]*store.Holder{}, map[string]error{}
	for slot := range slotsOf(objects) {
		holders[slot], locks[slot] = holderOf(ctx, storage, slot)
	}
	var failure error
	failed := 0
	for _, object := range objects {
		slot := slotOf(object)
		if slot == "" {
			continue
		}
		if err := locks[slot]; err != nil { // nor can anybody take over what it holds
			all = append(all, JournalRecord{Object: object, Damaged: err})
			continue
		}
		list, err := readObject(ctx, storage, object)
		if err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if err != nil {
			list, failure, failed = []JournalRecord{{Damaged: err}}, err, failed+1
		}
		for _, r := range list {
			r.Object, r.Holder = object, holders[slot]
			all = append(all, r)
		}
	}
	if failed > 0 && failed == len(objects) && errors.Is(failure, fs.ErrPermission) { // who asks may read none of it
		return nil, fmt.Errorf("journal: %w", failure)
	}
	return eachOnce(all), nil
}

// holderOf returns the living process that has the slot, nil when there is none.
func holderOf(ctx context.Context, storage Storage, slot string) (*store.Holder, error) {
	unlock, err := storage.TryLock(ctx, slotLock(slot))
	var held *store.HeldError
	switch {
	case err == nil:
		unlock()
		return nil, nil
	case errors.As(err, &held):
		return &held.Holder, nil
	case errors.Is(err, fs.ErrNotExist): // there is no folder of locks: a journal that was put back from a copy
		return nil, nil
	}
	return nil, err
}

// readObject returns the records of an object of the journal; none when its owner has just finished with it.
func readObject(ctx context.Context, storage Storage, object string) ([]JournalRecord, error) {
	data, err := storage.Load(ctx, object)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var entry journaled
	if err := json.Unmarshal(data, &entry); err != nil {
		return []JournalRecord{{Damaged: err}}, nil
	}
	var list []JournalRecord
	for _, key := range entry.keys() {
		list = append(list, JournalRecord{Provider: key.provider, Zone: key.zone, Name: key.name, Value: key.value})
	}
	return list, nil
}

func eachOnce(all []JournalRecord) []JournalRecord {
	slices.SortStableFunc(all, func(a, b JournalRecord) int {
		return slices.Compare([]string{a.Zone, a.Name, a.Value, a.Provider}, []string{b.Zone, b.Name, b.Value, b.Provider})
	})
	var list []JournalRecord
	for _, r := range all {
		last := len(list) - 1
		switch {
		case last < 0 || r.Damaged != nil || list[last].key() != r.key():
			list = append(list, r)
		case list[last].Holder == nil:
			list[last] = r
		}
	}
	return list
}

// Took reports whether a sweep has made the record's slot of the journal ours. It is asked before the solver is closed.
func (s *Solver) Took(r JournalRecord) bool {
	s.journal.Lock()
	defer s.journal.Unlock()
	return s.slots[slotOf(r.Object)] != nil
}

// Unremoved reports whether a record of ours is still to be removed, and why the last try failed. The journal alone doesn't
// say so: an entry stays whole until the last of its records is removed.
func (s *Solver) Unremoved(r JournalRecord) (still bool, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.records[r.key()]
	if known == nil {
		return false, nil
	}
	return true, known.failure
}
