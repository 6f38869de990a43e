package dns01

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"autocertd/internal/store"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// dying publishes the records as a process that dies then.
func dying(t *testing.T, dir string, zone *fakeZone, records ...zones.TXT) {
	t.Helper()
	p := &process{}
	s := p.start(t, dir, zone)
	mustSubmit(t, begin(s), records...)
	p.mu.Lock()
	p.die()
	p.mu.Unlock()
	_ = s.Close(t.Context())
	if zone.Len() == 0 || len(journalObjects(t, p.Store)) == 0 {
		t.Fatal("the dead process left nothing to sweep")
	}
}

func mustSweep(t *testing.T, s *Solver) {
	t.Helper()
	if err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	synctest.Wait()
}

func TestSweepLeavesTheLivingAlone(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	synctest.Test(t, func(t *testing.T) {
		living, other := &process{}, &process{}
		s, sweeper := living.start(t, dir, zone), other.start(t, dir, zone)
		sol := begin(s)
		mustSubmit(t, sol, keys(3, "x")...)
		mustSweep(t, sweeper)
		if calls := other.Calls(""); len(calls) != 0 || zone.Len() != 3 {
			t.Errorf("%d of 3 records are left after another's sweep: %+v", zone.Len(), calls)
		}
		sol.Remove()
		closeSolver(t, s)
		closeSolver(t, sweeper)
		if objects := journalObjects(t, living.Store); zone.Len() != 0 || len(objects) != 0 {
			t.Errorf("in the end %v are left in the zone, %q in the journal", zone.records, objects)
		}
	})
}

// An order that goes on after a crash needs the record that the dead process published. Whoever sweeps when, the record
// is there while the order needs it, and gone after.
func TestSweepSparesResumedOrders(t *testing.T) {
	tests := []struct {
		name    string
		elapsed time.Duration // from the sweep to the order; negative: the order comes first
		another bool          // process has the order
	}{
		{name: "the order is resumed before the sweep", elapsed: -time.Second},
		{name: "the order is resumed while the removal is on its way", elapsed: time.Second / 2},
		{name: "the order is resumed after the removal", elapsed: time.Minute},
		{name: "another process has resumed the order before the sweep", elapsed: -time.Second, another: true},
		{name: "another process resumes the order after the removal", elapsed: time.Minute, another: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, zone := t.TempDir(), &fakeZone{}
			synctest.Test(t, func(t *testing.T) {
				dying(t, dir, zone, key("a", "x"))
				p, q := &process{}, &process{}
				ours, others := p.start(t, dir, zone), q.start(t, dir, zone)
				p.Delay = time.Second
				owner := ours
				if tt.another {
					owner = others
					occupySlot(t, owner)
				}
				var sol *solution
				resume := func() {
					sol = begin(owner)
					mustSubmit(t, sol, key("a", "x"))
				}
				if tt.elapsed < 0 {
					resume()
				}
				if err := ours.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
				time.Sleep(max(tt.elapsed, 0))
				if tt.elapsed >= 0 {
					resume()
				}
				time.Sleep(time.Hour)
				mustSweep(t, ours)
				if !zone.Has(key("a", "x")) {
					t.Error("the record was removed under the order's feet")
				}
				sol.Remove()
				closeSolver(t, others)
				closeSolver(t, ours)
				if objects := journalObjects(t, p.Store); zone.Len() != 0 || len(objects) != 0 {
					t.Errorf("in the end %v are left in the zone, %q in the journal", zone.records, objects)
				}
			})
		})
	}
}

