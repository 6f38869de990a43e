package dns01

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/cure"
	"autocertd/internal/zones"
)

// write is what is done to records: one of a Client's methods, and which of its failures are divided.
type write struct {
	call      func(c Client, ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error)
	divisible func(error) bool
	adds      bool
}

func adding() write   { return write{Client.AppendRecords, byItsRecords, true} }
func removing() write { return write{Client.DeleteRecords, byAnyAnswer, false} }

// sendAdditions journals the group, sends it, and tells each order its result.
func (q *queue) sendAdditions(additions []addition) {
	s := q.solver
	records := make([]*record, len(additions))
	for i, a := range additions {
		records[i] = a.record
	}
	var results []error
	g, err := s.enter(q.Zone, records)
	if err != nil {
		results = repeat(err, len(additions))
	} else {
		results = q.send(records, adding())
	}
	for i, a := range additions {
		a.result <- cure.For("publishing", a.record.Name, results[i])
	}
	s.confirm(records, results)
	if g != nil {
		q.withdraw(g, s.refused(g, records, results))
	}
	s.sent(records)
}

// confirm notes which additions a server has confirmed.
func (s *Solver) confirm(records []*record, results []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range records {
		r.there = r.there || results[i] == nil
	}
}

// refused returns the records that aren't in the zone, as far as the server said, and that no earlier group put there.
func (s *Solver) refused(g *group, records []*record, results []error) (refused []*record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range records {
		earlier := slices.ContainsFunc(r.groups, func(o *group) bool { return o != g })
		if results[i] != nil && !uncertain(results[i]) && !earlier {
			refused = append(refused, r)
		}
	}
	return refused
}

// withdraw removes what the server refused: a refusal may have had an effect all the same, when the signature of the
// answer couldn't be verified, or an API did half of a group. What it refuses to remove, too, was never there: it leaves
// the journal, since it would be tried for ever.
func (q *queue) withdraw(g *group, refused []*record) {
	if len(refused) == 0 {
		return
	}
	var absent []*record
	for i, err := range q.send(refused, removing()) {
		if err == nil || !uncertain(err) {
			absent = append(absent, refused[i])
		}
	}
	q.solver.leave(g, absent)
}

// uncertain reports whether a call that failed may have taken effect, or may yet. A provider that says so itself knows
// best: nothing was sent to a server that can't be reached, and a refusal without a signature proves nothing.
func uncertain(err error) bool {
	var u interface{ Uncertain() bool }
	if errors.As(err, &u) {
		return u.Uncertain()
	}
	return retryable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// sent settles the records whose orders were given up while they were on their way.
func (s *Solver) sent(records []*record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		if r.sending = false; r.users == 0 {
			s.settle(r)
		}
	}
}

// sendRemovals sends the group; what was removed leaves the journal, and so does what the server wouldn't remove and hasn't.
// The rest is tried again by a later sweep.
func (q *queue) sendRemovals(removals []*record) {
	results := q.send(removals, removing())
	q.forgive(removals, results)
	q.solver.removed(q.Zone, removals, results)
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

// sendBy gives records to the provider as one configuration has it, if it knows it. It runs under a context of its own: an order that is given up
// doesn't stop the others' records.
func (q *queue) sendBy(t *table, records []*record, do write) []error {
	s := q.solver
	p, known := t.provider(q.Provider)
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
		batch[i] = libdns.TXT{Name: libdns.RelativeName(r.Name, q.Name), TTL: ttl, Text: r.Value}
	}
	s.mu.Unlock()
	begin := time.Now()
	results, calls := deliver(ctx, batch, do.divisible, func(part []libdns.Record) error {
		_, err := do.call(p.Client, ctx, q.Name+".", part)
		return err
	})
	t.asker.Heard(q.Provider, cure.Join(results...))
	s.cfg.Logger.Debug("update sent", "provider", q.Provider, "zone", q.Name, "records", len(records), "calls", calls, "took", time.Since(begin))
	return results
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
