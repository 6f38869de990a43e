package dns01

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/cure"
	"autocertd/internal/dnschallenge"
	"autocertd/internal/dnsname"
	"autocertd/internal/store"
	"autocertd/internal/zones"
)

// How long a queue gathers. A group leaves at once when no other order is about to publish, so that a single order never
// waits; these bounds are for the case that another order is slow.
const (
	maxGroup        = 200                    // records in one update; well below the 64 KiB of a DNS message
	addIdle         = 250 * time.Millisecond // no addition has come for that long
	addOldest       = 2 * time.Second        // the first has waited for that long
	removeOldest    = 5 * time.Second
	sendTimeout     = 30 * time.Second // one group at an RFC 2136 server
	sendTimePerItem = time.Second      // and for each record, since an HTTP API takes one request a record
)

// queueLocked returns the queue of a zone.
func (s *Solver) queueLocked(zone zones.Zone) *queue {
	q := s.queues[zone]
	if q == nil {
		q = &queue{zone: zone, solver: s.during(nil), poke: make(chan struct{}, 1)}
		s.queues[zone] = q
	}
	return q
}

// pokeAllLocked makes every queue look again whether its group may leave.
func (s *Solver) pokeAllLocked() {
	for _, q := range s.queues {
		q.lookLocked()
	}
}

// followLocked does what the new state of a record asks for.
func (s *Solver) followLocked(r *record) {
	switch r.state {
	case stateGone:
		delete(s.records, r.TXT)
	case stateLeaving:
		s.queueLocked(r.In()).removeLocked(r)
	}
}

// addLocked queues the addition of a record that an order needs.
func (q *queue) addLocked(a addition) {
	now := time.Now()
	if len(q.additions) == 0 {
		q.firstAdd = now
	}
	q.lastAdd = now
	q.additions = append(q.additions, a)
	q.lookLocked()
}

// removeLocked queues the removal of a record.
func (q *queue) removeLocked(r *record) {
	if len(q.removals) == 0 {
		q.firstRemove = time.Now()
	}
	q.removals = append(q.removals, r)
	q.lookLocked()
}

// lookLocked starts the queue's goroutine, or makes it look again.
func (q *queue) lookLocked() {
	if q.busy {
		select {
		case q.poke <- struct{}{}:
		default: // it looks again anyway
		}
		return
	}
	s := q.solver
	if s.closed || len(q.additions)+len(q.removals) == 0 {
		return
	}
	if s.running++; s.running == 1 {
		s.idle = make(chan struct{})
	}
	q.busy = true
	go q.run() // finish waits for it
}

// run sends group after group until nothing is left.
func (q *queue) run() {
	for {
		additions, removals, wait := q.take(time.Now())
		switch {
		case len(additions) > 0:
			q.sendAdditions(additions)
		case len(removals) > 0:
			q.sendRemovals(removals)
		case wait < 0:
			return
		default:
			timer := time.NewTimer(wait)
			select {
			case <-q.poke:
				timer.Stop()
			case <-timer.C:
			}
		}
	}
}

// take returns the group that may leave now, or how long to wait for it; less than zero when there is nothing to do.
func (q *queue) take(now time.Time) (additions []addition, removals []*record, wait time.Duration) {
	s := q.solver
	s.mu.Lock()
	defer s.mu.Unlock()
	q.dropStaleLocked()
	if len(q.additions)+len(q.removals) == 0 {
		q.busy = false
		if s.running--; s.running == 0 {
			close(s.idle)
		}
		return nil, nil, -1
	}
	wait = time.Hour
	if n := min(len(q.additions), maxGroup); n > 0 {
		due := min(q.lastAdd.Add(addIdle).Sub(now), q.firstAdd.Add(addOldest).Sub(now))
		if due <= 0 || n == maxGroup || s.expected == 0 || s.closing {
			additions, q.additions = q.additions[:n:n], q.additions[n:]
			q.firstAdd = now
			for _, a := range additions {
				a.record.send()
			}
			return additions, nil, 0
		}
		wait = due
	}
	if n := min(len(q.removals), maxGroup); n > 0 {
		due := q.firstRemove.Add(removeOldest).Sub(now)
		if due <= 0 || n == maxGroup || s.active == 0 || s.closing {
			removals, q.removals = q.removals[:n:n], q.removals[n:]
			q.firstRemove = now
			return nil, slices.DeleteFunc(removals, func(r *record) bool { return !r.remove() }), 0
		}
		wait = min(wait, due)
	}
	return nil, nil, wait
}

// dropStaleLocked leaves out the additions whose orders were given up before they were sent, and the removals of records that
// an order needs again: it resumed after a crash, or shares an authorization.
func (q *queue) dropStaleLocked() {
	q.additions = slices.DeleteFunc(q.additions, func(a addition) bool {
		stale := a.record.users == 0
		if stale {
			a.result <- context.Canceled
		}
		return stale
	})
	q.removals = slices.DeleteFunc(q.removals, func(r *record) bool { return r.state != stateLeaving })
}

