package dns01

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// serversKept is how long the servers of a zone are remembered. Orders that wait together look them up once, and a
// change of the zone's NS records is noticed soon.
const serversKept = 5 * time.Minute

// watchers looks, for all orders at once, whether servers have records.
type watchers struct {
	solver *Solver

	mu      sync.Mutex
	servers map[string]*watched // by address
	zones   map[zoneKey]*lookup
}

// lookup is one search for a zone's servers, for all who want to know.
type lookup struct {
	done  chan struct{}
	until time.Time // zero while it runs
	list  []endpoint
	err   error
	again bool // the order that searched was given up: somebody else must
}

// forget drops what is known of zones' servers; after a reload they may be others.
func (w *watchers) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zones = nil // a search that runs is kept by nobody but those who wait for it
}

// wait returns nil when every server that must have them was seen to have all records.
func (w *watchers) wait(ctx context.Context, records []recordKey, seen func(have, want int)) error {
	poke := make(chan struct{}, 1)
	waiting := map[endpoint][]*item{}
	timeout := time.Duration(0)
	defer func() {
		for _, items := range waiting {
			for _, it := range items {
				it.leave()
			}
		}
	}()
	for _, r := range records {
		p, ok := w.solver.provider(r.provider)
		if !ok {
			return fmt.Errorf("waiting for %s, provider %q: %w", r.name, r.provider, errNoProvider)
		}
		timeout = max(timeout, p.PropagationTimeout)
		endpoints, err := w.endpoints(ctx, p, r.zone)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			it := &item{recordKey: r, poke: poke}
			waiting[e] = append(waiting[e], it)
			w.server(e).expect(it, &w.solver.tasks)
		}
	}
	if len(waiting) == 0 {
		return nil // nobody is to be looked at
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for last := -1; ; {
		if have := countSeen(waiting); have != last {
			seen(have, len(waiting))
			last = have
		}
		if last == len(waiting) {
			return nil
		}
		select {
		case <-poke:
		case <-deadline.C:
			return laggards(waiting, timeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func countSeen(waiting map[endpoint][]*item) (have int) {
	for _, items := range waiting {
		all := true
		for _, it := range items {
			seen, _ := it.state()
			all = all && seen
		}
		if all {
			have++
		}
	}
	return have
}

// laggards says which servers lack which record, and what they answered.
func laggards(waiting map[endpoint][]*item, timeout time.Duration) error {
	e := &PropagationError{After: timeout, Servers: len(waiting)}
	for where, items := range waiting {
		for _, it := range items {
			if seen, last := it.state(); !seen {
				e.Missing = append(e.Missing, fmt.Sprintf("%s %s when asked for %s", where, last, it.name))
				break
			}
		}
	}
	slices.Sort(e.Missing)
	return e
}

// PropagationError says which servers didn't get a record in time.
type PropagationError struct {
	After   time.Duration
	Servers int      // that must have it
	Missing []string // one sentence for each laggard
}

func (e *PropagationError) Error() string {
	return fmt.Sprintf("after %s, %d of %d servers have the records: %s; look at NOTIFY and zone transfers to them and at their port 53, "+
		"or set nameservers to those that the CA can ask, or raise propagation_timeout",
		e.After, e.Servers-len(e.Missing), e.Servers, strings.Join(e.Missing, "; "))
}

// endpoints returns a zone's servers, searched once until they are forgotten.
func (w *watchers) endpoints(ctx context.Context, p Provider, zone string) ([]endpoint, error) {
	key := zoneKey{p.Name, zone}
	for {
		l, ours := w.lookup(key)
		if ours {
			l.list, l.err = w.solver.endpoints(ctx, p, zone)
			l.again = l.err != nil && ctx.Err() != nil
			w.found(key, l)
			return l.list, l.err
		}
		select {
		case <-l.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !l.again {
			return l.list, l.err
		}
	}
}

// lookup returns the search for a zone's servers; ours is whether the caller has to make it.
func (w *watchers) lookup(key zoneKey) (l *lookup, ours bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.zones == nil {
		w.zones = map[zoneKey]*lookup{}
	}
	l = w.zones[key]
	if l != nil && (l.until.IsZero() || time.Now().Before(l.until)) {
		return l, false
	}
	l = &lookup{done: make(chan struct{})}
	w.zones[key] = l
	return l, true
}

// found tells the result of a search to those who wait for it, and keeps it if it is one.
func (w *watchers) found(key zoneKey, l *lookup) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.until = time.Now().Add(serversKept)
	if l.err != nil && w.zones[key] == l {
		delete(w.zones, key)
	}
	close(l.done)
}

func (w *watchers) server(e endpoint) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.servers == nil {
		w.servers = map[string]*watched{}
	}
	s := w.servers[e.addr]
	if s == nil {
		s = &watched{where: e, wake: make(chan struct{}, 1)}
		w.servers[e.addr] = s
	}
	return s
}
