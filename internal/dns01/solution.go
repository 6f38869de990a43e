package dns01

import (
	"cmp"
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/cure"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// solution is one order's records. Its methods are called by one goroutine at a time.
type solution struct {
	solver   *Solver
	expected bool // counted in solver.expected
	ended    bool
	records  []*record
	ttl      time.Duration        // of its records, 0 for the provider's
	led      map[zones.TXT]string // the challenge names that led to other names
}

// lookupsPerOrder bounds how many zones of one order are looked for at a time.
const lookupsPerOrder = 8

// Publish implements issuer.Solution.
func (sol *solution) Publish(ctx context.Context, records []issuer.Record) error {
	keys := make([]zones.TXT, len(records))
	failures := make([]error, len(records))
	var lookups errgroup.Group
	lookups.SetLimit(lookupsPerOrder)
	for i, r := range records {
		lookups.Go(func() error {
			t, err := sol.solver.Zones().Locate(ctx, r.Name)
			keys[i] = t.TXT(r.Value)
			failures[i] = err
			return nil
		})
	}
	_ = lookups.Wait() // failures has them all
	sol.led = map[zones.TXT]string{}
	for i, r := range records {
		sol.led[keys[i]] = zones.Canonical(r.Name)
	}
	if err := cure.Join(failures...); err != nil {
		return err
	}
	keys, err := sol.solver.withoutByHand(ctx, keys)
	if err != nil {
		return err
	}
	return sol.submit(ctx, keys)
}

// submit writes records whose place is known.
func (sol *solution) submit(ctx context.Context, keys []zones.TXT) error {
	failures := make([]error, len(keys))
	for i, result := range sol.enqueue(keys) {
		select {
		case failures[i] = <-result:
		case <-ctx.Done(): // Remove takes care of what was sent meanwhile
			return ctx.Err()
		}
	}
	return cure.Join(failures...)
}

// enqueue hands the records to their zones' queues; each result arrives once.
func (sol *solution) enqueue(keys []zones.TXT) []chan error {
	s := sol.solver
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make([]chan error, len(keys))
	if s.closing {
		for i := range results {
			results[i] = make(chan error, 1)
			results[i] <- errClosed
		}
		return results
	}
	for i, key := range keys {
		r := s.records[key]
		if r == nil {
			r = &record{TXT: key, challenge: cmp.Or(sol.led[key], key.Name), ttl: sol.ttl} // these never change
			s.records[key] = r
		}
		r.kept = time.Time{}
		if r.users++; r.users == 1 {
			r.table = s.began
		}
		sol.records = append(sol.records, r)
		results[i] = make(chan error, 1)
		s.queue(key).add(addition{r, results[i]})
	}
	sol.arrived()
	return results
}

// arrived takes the solution off the list of those worth waiting for. The solver's mu is held.
func (sol *solution) arrived() {
	if !sol.expected {
		return
	}
	sol.expected = false
	if sol.solver.expected--; sol.solver.expected == 0 {
		sol.solver.pokeAll()
	}
}

// Wait implements issuer.Solution.
func (sol *solution) Wait(ctx context.Context, seen func(have, want int)) error {
	keys := make([]zones.TXT, len(sol.records))
	for i, r := range sol.records {
		keys[i] = r.TXT
	}
	return sol.solver.Zones().Wait(ctx, keys, seen)
}

// Remove implements issuer.Solution.
func (sol *solution) Remove() {
	s := sol.solver
	s.mu.Lock()
	defer s.mu.Unlock()
	if sol.ended {
		return
	}
	sol.ended = true
	for _, r := range sol.records {
		if r.users--; r.users > 0 {
			continue
		}
		if !r.sending { // else its queue settles it when the update is through
			s.settle(r)
		}
	}
	sol.arrived()
	if s.active--; s.active == 0 {
		s.pokeAll()
	}
}

// settle queues the removal of a record that nobody needs; one that never went out is just forgotten, and dropped by
// its queue. mu is held.
func (s *Solver) settle(r *record) {
	if len(r.groups) == 0 {
		delete(s.records, r.TXT)
		return
	}
	s.queue(r.TXT).remove(r)
}
