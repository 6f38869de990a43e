package lifecycle

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/store"
)

// ledgers count the use of each CA's limits. All processes share them, one object for each CA.
//
// An order is noted before it is sent, so that killing the process forgets none. The note isn't waited for on the disk:
// a power loss may take away the orders of the last seconds. A ledger that it tore, or that isn't there, is made of the
// certificates that are.
type ledgers struct {
	store   state.Store
	wake    func(match func(name string) bool) // see Config.Wake
	process string                             // names this process in the ids of its orders

	mu  sync.Mutex // guards cas, and asking, queue and ended of each ledger
	cas map[string]*ledger
}

// ledger is one CA's, and the certificates of this process that wait for room in it.
type ledger struct {
	all  *ledgers
	turn chan struct{} // holds a token while the object changes; guards runs, and the answers to requests
	runs int           // how many orders were noted, for their ids

	asking []*request           // not answered yet
	queue  budget.Queue         // of the certificates that were held
	ended  map[string]time.Time // orders of ours that count in full since they ended, by id; the object doesn't know yet
}

func newLedgers(cfg Config) *ledgers {
	return &ledgers{store: cfg.Storage, wake: cfg.Wake, process: rand.Text(), cas: map[string]*ledger{}}
}

// of returns the ledger of a CA. A CA entry that is pointed elsewhere has another.
func (a *ledgers) of(ca config.CA) *ledger {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := state.LedgerLock(ca.Name, ca.Directory)
	l := a.cas[name]
	if l == nil {
		l = &ledger{all: a, turn: make(chan struct{}, 1), ended: map[string]time.Time{}}
		a.cas[name] = l
	}
	return l
}

// change calls f with the ledger as it is now, and saves it if f says that it changed. f runs alone.
func (l *ledger) change(ctx context.Context, ca config.CA, f func(b *budget.Ledger, now time.Time) bool) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	return l.changeLocked(ctx, ca, f)
}

// changeLocked is change for a caller that has the turn.
func (l *ledger) changeLocked(ctx context.Context, ca config.CA, f func(b *budget.Ledger, now time.Time) bool) error {
	lease, err := l.all.store.Acquire(ctx, state.LedgerLock(ca.Name, ca.Directory))
	if err != nil {
		return err
	}
	defer lease.Release()
	b, found, err := loadLedger(ctx, l.all.store, ca)
	if err != nil {
		return err
	}
	l.all.mu.Lock()
	ended := maps.Clone(l.ended)
	l.all.mu.Unlock()
	for id, at := range ended {
		b.Spend(b.End(id), at)
	}
	now := time.Now()
	b.Advance(now, func(run budget.Running) bool { return l.underWay(ctx, run) })
	if changed := f(b, now); found && !changed {
		return nil
	}
	data, err := json.Marshal(b)
	if err == nil {
		err = state.SaveLedger(context.WithoutCancel(ctx), lease, ca.Name, ca.Directory, data)
	}
	if err == nil {
		l.all.mu.Lock()
		maps.DeleteFunc(l.ended, func(id string, _ time.Time) bool { return !ended[id].IsZero() })
		l.all.mu.Unlock()
	}
	return err
}

// underWay reports whether a noted order may still run: it is ours, or its lease is held. When that can't be found
// out, it counts as running, which is the worst case.
func (l *ledger) underWay(ctx context.Context, run budget.Running) bool {
	if run.Lease == "" || strings.HasPrefix(run.ID, l.all.process) {
		return run.Lease != ""
	}
	holder, err := l.all.store.Holder(ctx, run.Lease)
	return holder != nil || err != nil
}

// beginLocked notes an order before it is sent, and returns its id. Dying after it leaves an order that counts as sent.
func (l *ledger) beginLocked(b *budget.Ledger, lease string, keys []budget.Key, now time.Time) (id string) {
	l.runs++
	id = l.all.process + strconv.Itoa(l.runs)
	b.Begin(budget.Running{ID: id, Lease: lease, Since: now.UTC(), Keys: keys})
	return id
}

// end notes that an order has ended and counts in full. The object learns of it with its next change. When the process ends
// before that, it is the order's lease that says so.
func (l *ledger) end(id string) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.ended[id] = time.Now()
}

// loadLedger returns the ledger of a CA as it was saved. When none is found it makes one of the certificates that were issued.
func loadLedger(ctx context.Context, store store.Store, ca config.CA) (ledger *budget.Ledger, found bool, err error) {
	data, err := state.LoadLedger(ctx, store, ca.Name, ca.Directory)
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if err == nil { // one that can't be read is replaced, as one that is torn
		if ledger, ok := budget.Open(data, ca.Limits()); ok {
			return ledger, true, nil
		}
	}
	ledger, err = recount(ctx, store, ca)
	return ledger, false, err
}

// recount makes a ledger of the certificates that there are, as if none had been exempt. One that can't be read isn't
// counted, rather than to hold up all others of the CA.
func recount(ctx context.Context, store store.Store, ca config.CA) (*budget.Ledger, error) {
	list, err := state.AllIssued(ctx, store)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i state.Issued) bool { return i.Directory != ca.Directory })
	slices.SortFunc(list, func(a, b state.Issued) int { return a.Issued.Compare(b.Issued) })
	ledger := &budget.Ledger{Limits: ca.Limits()}
	for _, i := range list {
		ledger.Spend(budget.Keys(ledger.Limits, i.Hostnames, false), i.Issued)
	}
	return ledger, nil
}
