package dns01

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
)

// listed is what ListRecords says, in short: value, and who removes it.
func listed(t *testing.T, store Storage) (list []string) {
	t.Helper()
	records, err := ListRecords(context.Background(), store)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		switch {
		case r.Damaged != nil:
			list = append(list, "damaged "+r.Object)
		case r.Holder == nil:
			list = append(list, r.Value+" left")
		case r.Holder.PID == os.Getpid() && r.Holder.Command == "test":
			list = append(list, r.Value+" held")
		default:
			list = append(list, r.Value+" strange")
		}
	}
	return list
}

func TestListRecords(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	synctest.Test(t, func(t *testing.T) {
		view := &process{}
		viewer := view.start(t, dir, zone)
		if list := listed(t, view); len(list) != 0 {
			t.Errorf("before anything was published: %q", list)
		}
		dying(t, dir, zone, key("a", "resumed"), key("b", "lost"))
		living := &process{}
		s := living.start(t, dir, zone)
		occupySlot(t, s)
		sol := begin(s)
		mustSubmit(t, sol, key("a", "resumed"), key("c", "own"))
		if err := os.WriteFile(filepath.Join(dir, "journal", "0", "torn"), []byte(`{"provider":`), 0o600); err != nil {
			t.Fatal(err)
		}
		objects := journalObjects(t, view)
		if list, want := listed(t, view), []string{"damaged journal/0/torn", "resumed held", "lost left", "own held"}; !slices.Equal(list, want) {
			t.Errorf("listed are %q, want %q", list, want)
		}
		if now := journalObjects(t, view); !slices.Equal(now, objects) || zone.Len() != 3 {
			t.Errorf("looking changed the journal from %q to %q", objects, now)
		}
		if lease, err := view.Try(t.Context(), slotLock("0")); err != nil {
			t.Errorf("the lock of the dead process's slot is still held: %v", err)
		} else {
			lease.Release()
		}
		sol.Remove()
		closeSolver(t, s)
		closeSolver(t, viewer)
		if list, want := listed(t, view), []string{"damaged journal/0/torn", "resumed left", "lost left"}; !slices.Equal(list, want) {
			t.Errorf("after the end, listed are %q, want %q", list, want)
		}
		if err := os.RemoveAll(filepath.Join(dir, "locks")); err != nil {
			t.Fatal(err)
		}
		if list := listed(t, view); len(list) != 3 {
			t.Errorf("in a journal from a backup, without locks, listed are %q", list)
		}
	})
}

// One of two records of an entry can't be removed: the entry stays whole, and the solver knows better.
func TestUnremoved(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	synctest.Test(t, func(t *testing.T) {
		dying(t, dir, zone, key("a", "x"), key("b", "y"))
		p := &process{}
		s := p.start(t, dir, zone)
		down := errors.New("down")
		p.Before = func(c call) (bool, error) {
			if c.Records[0].Value == "x" {
				return false, down
			}
			return true, nil
		}
		records, err := ListRecords(t.Context(), p)
		if err != nil || len(records) != 2 || s.Took(records[0]) {
			t.Fatalf("before the sweep: %+v (%v)", records, err)
		}
		mustSweep(t, s)
		if !s.Took(records[0]) || !s.Took(records[1]) {
			t.Error("the sweep hasn't taken the slot over")
		}
		if err := s.Close(t.Context()); !errors.Is(err, down) {
			t.Errorf("closing says %v", err)
		}
		if list := listed(t, p); !slices.Equal(list, []string{"x left", "y left"}) {
			t.Errorf("the journal has %q", list)
		}
		if still, why := s.Unremoved(records[0]); !still || !errors.Is(why, down) {
			t.Errorf("the first is still there: %t, because of %v", still, why)
		}
		if still, why := s.Unremoved(records[1]); still || why != nil {
			t.Errorf("the second is still there: %t, because of %v", still, why)
		}
	})
}
