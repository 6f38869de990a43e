package dns01

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/internal/store/storetest"
	"autocertd/internal/zones"
)

// process is what one process sees of storage and of the zone. Each operation that changes something is a step; at the
// step FailAt the process dies, or one call fails, with the step done or not.
type process struct {
	*files.Store
	*fakeClient
	FailAt int   // 0: never
	Effect bool  // the failing step takes effect all the same
	Fault  error // what the failing call returns; nil: the process dies

	mu     sync.Mutex
	steps  int
	saves  int
	dead   bool
	leases []store.Lease
}

var errDead = errors.New("the process is dead")

// step runs f unless the process is dead, or dies before it.
func (p *process) step(f func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errDead
	}
	p.steps++
	if p.steps != p.FailAt {
		return f()
	}
	if p.Effect {
		if err := f(); err != nil {
			return err
		}
	}
	if p.Fault == nil {
		p.die()
		return errDead
	}
	return p.Fault
}

// die makes all that the process still does go unheard and frees its leases, as the end of a process does. mu is held.
func (p *process) die() {
	p.dead = true
	for _, lease := range p.leases {
		lease.Release()
	}
	p.leases = nil
}

func (p *process) Try(ctx context.Context, name string) (store.Lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return nil, errDead
	}
	lease, err := p.Store.Try(ctx, name)
	if err != nil {
		return nil, err
	}
	p.leases = append(p.leases, lease)
	return storetest.Hooked{Lease: lease, Write: func(op, _ string, write func() error) error {
		return p.step(func() error {
			if op == "Save" {
				p.saves++
			}
			return write()
		})
	}}, nil
}

// before lets the calls of the provider be steps, too.
func (p *process) before(call) (effect bool, err error) {
	err = p.step(func() error {
		effect = true
		return nil
	})
	return effect, err
}

// start makes the process's solver, with the zone as it is.
func (p *process) start(t *testing.T, dir string, zone *fakeZone) *Solver {
	p.Store = openFiles(t, dir)
	p.fakeClient = &fakeClient{Zone: zone, Before: p.before}
	return newSolver(p, fake(p.fakeClient))
}

// twoOrders publish a record each and one that they share; when they are done, a third order publishes one.
func twoOrders(ctx context.Context, s *Solver) {
	var group sync.WaitGroup
	for i, sol := range beginAll(s, 2) {
		group.Go(func() {
			defer sol.Remove()
			if sol.submit(ctx, []zones.TXT{key(fmt.Sprint(i), "own"), key("shared", "shared")}) == nil {
				time.Sleep(time.Second)
			}
		})
	}
	group.Wait()
	time.Sleep(time.Second)
	sol := begin(s)
	_ = sol.submit(ctx, keys(1, "later"))
	sol.Remove()
}

// Whatever fails at whatever step, done or not, and whether the process lives on or dies: after the next one has swept,
// nothing is left in the zone or in the journal.
func TestJournalSurvivesEveryFault(t *testing.T) {
	faults := map[string]error{"dies": nil, "is refused": errors.New("refused"), "fails for now": later{errors.New("busy")},
		"fails for all": broken{errors.New("broken")}}
	run := func(t *testing.T, p *process) {
		dir := t.TempDir()
		zone := &fakeZone{}
		synctest.Test(t, func(t *testing.T) {
			s := p.start(t, dir, zone)
			twoOrders(t.Context(), s)
			time.Sleep(10 * time.Second)
			_ = s.Close(t.Context())
			next := &process{}
			heir := next.start(t, dir, zone)
			if err := heir.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
			closeSolver(t, heir)
		})
		if zone.Len() != 0 {
			t.Errorf("left in the zone: %v", slices.Collect(maps.Keys(zone.records)))
		}
		if left := journalObjects(t, p.Store); len(left) != 0 {
			t.Errorf("left in the journal: %q", left)
		}
	}
	healthy := &process{}
	run(t, healthy)
	// Two groups, each saved, sent, removed and deleted.
	if healthy.steps != 8 || healthy.saves != 2 {
		t.Fatalf("without a fault: %d steps with %d writes, want 8 with 2", healthy.steps, healthy.saves)
	}
	for name, fault := range faults {
		for step := range healthy.steps {
			for _, effect := range []bool{false, true} {
				t.Run(fmt.Sprintf("step %d %s, effect %t", step+1, name, effect), func(t *testing.T) {
					p := &process{FailAt: step + 1, Effect: effect, Fault: fault}
					run(t, p)
					if p.steps < p.FailAt {
						t.Errorf("only %d steps: the fault didn't happen", p.steps)
					}
				})
			}
		}
	}
}

