package dns01

import (
	"cmp"
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/cure"
	"autocertd/internal/dnsname"
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
	led      map[zones.TXT]string // by record, the challenge name whose alias leads there
}

// errClosed is returned to orders that arrive after Close.
var errClosed = errors.New("no more records are published: the program is stopping")

// Begin implements issuer.Solver.
func (s *Solver) Begin() issuer.Solution { return s.begin() }

func (s *Solver) begin() *solution {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected++
	s.active++
	return &solution{solver: s.during(s.table()), expected: true}
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
		sol.led[keys[i]] = dnsname.Canonical(r.Name)
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

// submit writes records whose target is known.
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
			r = &record{TXT: key, challenge: cmp.Or(sol.led[key], key.Name), ttl: sol.ttl}
			s.records[key] = r
		}
		r.need(s.began)
		sol.records = append(sol.records, r)
		results[i] = make(chan error, 1)
		s.queueLocked(key.In()).addLocked(addition{r, results[i]})
	}
	sol.arrivedLocked()
	return results
}

// arrivedLocked stops counting the solution among those worth waiting for.
func (sol *solution) arrivedLocked() {
	if !sol.expected {
		return
	}
	sol.expected = false
	if sol.solver.expected--; sol.solver.expected == 0 {
		sol.solver.pokeAllLocked()
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
		if r.release() {
			s.followLocked(r)
		}
	}
	sol.arrivedLocked()
	if s.active--; s.active == 0 {
		s.pokeAllLocked()
	}
}

// Look implements issuer.Looker.
func (sol *solution) Look(ctx context.Context, records []issuer.Record) error {
	for _, r := range records {
		if p, ok := sol.solver.table().serving(r.Name); !ok || !p.Manual {
			return nil // another provider was configured since
		}
	}
	return sol.solver.awaited(ctx, records)
}

// withoutByHand returns the records that are ours to write. Those that a person writes must be there already: nothing is
// published for an order that can't go on yet.
func (s *Solver) withoutByHand(ctx context.Context, keys []zones.TXT) ([]zones.TXT, error) {
	var ours []zones.TXT
	var theirs []issuer.Record
	for _, key := range keys {
		if p, ok := s.table().provider(key.Provider); ok && p.Manual {
			theirs = append(theirs, issuer.Record{Name: key.Name, Value: key.Value})
		} else {
			ours = append(ours, key)
		}
	}
	if len(theirs) == 0 {
		return ours, nil
	}
	return ours, s.awaited(ctx, theirs)
}

// awaited returns an *issuer.ByHandError while records are missing. Servers that can't be asked now are no reason to give
// up: a person may take days.
func (s *Solver) awaited(ctx context.Context, records []issuer.Record) error {
	waiting := &issuer.ByHandError{Records: records}
	found := true
	for _, lookup := range s.Zones().LookFor(ctx, lookedFor(records)) {
		if !lookup.Found() {
			found = false
			waiting.Missing = append(waiting.Missing, lookup.Missing()...)
		}
	}
	if found || ctx.Err() != nil {
		return ctx.Err()
	}
	return waiting
}

func lookedFor(records []issuer.Record) []zones.NameValue {
	list := make([]zones.NameValue, len(records))
	for i, r := range records {
		list[i] = zones.NameValue(r)
	}
	return list
}