// write is one of a Client's methods, and which of its failures are divided.
type write struct {
	call      func(c Client, ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error)
	divisible func(error) bool
	adds      bool
}

func appends() write { return write{Client.AppendRecords, byItsRecords, true} }
func deletes() write { return write{Client.DeleteRecords, byAnyAnswer, false} }

// sendAdditions journals a group, sends it, and gives each order its result. A record that two orders need is sent once.
func (q *queue) sendAdditions(additions []addition) {
	s := q.solver
	var records []*record
	at := map[*record]int{}
	for _, a := range additions {
		if _, known := at[a.record]; !known {
			at[a.record] = len(records)
			records = append(records, a.record)
		}
	}
	var results []error
	g, err := q.enter(records)
	if err != nil {
		results = repeat(err, len(records))
	} else {
		results = q.send(records, appends())
	}
	for _, a := range additions {
		a.result <- cure.For("publishing", a.record.Name, results[at[a.record]])
	}
	if g != nil {
		q.withdraw(g, s.refused(records, results))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range records {
		r.sent(results[i])
		s.followLocked(r)
	}
}

// enter writes the records into the journal.
func (q *queue) enter(records []*record) (*group, error) {
	s := q.solver
	entries := make([]journaledRecord, len(records))
	for i, r := range records {
		entries[i] = journaledRecord{Name: r.Name, Value: r.Value}
		if r.challenge != r.Name {
			entries[i].Challenge = r.challenge
		}
	}
	g, err := s.journal.enter(s.ctx, q.zone, entries, s.inherit)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		r.enter(g)
	}
	return g, nil
}

// refused returns the records that aren't in the zone, as far as the server said, and that no earlier group put there.
func (s *Solver) refused(records []*record, results []error) (refused []*record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range records {
		if results[i] != nil && !uncertain(results[i]) && len(r.groups) == 1 {
			refused = append(refused, r)
		}
	}
	return refused
}

// withdraw removes what the server refused: a refusal may have had an effect nevertheless, when the signature of the
// answer couldn't be verified, or an API did half of a group. What it refuses to remove, too, was never there: it leaves
// the journal, since its removal would be tried without end.
func (q *queue) withdraw(g *group, refused []*record) {
	if len(refused) == 0 {
		return
	}
	s := q.solver
	results := q.send(refused, deletes())
	var empty []*group
	s.mu.Lock()
	for i, err := range results {
		if (err == nil || !uncertain(err)) && refused[i].withdraw(g) {
			empty = append(empty, g)
		}
	}
	s.mu.Unlock()
	s.journal.drop(s.ctx, empty)
}

// sendRemovals sends a group; what was removed leaves the journal, and so does what the server wouldn't remove and hasn't.
// The rest is tried again by a later sweep.
func (q *queue) sendRemovals(removals []*record) {
	s := q.solver
	results := q.send(removals, deletes())
	q.forgive(removals, results)
	now := time.Now()
	var empty []*group
	var failures [][]*record // those that failed for one reason together
	s.mu.Lock()
	for i, r := range removals {
		if err := results[i]; err == nil {
			done, _ := r.removed()
			empty = append(empty, done...)
		} else if r.fail(err, now); r.state == stateFailed {
			like := slices.IndexFunc(failures, func(list []*record) bool { return cure.Same(list[0].failure, err) })
			if like < 0 {
				like, failures = len(failures), append(failures, nil)
			}
			failures[like] = append(failures[like], r)
		}
		s.followLocked(r)
	}
	for _, list := range failures {
		q.logFailureLocked(list)
	}
	s.mu.Unlock()
	s.journal.drop(s.ctx, empty)
}

// logFailureLocked logs once for all records that couldn't be removed for one reason.
func (q *queue) logFailureLocked(list []*record) {
	first := list[0]
	logger := q.solver.cfg.Logger.With("provider", q.zone.Provider, "zone", q.zone.Name, "records", len(list), "first", first.Name)
	if errors.Is(first.failure, zones.ErrNoProvider) {
		logger.Warn("records can't be removed: their provider isn't in the configuration any more; put it back until they are gone")
		return
	}
	logger.Warn("records can't be removed now; trying again later", "retry", first.retryAt.UTC().Format(time.RFC3339), "err", first.failure)
}

// forgive looks for the records whose removal was answered by a failure, and takes it back where the server says that there
// is nothing to remove: it refused the addition as well.
func (q *queue) forgive(removals []*record, results []error) {
	ctx, cancel := context.WithTimeout(q.solver.ctx, sendTimeout)
	defer cancel()
	for t, chosen := range q.solver.byTable(removals) {
		var doubtful []int
		var keys []zones.TXT
		for _, i := range chosen {
			if err := results[i]; err != nil && !zones.Silent(err) && !errors.Is(err, context.Canceled) {
				doubtful, keys = append(doubtful, i), append(keys, removals[i].TXT)
			}
		}
		for n, absent := range t.asker.Absent(ctx, keys) {
			if absent {
				results[doubtful[n]] = nil
			}
		}
	}
}