// The CA may look for what a dead process published as long as its order is open. The record stays until the order goes on
// and ends, or is dropped, or for some minutes at the most.
func TestSweepKeepsWhatOpenOrdersWant(t *testing.T) {
	alias := issuer.Record{Name: "_acme-challenge.www.example.org", Value: "aliased"}
	tests := []struct {
		name string
		open []string // hostnames of open orders
		then func(t *testing.T, s *Solver, open *[]string)
		err  error // of looking for open orders
		left []int // records after the first sweep, then, and in the end
	}{
		{name: "no order is open", left: []int{0, 0, 0}},
		{name: "another host's order is open", open: []string{"other.example.test"}, left: []int{0, 0, 0}},
		{name: "the order is open, and nobody goes on with it", open: []string{"a.example.test"}, left: []int{1, 1, 0}},
		{name: "the order of a wildcard", open: []string{"*.A.example.test"}, left: []int{1, 1, 0}},
		{name: "the order is dropped", open: []string{"a.example.test"}, left: []int{1, 0, 0},
			then: func(_ *testing.T, _ *Solver, open *[]string) { *open = nil }},
		{name: "the order goes on, and ends", open: []string{"a.example.test"}, left: []int{1, 0, 0},
			then: func(t *testing.T, s *Solver, _ *[]string) {
				sol := begin(s)
				mustSubmit(t, sol, key("a", "x"))
				sol.Remove()
			}},
		{name: "it isn't known which orders are open", err: errors.New("no such folder"), left: []int{2, 2, 0}},
		{name: "the challenge's name is an alias", open: []string{"www.example.org"}, left: []int{1, 1, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, zone := t.TempDir(), &fakeZone{}
			synctest.Test(t, func(t *testing.T) {
				p := &process{}
				dead := p.start(t, dir, zone)
				sol := begin(dead)
				sol.led = map[zones.TXT]string{key("b", alias.Value): alias.Name}
				mustSubmit(t, sol, key("a", "x"), key("b", alias.Value))
				p.mu.Lock()
				p.die()
				p.mu.Unlock()
				_ = dead.Close(t.Context())

				open := tt.open
				p = &process{}
				s := p.start(t, dir, zone)
				s.cfg.OpenHostnames = func(context.Context) ([]string, error) { return open, tt.err }
				look := func(when string, want int) {
					mustSweep(t, s)
					time.Sleep(removeOldest)
					if n := zone.Len(); n != want {
						t.Errorf("%s, %d records are there, want %d", when, n, want)
					}
				}
				look("after the first sweep", tt.left[0])
				if tt.then != nil {
					tt.then(t, s, &open)
				}
				look("then", tt.left[1])
				time.Sleep(keepTime)
				look("in the end", tt.left[2])
				closeSolver(t, s)
				if objects := journalObjects(t, p.Store); len(objects) != 0 {
					t.Errorf("left in the journal: %q", objects)
				}
			})
		})
	}
}

// A program that ends in order takes with it what it kept for others.
func TestCloseRemovesWhatWasKept(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	synctest.Test(t, func(t *testing.T) {
		dying(t, dir, zone, key("a", "x"))
		s := (&process{}).start(t, dir, zone)
		s.cfg.OpenHostnames = func(context.Context) ([]string, error) { return []string{"a.example.test"}, nil }
		mustSweep(t, s)
		if zone.Len() != 1 {
			t.Error("the record isn't kept")
		}
		closeSolver(t, s)
		if zone.Len() != 0 {
			t.Error("the record is left")
		}
	})
}

// occupySlot gives the solver a slot other than the dead process's, as a process has that lived beside it.
func occupySlot(t *testing.T, s *Solver) {
	t.Helper()
	lease, err := s.cfg.Storage.Try(t.Context(), slotLock("7"))
	if err != nil {
		t.Fatal(err)
	}
	s.journal.slots["7"] = lease
}

// A removal that fails for long isn't tried again once another process needs the record.
func TestRetrySparesResumedOrders(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	synctest.Test(t, func(t *testing.T) {
		dying(t, dir, zone, key("a", "x"), key("b", "y"))
		var down atomic.Bool
		down.Store(true)
		p, q := &process{}, &process{}
		ours := p.start(t, dir, zone)
		p.Before = func(call) (bool, error) {
			if down.Load() {
				return false, later{errors.New("down")}
			}
			return true, nil
		}
		mustSweep(t, ours)
		time.Sleep(10 * time.Second) // the removal has failed
		others := q.start(t, dir, zone)
		sol := begin(others)
		mustSubmit(t, sol, key("a", "x"))
		down.Store(false)
		time.Sleep(time.Hour)
		mustSweep(t, ours)
		if !zone.Has(key("a", "x")) || zone.Has(key("b", "y")) {
			t.Errorf("in the zone: %v; want the record that the other process needs, alone", zone.records)
		}
		sol.Remove()
		closeSolver(t, others)
		closeSolver(t, ours)
		if objects := journalObjects(t, p.Store); zone.Len() != 0 || len(objects) != 0 {
			t.Errorf("in the end %v are left in the zone, %q in the journal", zone.records, objects)
		}
	})
}

