package lifecycle

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/knownca"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
)

// countingStore counts leases of ledgers, and what is read and written of them.
type countingStore struct {
	state.Store
	leases, loads, saves atomic.Int64
}

func (s *countingStore) Acquire(ctx context.Context, name string) (store.Lease, error) {
	s.leases.Add(1)
	lease, err := s.Store.Acquire(ctx, name)
	return countingLease{lease, s}, err
}

func (s *countingStore) Load(ctx context.Context, key string) ([]byte, error) {
	s.loads.Add(1)
	return s.Store.Load(ctx, key)
}

type countingLease struct {
	store.Lease
	s *countingStore
}

func (l countingLease) SaveLazily(ctx context.Context, key string, data []byte) error {
	l.s.saves.Add(1)
	return l.Lease.SaveLazily(ctx, key, data)
}

// limitedCA returns a CA of Let's Encrypt's limits for a domain.
func limitedCA() config.CA {
	return config.CA{Name: "one", Directory: knownca.Directory(knownca.LetsEncrypt)}
}

// asks returns the request of a host of example.com.
func asks(name string) *request {
	keys := budget.Keys(limitedCA().Limits(), []string{name + ".example.com"}, false)
	return &request{claim: budget.Claim{Name: name, Urgency: 1, Since: time.Now(), Keys: keys}, lease: state.Lock(name)}
}

// TestManyAskAtOnce has two processes ask for more certificates of a domain than there may be: none is sent in vain, and all
// that ask together share an access to the ledger.
func TestManyAskAtOnce(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), limitedCA()
	const processes, each, most = 2, 200, 50
	var admitted, held atomic.Int64
	var group sync.WaitGroup
	var stores []*countingStore
	for p := range processes {
		opened, err := files.Open(dir, fmt.Sprint("process ", p))
		if err != nil {
			t.Fatal(err)
		}
		s := &countingStore{Store: opened}
		stores = append(stores, s)
		l := newLedgers(s, nil).of(ca)
		for i := range each {
			lease, err := s.Try(t.Context(), state.Lock(fmt.Sprintf("host-%d-%d", p, i)))
			if err != nil {
				t.Fatal(err)
			}
			defer lease.Release()
			group.Go(func() {
				r := asks(fmt.Sprintf("host-%d-%d", p, i))
				switch err := l.admit(t.Context(), ca, r); {
				case err != nil:
					t.Error(err)
				case r.id != "":
					admitted.Add(1)
				case r.held.Until.After(time.Now()) && r.held.CA == "one":
					held.Add(1)
				}
			})
		}
	}
	group.Wait()
	if admitted.Load() != most || held.Load() != processes*each-most {
		t.Errorf("%d admitted and %d held, want %d of %d", admitted.Load(), held.Load(), most, processes*each)
	}
	for _, s := range stores {
		t.Logf("%d requests: %d leases, %d loads, %d saves", each, s.leases.Load(), s.loads.Load(), s.saves.Load())
		if s.leases.Load() > each || s.saves.Load() > s.leases.Load() {
			t.Errorf("%d requests took %d leases and %d saves", each, s.leases.Load(), s.saves.Load())
		}
	}
}

// TestAnOrderThatSucceedsCostsOneChange counts accesses, and shows that the next process counts the order too.
func TestAnOrderThatSucceedsCostsOneChange(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), limitedCA()
	open := func() (*countingStore, *ledger) {
		opened, err := files.Open(dir, "test")
		if err != nil {
			t.Fatal(err)
		}
		s := &countingStore{Store: opened}
		return s, newLedgers(s, nil).of(ca)
	}
	left := func(l *ledger) (orders, running int) {
		t.Helper()
		err := l.change(t.Context(), ca, func(b *budget.Ledger, now time.Time) bool {
			orders, running = b.Left("orders", now), len(b.Running)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return orders, running
	}
	s, l := open()
	for i := range 2 {
		before := s.leases.Load()
		r := asks(fmt.Sprint("host-", i))
		if err := l.admit(t.Context(), ca, r); err != nil || r.id == "" {
			t.Fatalf("not admitted: %+v", r)
		}
		sp := &spending{ledger: l, ca: ca, keys: r.claim.Keys, id: r.id}
		if err := sp.end(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if leases, saves := s.leases.Load()-before, s.saves.Load(); leases != 1 || saves != int64(i+1) {
			t.Errorf("%d leases and %d saves for the order", leases, saves)
		}
	}
	_, other := open()
	if orders, running := left(other); orders != 298 || running != 0 {
		t.Errorf("another process sees %d orders left, %d under way; want 298 and 0", orders, running)
	}
	if orders, running := left(l); orders != 298 || running != 0 { // it isn't counted twice
		t.Errorf("afterwards %d orders are left, %d under way; want 298 and 0", orders, running)
	}
	if len(l.ended) != 0 {
		t.Errorf("%d orders that have ended are still remembered", len(l.ended))
	}
}

// TestWhoAsksIsAnsweredThoughAnotherGaveUp ends the context of the one that has the turn.
func TestWhoAsksIsAnsweredThoughAnotherGaveUp(t *testing.T) {
	t.Parallel()
	ca := limitedCA()
	opened, err := files.Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	l := newLedgers(opened, nil).of(ca)
	busy, err := opened.Acquire(t.Context(), state.LedgerLock(ca.Name, ca.Directory))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- l.admit(ctx, ca, asks("first")) }()
	r := asks("second")
	go func() { second <- l.admit(t.Context(), ca, r) }()
	cancel()
	if err := <-first; err == nil {
		t.Error("the first got an answer")
	}
	busy.Release()
	if err := <-second; err != nil || r.id == "" {
		t.Errorf("the second isn't admitted: %v, %+v", err, r)
	}
	if l.queue.Len() != 0 || len(l.asking) != 0 {
		t.Errorf("%d wait and %d ask", l.queue.Len(), len(l.asking))
	}
}