// A group enters the journal with one write, however many orders and records it has.
func TestOneJournalWritePerGroup(t *testing.T) {
	p := &process{}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := p.start(t, dir, nil)
		var group sync.WaitGroup
		for i, sol := range beginAll(s, 150) {
			group.Go(func() {
				defer sol.Remove()
				mustSubmit(t, sol, keys(150, "x")[i])
			})
		}
		group.Wait()
		closeSolver(t, s)
	})
	if p.saves != 1 || len(p.Calls("append")) != 1 {
		t.Errorf("%d writes for %d groups, want 1 and 1", p.saves, len(p.Calls("append")))
	}
}

// spoilt is a storage in which some objects can be neither read nor written, and some folders can't be listed.
type spoilt struct {
	*files.Store
	objects string // the beginning of their names
	folder  string
}

func (f spoilt) forbids(key string) error {
	if f.objects != "" && strings.HasPrefix(key, f.objects) {
		return &fs.PathError{Op: "open", Path: key, Err: fs.ErrPermission}
	}
	return nil
}

func (f spoilt) Load(ctx context.Context, key string) ([]byte, error) {
	if err := f.forbids(key); err != nil {
		return nil, err
	}
	return f.Store.Load(ctx, key)
}

func (f spoilt) Scan(ctx context.Context, prefixes ...string) iter.Seq2[store.Object, error] {
	return store.ScanByLoad(ctx, f, prefixes...)
}

func (f spoilt) Try(ctx context.Context, name string) (store.Lease, error) {
	lease, err := f.Store.Try(ctx, name)
	if err != nil {
		return nil, err
	}
	return storetest.Hooked{Lease: lease, Write: func(op, key string, write func() error) error {
		if err := f.forbids(key); err != nil && op != "Delete" {
			return err
		}
		return write()
	}}, nil
}

func (f spoilt) List(ctx context.Context, prefix string) ([]string, error) {
	if f.folder != "" && (prefix == f.folder || strings.HasPrefix(f.folder, prefix+"/")) {
		return nil, &fs.PathError{Op: "open", Path: f.folder, Err: fs.ErrPermission}
	}
	return f.Store.List(ctx, prefix)
}

// A part of the journal that can't be read or written is its own problem: it stays aside and is told once.
func TestSpoiltJournal(t *testing.T) {
	tests := []struct {
		name    string
		objects string
		folder  string
		told    int // objects
	}{
		{name: "an entry that can't be read", objects: "journal/0/abc", told: 1},
		{name: "a slot that can be neither read nor written", objects: "journal/0/", told: 2},
		{name: "a slot that can't be listed", folder: "journal/0", told: 1},
		{name: "a slot that can't be listed nor written", folder: "journal/0", objects: "journal/0/", told: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			entry := []byte(`{"provider":"bind","zone":"example.test","records":[]}`)
			if err := openFiles(t, dir).Save(t.Context(), "journal/0/abc", entry); err != nil {
				t.Fatal(err)
			}
			files := openFiles(t, dir) // the bubble must not meet what goes on outside
			log := &logged{}
			synctest.Test(t, func(t *testing.T) {
				client := &fakeClient{}
				s := New(Config{Storage: spoilt{Store: files, objects: tt.objects, folder: tt.folder}, Logger: log.Logger()})
				configure(s, fake(client))
				for _, value := range []string{"x", "y"} {
					mustSweep(t, s)
					sol := begin(s)
					mustSubmit(t, sol, keys(3, value)...)
					sol.Remove()
				}
				closeSolver(t, s)
				if n := len(client.Calls("append")); n != 2 || client.Left() != 0 {
					t.Errorf("%d of 2 groups were sent, %d records are left", n, client.Left())
				}
			})
			if n := log.Count("can't be used and stays as it is"); n != tt.told {
				t.Errorf("it was told %d times, want %d:\n%s", n, tt.told, &log.text)
			}
			if left := journalObjects(t, files); len(left) != 1 {
				t.Errorf("left in the journal: %q, want the entry that was there before", left)
			}
		})
	}
}

// What can't be written down isn't sent.
func TestNothingIsSentWithoutJournal(t *testing.T) {
	p := &process{FailAt: 1, Fault: errors.New("no space left on device")}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := p.start(t, dir, nil)
		sol := begin(s)
		const want = "publishing _acme-challenge.h0.example.test: nothing was sent, since it can't be noted in the journal: no space left on device"
		if err := sol.submit(t.Context(), keys(1, "x")); err == nil || err.Error() != want {
			t.Errorf("submit: %v, want %s", err, want)
		}
		sol.Remove()
		closeSolver(t, s)
	})
	if calls := p.Calls(""); len(calls) != 0 {
		t.Errorf("sent all the same: %+v", calls)
	}
}
