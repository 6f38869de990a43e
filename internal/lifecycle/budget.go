package lifecycle

import (
	"autocertd/internal/state"
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/store"
)

// budgets keeps the ledgers of the CAs, one object each, which all processes share.
//
// An order is noted before it is sent, so that killing the process forgets none. The note isn't waited for on the disk:
// a power loss may take away the orders of the last seconds. A ledger that it tore, or that isn't there, is made of the
// certificates that are.
type budgets struct {
	store   state.Store
	process string              // names this process
	turn    chan struct{}       // holds a token while a ledger changes; guards what follows
	runs    int                 // how many orders were noted, for their ids
	waiting map[claimant]*claim // who waits for room
}

type claimant struct{ ca, name string }

// claim is a certificate that is held.
type claim struct {
	state.Held
	urgency float64
}

func newBudgets(store state.Store) *budgets {
	return &budgets{store: store, process: rand.Text(), turn: make(chan struct{}, 1), waiting: map[claimant]*claim{}}
}

// change calls f with the ledger as it is now, and saves it if f says that it changed. f runs alone, so it may use waiting.
func (b *budgets) change(ctx context.Context, ca config.CA, f func(l *budget.Ledger, now time.Time) bool) error {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.turn }()
	unlock, err := b.store.Lock(ctx, state.LedgerLock(ca.Name, ca.Directory))
	if err != nil {
		return err
	}
	defer unlock()
	ledger, found, err := loadLedger(ctx, b.store, ca)
	if err != nil {
		return err
	}
	now := time.Now()
	ledger.Mend(now, func(run budget.Running) bool { return b.alive(ctx, run) })
	if changed := f(ledger, now); found && !changed {
		return nil
	}
	data, err := json.Marshal(ledger)
	if err != nil {
		return err
	}
	return state.SaveLedger(ctx, b.store, ca.Name, ca.Directory, data)
}

// alive reports whether an order that was noted may still be under way: it is ours, or its lease is held. What can't be found
// out counts as under way, which is the worst case.
func (b *budgets) alive(ctx context.Context, run budget.Running) bool {
	if run.Lease == "" || strings.HasPrefix(run.ID, b.process) {
		return run.Lease != ""
	}
	holder, err := b.store.Holder(ctx, run.Lease)
	return holder != nil || err != nil
}

// loadLedger returns the ledger of a CA as it was saved. When none is found it makes one of what was issued.
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
