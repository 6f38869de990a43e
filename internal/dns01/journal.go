package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

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

// journaled is the stored form of a group.
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

// challengeOf returns the name of the challenge that the record of an entry answers.
func (j journaled) challengeOf(key zones.TXT) string {
	for _, r := range j.Records {
		if r.Name == key.Name && r.Value == key.Value && r.Challenge != "" {
			return r.Challenge
		}
	}
	return key.Name
}

// keys returns the records of an entry.
func (j journaled) keys() []zones.TXT {
	keys := make([]zones.TXT, len(j.Records))
	for i, r := range j.Records {
		keys[i] = zones.TXT{Provider: j.Provider, Zone: j.Zone, Name: r.Name, Value: r.Value}
	}
	return keys
}

func slotLock(slot string) string { return "journal-" + slot }

// slotOf returns the slot that an object of the journal belongs to, "" for what isn't of the journal.
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

// Storage keeps the journal, whose slots are written through their leases.
type Storage interface {
	store.Reader
	store.Leaser
}

// isForbidden reports whether an object can't be read or written because of what stands at its place, not because storage
// fails.
func isForbidden(err error) bool {
	_, large := errors.AsType[*durable.TooLargeError](err)
	return large || errors.Is(err, durable.ErrIrregular) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ELOOP)
}

// listJournal lists the journal, without the objects of slots that can't be read, for which bad is called.
func listJournal(ctx context.Context, storage Storage, bad func(slot string, err error)) ([]string, error) {
	return eachSlot(func(prefix string) ([]string, error) { return storage.List(ctx, prefix) }, bad)
}