func TestProviderGoneAndBack(t *testing.T) {
	for _, sweeps := range []int{1, 100} {
		dir, zone := t.TempDir(), &fakeZone{}
		var log logged
		synctest.Test(t, func(t *testing.T) {
			dying(t, dir, zone, keys(2, "x")...)
			p := &process{}
			p.start(t, dir, zone)
			s := New(Config{Storage: p, Logger: log.Logger()})
			for i := range sweeps {
				time.Sleep(time.Duration(i) * time.Minute)
				mustSweep(t, s)
			}
			const told = "their provider isn't in the configuration any more"
			if n := log.Count(told); n != 1 || zone.Len() != 2 || len(journalObjects(t, p.Store)) != 1 {
				t.Errorf("told %d times, %d records left, %q in the journal; want 1, 2 and one entry", n, zone.Len(), journalObjects(t, p.Store))
			}
			configure(s, fake(p.fakeClient))
			mustSweep(t, s)
			if objects := journalObjects(t, p.Store); zone.Len() != 0 || len(objects) != 0 {
				t.Errorf("when it is back, %v are left in the zone, %q in the journal", zone.records, objects)
			}
			closeSolver(t, s)
		})
	}
}

// A provider that is gone for good isn't a failure of every later program.
func TestCloseWithoutProvider(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	synctest.Test(t, func(t *testing.T) {
		dying(t, dir, zone, key("a", "x"))
		s := newSolver(openFiles(t, dir))
		mustSweep(t, s)
		closeSolver(t, s)
	})
}

func TestDamagedEntryStaysAlone(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	var log logged
	synctest.Test(t, func(t *testing.T) {
		dying(t, dir, zone, key("a", "x"))
		p := &process{}
		p.start(t, dir, zone)
		const damaged = "journal/0/0damaged"
		if err := p.Store.Save(context.Background(), damaged, []byte(`{"provider":`)); err != nil {
			t.Fatal(err)
		}
		s := New(Config{Storage: p, Logger: log.Logger()})
		configure(s, fake(p.fakeClient))
		mustSweep(t, s)
		mustSweep(t, s)
		closeSolver(t, s)
		if objects := journalObjects(t, p.Store); zone.Len() != 0 || len(objects) != 1 || objects[0] != damaged {
			t.Errorf("left in the zone %v, in the journal %q", zone.records, objects)
		}
		if n := log.Count(damaged); n != 1 {
			t.Errorf("told %d times of the damaged entry", n)
		}
	})
}

// An entry that can't be read for now is found again by the next sweep.
func TestSweepAgainAfterStorageFailed(t *testing.T) {
	dir, zone := t.TempDir(), &fakeZone{}
	synctest.Test(t, func(t *testing.T) {
		dying(t, dir, zone, key("a", "x"))
		p := &process{}
		p.start(t, dir, zone)
		store := &unreadable{process: p, times: 1}
		s := newSolver(store, fake(p.fakeClient))
		if err := s.Sweep(t.Context()); !errors.Is(err, errUnreadable) {
			t.Errorf("Sweep: %v", err)
		}
		mustSweep(t, s)
		closeSolver(t, s)
		if objects := journalObjects(t, p.Store); zone.Len() != 0 || len(objects) != 0 {
			t.Errorf("left in the zone %v, in the journal %q", zone.records, objects)
		}
	})
}

var errUnreadable = errors.New("input/output error")

// unreadable fails the first few loads.
type unreadable struct {
	*process
	times int
}

func (u *unreadable) Scan(ctx context.Context, prefixes ...string) iter.Seq2[store.Object, error] {
	return store.ScanByLoad(ctx, u, prefixes...)
}

func (u *unreadable) Load(ctx context.Context, key string) ([]byte, error) {
	if u.times--; u.times >= 0 {
		return nil, errUnreadable
	}
	return u.process.Load(ctx, key)
}

func TestRemovalBackoff(t *testing.T) {
	tests := []struct {
		failures int
		want     time.Duration
	}{{1, time.Minute}, {2, 2 * time.Minute}, {4, 8 * time.Minute}, {7, time.Hour}, {1000, time.Hour}}
	for _, tt := range tests {
		if got := removalBackoff(tt.failures); got != tt.want {
			t.Errorf("after %d failures: %s, want %s", tt.failures, got, tt.want)
		}
	}
}

