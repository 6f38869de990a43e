package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"autocertd/internal/store"
	"autocertd/internal/zones"
)

// JournalRecord is a record that a process published, or was about to, and hasn't removed yet.
type JournalRecord struct {
	zones.TXT
	Object  string        // of the journal
	Holder  *store.Holder // the living process that removes it; nil when its process died
	Damaged error         // why Object can't be read; its records aren't known then
}

// ListRecords reads the journal: each record once, sorted by zone and name. Of several processes that have one, a living
// one is named, since it removes the record.
func ListRecords(ctx context.Context, storage Storage) ([]JournalRecord, error) {
	var all []JournalRecord
	bad := func(slot string, err error) {
		all = append(all, JournalRecord{Object: journalFolder + "/" + slot, Damaged: err})
	}
	objects, err := scanJournal(ctx, storage, bad)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	holders, unknown := map[string]*store.Holder{}, map[string]error{}
	var failure error
	failed := 0
	for _, o := range objects {
		slot := slotOf(o.Key)
		if slot == "" {
			continue
		}
		if _, asked := holders[slot]; !asked {
			holders[slot], unknown[slot] = storage.Holder(ctx, slotLock(slot))
		}
		if err := unknown[slot]; err != nil { // nor can anybody take over what it holds
			all = append(all, JournalRecord{Object: o.Key, Damaged: err})
			continue
		}
		if o.Err != nil {
			failure, failed = o.Err, failed+1
		}
		for _, r := range recordsOf(o) {
			r.Object, r.Holder = o.Key, holders[slot]
			all = append(all, r)
		}
	}
	if failed > 0 && failed == len(objects) && errors.Is(failure, fs.ErrPermission) { // who asks may read none of it
		return nil, fmt.Errorf("journal: %w", failure)
	}
	return eachOnce(all), nil
}

// recordsOf returns the records of an object of the journal, or one that says why they aren't known.
func recordsOf(o store.Object) (list []JournalRecord) {
	var entry journaled
	err := o.Err
	if err == nil {
		err = json.Unmarshal(o.Data, &entry)
	}
	if err != nil {
		return []JournalRecord{{Damaged: err}}
	}
	for _, key := range entry.keys() {
		list = append(list, JournalRecord{TXT: key})
	}
	return list
}

func eachOnce(all []JournalRecord) []JournalRecord {
	slices.SortStableFunc(all, func(a, b JournalRecord) int {
		return slices.Compare([]string{a.Zone, a.Name, a.Value, a.Provider}, []string{b.Zone, b.Name, b.Value, b.Provider})
	})
	var list []JournalRecord
	for _, r := range all {
		last := len(list) - 1
		switch {
		case last < 0 || r.Damaged != nil || list[last].TXT != r.TXT:
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
	known := s.records[r.TXT]
	if known == nil {
		return false, nil
	}
	return true, known.failure
}
