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

func newLedgers(s state.Store, wake func(match func(name string) bool)) *ledgers {
	return &ledgers{store: s, wake: wake, process: rand.Text(), cas: map[string]*ledger{}}
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

// request asks for admission at one CA. The goroutine that has the turn of the ledger answers all requests.
type request struct {
	claim    budget.Claim
	lease    string // of the certificate
	answered bool
	err      error
	id       string // of the order that may be sent; "" when it is held
	held     state.Held
}

// admit answers a request: the certificates at the head of the plan for all that ask or wait may order, the others are held.
// All that ask at the same time share one plan and one change of the ledger. Dying after it leaves orders that count as sent.
func (l *ledger) admit(ctx context.Context, ca config.CA, r *request) error {
	l.all.mu.Lock()
	l.asking = append(l.asking, r)
	l.all.mu.Unlock()
	defer l.withdraw(r) // in case it wasn't answered
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	if r.answered {
		return r.err
	}
	var batch []*request
	var early []string
	err := l.changeLocked(ctx, ca, func(b *budget.Ledger, now time.Time) (changed bool) {
		batch, early = l.answerLocked(b, ca, now)
		return slices.ContainsFunc(batch, func(r *request) bool { return r.id != "" })
	})
	for _, r := range batch {
		r.answered, r.err = true, err
	}
	if len(early) > 0 && l.all.wake != nil {
		l.all.wake(func(name string) bool { return slices.Contains(early, name) })
	}
	return err
}

func (l *ledger) withdraw(r *request) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.asking = slices.DeleteFunc(l.asking, func(other *request) bool { return other == r })
}

// answerLocked plans for all certificates that ask or wait, and notes the orders of those that are admitted. It returns the
// requests that it answered, and the certificates that may come earlier than the last plan had it.
func (l *ledger) answerLocked(b *budget.Ledger, ca config.CA, now time.Time) (batch []*request, early []string) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	batch, l.asking = l.asking, nil
	claims := make([]budget.Claim, len(batch))
	for i, r := range batch {
		claims[i] = r.claim
	}
	turns, early := l.queue.Admit(now, b, claims)
	for _, r := range batch {
		turn := turns[r.claim.Name]
		if !turn.At.After(now) {
			r.id = l.beginLocked(b, r.lease, r.claim.Keys, now)
			continue
		}
		r.held = state.Held{
			CA:     ca.Name,
			Reason: budget.Describe(b.Limits, turn.Tight),
			Limit:  string(turn.Tight),
			Since:  turn.Since.UTC(),
			Until:  turn.At.UTC(),
		}
	}
	return batch, early
}

// leave removes the matching certificates from the queues.
func (a *ledgers) leave(match func(name string) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.cas {
		l.queue.Leave(match)
	}
}

// restore takes over a certificate that an earlier process left waiting for room, unless it waits here.
func (l *ledger) restore(name string, held state.Held, urgency float64) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	if !l.queue.Waits(name) {
		claim := budget.Claim{Name: name, Since: held.Since, Urgency: urgency, Keys: []budget.Key{budget.Key(held.Limit)}}
		l.queue.Wait(claim, held.Until)
	}
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