// send gives the group to the provider and returns each record's result. Shortly after a reload the records of orders that
// had begun before go to the provider as it was then.
func (q *queue) send(records []*record, do write) []error {
	results := make([]error, len(records))
	for t, chosen := range q.solver.byTable(records) {
		part := make([]*record, len(chosen))
		for i, n := range chosen {
			part[i] = records[n]
		}
		for i, err := range q.sendBy(t, part, do) {
			results[chosen[i]] = err
		}
	}
	return results
}

// byTable divides records by the tables that their orders go by; a record of none goes by what is configured now.
func (s *Solver) byTable(records []*record) map[*table][]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := make(map[*table][]int, 1)
	for i, r := range records {
		t := cmp.Or(r.table, s.table())
		parts[t] = append(parts[t], i)
	}
	return parts
}

// sendBy gives records to the provider as one configuration has it, if it knows it. It runs under a context of its own:
// an order that is given up doesn't stop the others' records.
func (q *queue) sendBy(t *table, records []*record, do write) []error {
	s := q.solver
	p, known := t.provider(q.zone.Provider)
	if !known {
		return repeat(zones.ErrNoProvider, len(records))
	}
	ctx, cancel := context.WithTimeout(s.ctx, max(sendTimeout, p.Timeout)+time.Duration(len(records))*sendTimePerItem)
	defer cancel()
	var theirs map[string]time.Duration
	if do.adds {
		names := make([]string, len(records))
		for i, r := range records {
			names[i] = r.Name
		}
		theirs = t.asker.TTLs(ctx, p.Name, names)
	}
	batch := make([]libdns.Record, len(records))
	s.mu.Lock() // an order that needs a record again may change its TTL while it is removed
	for i, r := range records {
		ttl, taken := theirs[r.Name]
		if !taken {
			ttl = cmp.Or(r.ttl, p.TTL)
		}
		batch[i] = libdns.TXT{Name: libdns.RelativeName(r.Name, q.zone.Name), TTL: ttl, Text: r.Value}
	}
	s.mu.Unlock()
	begin := time.Now()
	results, calls := deliver(ctx, batch, do.divisible, func(part []libdns.Record) error {
		_, err := do.call(p.Client, ctx, q.zone.Name+".", part)
		return err
	})
	t.asker.Note(q.zone.Provider, cure.Join(results...))
	s.cfg.Logger.Debug("update sent", "provider", q.zone.Provider, "zone", q.zone.Name, "records", len(records), "calls", calls, "took", time.Since(begin))
	return results
}

// keepTime is how long a record of a dead process stays for an open order that doesn't go on. CAs look within minutes for
// what they were asked to look for.
const keepTime = 10 * time.Minute

// inherit queues the records of a dead process for removal. Orders of ours that resumed its orders keep theirs, those that
// may yet be resumed keep theirs for a while, and what another process needs by now is left to that. The journal is locked.
func (s *Solver) inherit(ctx context.Context, lease store.Lease, entries map[string]journaled) {
	elsewhere, open := s.journal.elsewhereLocked(ctx), s.openOrders(ctx)
	var empty []*group
	s.mu.Lock()
	for object, entry := range entries {
		g := &group{object: object, lease: lease}
		kept := 0
		for _, key := range entry.keys() {
			if elsewhere[key] {
				continue
			}
			r := s.records[key]
			if r == nil {
				r = &record{TXT: key, challenge: entry.challengeOf(key)}
				s.records[key] = r
			}
			var until time.Time
			if open(r.challenge) && !s.closing {
				until = time.Now().Add(keepTime)
			}
			if r.inherit(g, until); r.state == stateKept {
				kept++
			}
			s.followLocked(r)
		}
		if g.left == 0 {
			empty = append(empty, g)
			continue
		}
		if kept > 0 {
			s.cfg.Logger.Info("records that an earlier process left stay until their orders have ended", "provider", entry.Provider, "zone", entry.Zone, "records", kept)
		}
		if kept < g.left {
			s.cfg.Logger.Info("removing records that an earlier process left", "provider", entry.Provider, "zone", entry.Zone, "records", g.left-kept)
		}
	}
	s.mu.Unlock()
	s.journal.drop(ctx, empty)
}

// openOrders returns whether the name of a challenge is for a hostname of an open order; all are, when these can't be read.
func (s *Solver) openOrders(ctx context.Context) func(name string) bool {
	if s.cfg.OpenHostnames == nil {
		return func(string) bool { return false }
	}
	hostnames, err := s.cfg.OpenHostnames(ctx)
	if err != nil {
		s.cfg.Logger.Warn("it isn't known which orders are open, so records of earlier processes stay for some minutes", "err", err)
		return func(string) bool { return true }
	}
	open := map[string]bool{}
	for _, h := range hostnames {
		open[strings.TrimPrefix(dnsname.Canonical(h), "*.")] = true
	}
	return func(name string) bool { return open[dnschallenge.Hostname(name)] }
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