// A server that takes an update, reports a failure and is down from then on keeps the record; so does the journal, until
// the server is back.
func TestServerGoesDownWithTheRecord(t *testing.T) {
	down := later{errors.New("connection refused")}
	for _, report := range []error{down, errors.New("bad signature of the answer"), context.DeadlineExceeded} {
		dir, zone := t.TempDir(), &fakeZone{}
		synctest.Test(t, func(t *testing.T) {
			p := &process{}
			s := p.start(t, dir, zone)
			p.Before = func(c call) (bool, error) {
				if c.Method == "append" {
					return true, report
				}
				return false, down
			}
			sol := begin(s)
			if err := sol.submit(t.Context(), keys(1, "x")); !errors.Is(err, report) {
				t.Errorf("submit: %v", err)
			}
			sol.Remove()
			if err := s.Close(t.Context()); !errors.Is(err, down) || zone.Len() != 1 {
				t.Errorf("after %q: Close: %v, with %d records in the zone", report, err, zone.Len())
			}
			heir := (&process{}).start(t, dir, zone)
			mustSweep(t, heir)
			closeSolver(t, heir)
			if objects := journalObjects(t, p.Store); zone.Len() != 0 || len(objects) != 0 {
				t.Errorf("after %q: left in the zone %v, in the journal %q", report, zone.records, objects)
			}
		})
	}
}

// A process whose slot's lease is lost goes on with another, or with the same when it is free. What it published is removed in
// the end by one of those who have the slots, and stays as long as an order needs it.
func TestLostSlot(t *testing.T) {
	for _, tt := range []struct {
		name   string
		taken  bool // another process takes the slot before
		sweeps bool // before it writes
	}{
		{"found out by a write", false, false},
		{"found out by a sweep", false, true},
		{"found out by a write, and taken", true, false},
		{"found out by a sweep, and taken", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, zone := t.TempDir(), &fakeZone{}
			synctest.Test(t, func(t *testing.T) {
				p, q := &process{}, &process{}
				ours, others := p.start(t, dir, zone), q.start(t, dir, zone)
				others.cfg.OpenHostnames = func(context.Context) ([]string, error) { return []string{"h0.example.test"}, nil }
				first := begin(ours)
				mustSubmit(t, first, keys(1, "before")...)
				if err := os.Remove(filepath.Join(dir, "locks", slotLock("0")+".lock")); err != nil {
					t.Fatal(err)
				}
				if tt.taken {
					mustSweep(t, others)
				}
				if tt.sweeps {
					time.Sleep(2 * time.Second) // it is noticed by itself
					mustSweep(t, ours)
				}
				second := begin(ours)
				mustSubmit(t, second, key("second", "after"))
				if zone.Len() != 2 {
					t.Errorf("in the zone: %v, want both records", zone.records)
				}
				first.Remove()
				second.Remove()
				time.Sleep(time.Minute)
				closeSolver(t, ours)
				mustSweep(t, others)
				closeSolver(t, others)
				if objects := journalObjects(t, p.Store); zone.Len() != 0 || len(objects) != 0 {
					t.Errorf("left in the zone %v, in the journal %q", zone.records, objects)
				}
			})
		})
	}
}

// Who waits for a server that was silent is told when it answers again, once, by whatever is asked of it.
func TestAnsweredAgain(t *testing.T) {
	d := startDNS(t, nil)
	p := rfc2136(t, d.Addr(), d.Key("acme-key"))
	live := p.Servers
	var told []string
	s := New(Config{
		Storage: openFiles(t, t.TempDir()),
		Zones:   zones.New(zones.Config{Answered: func(provider string) { told = append(told, provider) }}),
	})
	defer closeSolver(t, s)
	locate := func(want bool) {
		if _, err := s.Zones().Locate(t.Context(), "_acme-challenge.www.example.test"); (err == nil) != want {
			t.Errorf("Locate: %v", err)
		}
	}
	configure(s, p)
	locate(true) // it was never silent
	p.Servers = []string{"127.0.0.1:1"}
	configure(s, p)
	locate(false)
	locate(false)
	if len(told) > 0 {
		t.Errorf("told %q while it is silent", told)
	}
	p.Servers = live
	configure(s, p)
	mustSweepNow(t, s)
	locate(true)
	mustSweepNow(t, s)
	if len(told) != 1 || told[0] != "bind" {
		t.Errorf("told %q", told)
	}
}

// mustSweepNow is mustSweep outside bubbles.
func mustSweepNow(t *testing.T, s *Solver) {
	t.Helper()
	if err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
}