// scanJournal returns the objects that listJournal lists.
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
		if err := unknown[slot]; err != nil { // nor can a process take over its records
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
	if failed > 0 && failed == len(objects) && errors.Is(failure, fs.ErrPermission) { // the caller may read none of it
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

// eachOnce returns each record once, sorted.
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

// journal is the part of the journal that is this process's.
type journal struct {
	storage Storage
	logger  *slog.Logger

	// mu is held while storage is waited for, and taken before the solver's.
	mu       sync.Mutex
	slots    map[string]store.Lease // those that are ours; nil when the journal is closed
	slot     string                 // the one that is written to; "" before the first record
	unfit    map[string]bool        // slots that are ours and can't be written
	aside    map[string]bool        // objects and slots that can't be read, which was logged
	sequence int64
}

func newJournal(storage Storage, logger *slog.Logger) *journal {
	return &journal{
		storage: storage,
		logger:  logger,
		slots:   map[string]store.Lease{},
		unfit:   map[string]bool{},
		aside:   map[string]bool{},
	}
}

// inheritor gets the records of a slot that was a dead process's, by object, with the slot's lease.
type inheritor func(ctx context.Context, lease store.Lease, entries map[string]journaled)

// enter writes a group of records into the journal. Dying after it leaves an entry for records that perhaps aren't there:
// removing what is absent is harmless. A slot that can't be written is given up for the next one, and one that was lost, too;
// what a slot holds that is taken for it is inherited.
func (j *journal) enter(ctx context.Context, zone zones.Zone, records []journaledRecord, inherit inheritor) (*group, error) {
	data, err := json.Marshal(journaled{Provider: zone.Provider, Zone: zone.Name, Records: records})
	if err != nil {
		return nil, err
	}
	for {
		g, err := j.nextGroup(ctx, inherit)
		if err == nil {
			g.left = len(records)
			if err = g.lease.Save(ctx, g.object, data); err == nil {
				return g, nil
			}
			j.drop(ctx, []*group{g}) // the object may be there although Save failed
		}
		switch {
		case g != nil && errors.Is(err, store.ErrLost):
			j.forgetLost(g)
		case g != nil && isForbidden(err):
			j.giveUp(g, err)
		default:
			return nil, fmt.Errorf("nothing was sent, since it can't be noted in the journal: %w", err)
		}
	}
}

// nextGroup names the next object of our slot.
func (j *journal) nextGroup(ctx context.Context, inherit inheritor) (*group, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.openSlotLocked(ctx, inherit); err != nil {
		return nil, err
	}
	j.sequence = max(j.sequence+1, time.Now().UnixNano())
	object := journalFolder + "/" + j.slot + "/" + strconv.FormatInt(j.sequence, 36)
	return &group{object: object, lease: j.slots[j.slot]}, nil
}

// giveUp has another slot written from now on. What the slot holds is still ours to remove.
func (j *journal) giveUp(g *group, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	slot := slotOf(g.object)
	if j.slot == slot {
		j.slot = ""
	}
	j.unfit[slot] = true
	j.setAsideLocked(journalFolder+"/"+slot, "another one is used", err)
}

// forgetLost has another slot written from now on. The process that has the lost one by now removes the records in it.
func (j *journal) forgetLost(g *group) {
	j.mu.Lock()
	defer j.mu.Unlock()
	slot := slotOf(g.object)
	if lease := j.slots[slot]; lease != nil && lease.Context().Err() != nil {
		j.dropSlotLocked(slot)
	}
}

// dropSlotLocked gives back a slot that is ours no longer.
func (j *journal) dropSlotLocked(slot string) {
	j.slots[slot].Release()
	delete(j.slots, slot)
	delete(j.unfit, slot)
	if j.slot == slot {
		j.slot = ""
	}
}

// setAsideLocked logs once that something in the journal can't be used.
func (j *journal) setAsideLocked(object, instead string, err error) {
	if j.aside[object] {
		return
	}
	j.aside[object] = true
	j.logger.Error("a part of the journal can't be used and stays as it is; "+instead+"; see who owns it, and remove it when the zone has no record of ours",
		"object", object, "err", err)
}

// badSlotLocked sets a slot aside that can't be read.
func (j *journal) badSlotLocked(slot string, err error) {
	j.setAsideLocked(journalFolder+"/"+slot, "the others are used", err)
}

// openSlotLocked makes sure that there is a slot to write to: one that was taken over, or else the first that is free.
func (j *journal) openSlotLocked(ctx context.Context, inherit inheritor) error {
	if j.slot != "" {
		return nil
	}
	for slot := range j.slots {
		if !j.unfit[slot] {
			j.slot = slot
			return nil
		}
	}
	var last error
	for n := range maxSlots {
		slot := strconv.Itoa(n)
		if j.slots[slot] != nil {
			continue // ours, and unfit
		}
		lease, err := j.storage.Try(ctx, slotLock(slot))
		if last = err; err != nil {
			continue // another process's, or not to be had
		}
		if last = j.takeOverLocked(ctx, slot, lease, inherit); last != nil {
			j.setAsideLocked(journalFolder+"/"+slot, "another one is used", last)
			continue
		}
		j.slot = slot
		return nil
	}
	return fmt.Errorf("none of %d slots is free: %w", maxSlots, last)
}

// takeOverLocked makes a slot ours, whose lease we hold, with the records in it. On failure it isn't ours, and a later sweep
// finds it again.
func (j *journal) takeOverLocked(ctx context.Context, slot string, lease store.Lease, inherit inheritor) error {
	j.slots[slot] = lease
	entries, err := j.readSlotLocked(ctx, slot)
	if err != nil {
		delete(j.slots, slot)
		lease.Release()
		return fmt.Errorf("journal: %w", err)
	}
	if len(entries) > 0 {
		inherit(ctx, lease, entries)
	}
	return nil
}

// readSlotLocked returns the entries of a slot, by object.
func (j *journal) readSlotLocked(ctx context.Context, slot string) (map[string]journaled, error) {
	objects, err := scan(ctx, j.storage, journalFolder+"/"+slot)
	switch {
	case err != nil && isForbidden(err):
		j.badSlotLocked(slot, err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	entries := map[string]journaled{}
	for _, o := range objects {
		if err := j.readLocked(o, entries); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// readLocked reads one object into entries. One that can't be read is logged, stays, and doesn't keep the others from being
// used.
func (j *journal) readLocked(o store.Object, entries map[string]journaled) error {
	switch {
	case isForbidden(o.Err):
		j.setAsideLocked(o.Key, "the others are used", o.Err)
		return nil
	case o.Err != nil:
		return o.Err
	}
	var entry journaled
	if err := json.Unmarshal(o.Data, &entry); err != nil {
		if !j.aside[o.Key] {
			j.logger.Error("journal entry is damaged and stays: remove the _acme-challenge records that it names by hand, then the entry", "object", o.Key, "err", err)
		}
		j.aside[o.Key] = true
		return nil
	}
	entries[o.Key] = entry
	return nil
}

// elsewhereLocked returns the records in slots that aren't ours. They are left to those: the process that holds one has
// resumed the order of a dead one, or will be swept itself.
func (j *journal) elsewhereLocked(ctx context.Context) map[zones.TXT]bool {
	objects, err := scanJournal(ctx, j.storage, j.badSlotLocked)
	if err != nil {
		j.setAsideLocked(journalFolder, "the others are used", err)
	}
	entries := map[string]journaled{}
	for _, o := range objects {
		if slot := slotOf(o.Key); slot != "" && j.slots[slot] == nil {
			if err := j.readLocked(o, entries); err != nil {
				j.setAsideLocked(o.Key, "the others are used", err)
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

// refreshLocked gives back the slots whose leases were lost, and takes over those of dead processes: what is in one that was
// lost is taken over again, if no other process has it.
func (j *journal) refreshLocked(ctx context.Context, inherit inheritor) error {
	for slot, lease := range j.slots {
		if lease.Context().Err() != nil {
			j.dropSlotLocked(slot)
		}
	}
	keys, err := listJournal(ctx, j.storage, j.badSlotLocked)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	dead := map[string]store.Lease{}
	for slot := range slotsOf(keys) {
		if j.slots[slot] != nil {
			continue
		}
		if lease, err := j.storage.Try(ctx, slotLock(slot)); err == nil {
			dead[slot] = lease
		}
	}
	var failures []error
	for slot, lease := range dead {
		failures = append(failures, j.takeOverLocked(ctx, slot, lease, inherit))
	}
	return errors.Join(failures...)
}

// drop deletes the objects of groups that are empty. When that fails, the next process removes their records once more,
// which is harmless. So does the process that has a slot by now that we lost.
func (j *journal) drop(ctx context.Context, empty []*group) {
	for _, g := range empty {
		err := g.lease.Delete(context.WithoutCancel(ctx), g.object)
		if err != nil && !errors.Is(err, store.ErrLost) {
			j.logger.Warn("journal entry can't be deleted; the next start does it", "object", g.object, "err", err)
		}
	}
}

// has reports whether the slot of an object is ours.
func (j *journal) has(object string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.slots[slotOf(object)] != nil
}

// close gives all slots back.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, lease := range j.slots {
		lease.Release()
	}
	j.slots = nil
}
