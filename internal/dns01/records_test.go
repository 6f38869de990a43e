package dns01

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
			if c.Records[0].value == "x" {
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

func TestFind(t *testing.T) {
	d := startDNS(t, []string{"example.test", "acme.test"},
		`a.example.test. 60 IN TXT "one"`, `a.example.test. 60 IN TXT "two" " halves"`,
		"alias.example.test. 60 IN CNAME a.example.test.")
	other := startDNS(t, []string{"example.test"}, `a.example.test. 60 IN TXT "three"`, `a.example.test. 60 IN TXT "one"`)
	const nobody = "127.0.0.1:1"
	s := newSolver(openFiles(t, t.TempDir()),
		Provider{Name: "bind", Zones: []string{"example.test"}, Servers: []string{d.Addr(), other.Addr(), nobody}},
		Provider{Name: "api", Zones: []string{"acme.test"}, Nameservers: []string{other.Addr()}, Check: CheckNone},
		Provider{Name: "silent", Zones: []string{"silent.test"}, Servers: []string{nobody}})
	defer closeSolver(t, s)
	tests := []struct {
		name, provider, zone, at string
		values                   []string
		err                      string
	}{
		{name: "several servers are asked for all", provider: "bind", zone: "example.test", at: "a.example.test", values: []string{"one", "three", "two halves"}},
		{name: "aliases aren't followed", provider: "bind", zone: "example.test", at: "alias.example.test"},
		{name: "a name that isn't there has no values", provider: "bind", zone: "example.test", at: "none.example.test"},
		{name: "an API's zone is asked at its name servers, whatever orders wait for", provider: "api", zone: "acme.test", at: "x.acme.test", err: other.Addr() + " answers REFUSED"},
		{name: "silence is told", provider: "silent", zone: "silent.test", at: "x.silent.test", err: nobody + " doesn't listen"},
		{name: "a provider that is gone is told", provider: "gone", zone: "example.test", at: "a.example.test", err: "isn't in the configuration any more"},
	}
	var spots []Spot
	for _, tt := range tests {
		spots = append(spots, Spot{tt.provider, tt.zone, tt.at})
	}
	found := s.Find(t.Context(), append(spots, spots...))
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := found[spots[i]]
			if !slices.Equal(got.Values, tt.values) || (got.Err != nil) != (tt.err != "") || got.Err != nil && !strings.Contains(got.Err.Error(), tt.err) {
				t.Errorf("found %q (%v)", got.Values, got.Err)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	d := startDNS(t, []string{"example.test"}, "_acme-challenge.alias.example.test. 60 IN CNAME x.silent.test.",
		"_acme-challenge.abroad.example.test. 60 IN CNAME x.foreign.test.")
	s := newSolver(openFiles(t, t.TempDir()),
		Provider{Name: "bind", Zones: []string{"example.test"}, Servers: []string{d.Addr()}},
		Provider{Name: "silent", Zones: []string{"silent.test", "deep.silent.test"}, Servers: []string{"127.0.0.1:1"}})
	s.UseResolvers([]string{d.Addr()})
	defer closeSolver(t, s)
	tests := []struct {
		name, at                string
		provider, zone, written string
		fails                   bool
	}{
		{name: "DNS says it", at: "_acme-challenge.WWW.example.test.", provider: "bind", zone: "example.test", written: "_acme-challenge.www.example.test"},
		{name: "for a silent server the configuration says it", at: "a.deep.silent.test", provider: "silent", zone: "deep.silent.test", written: "a.deep.silent.test", fails: true},
		{name: "an alias to a silent server isn't where it starts", at: "_acme-challenge.alias.example.test", written: "x.silent.test", fails: true},
		{name: "an alias to nobody's zone leads nowhere", at: "_acme-challenge.abroad.example.test", written: "x.foreign.test", fails: true},
		{name: "a name that nobody serves has no place", at: "www.foreign.test", written: "www.foreign.test", fails: true},
	}
	var names []string
	for _, tt := range tests {
		names = append(names, tt.at)
	}
	for i, got := range s.Places(t.Context(), names) {
		tt := tests[i]
		t.Run(tt.name, func(t *testing.T) {
			if got.Provider != tt.provider || got.Zone != tt.zone || got.Name() != tt.written || (got.Err != nil) != tt.fails {
				t.Errorf("%s is in zone %q of %q (%v)", got, got.Zone, got.Provider, got.Err)
			}
		})
	}
}
