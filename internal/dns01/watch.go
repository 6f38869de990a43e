package dns01

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// serversKept is how long the servers of a zone are remembered. Orders that wait together look them up once, and a
// change of the zone's NS records is noticed soon.
const serversKept = 5 * time.Minute

// watchers looks, for all orders at once, whether servers have records.
type watchers struct {
	*sightings
	solver *Solver
}

// sightings is what is known of servers, for all orders.
type sightings struct {
	mu      sync.Mutex
	servers map[server]*watched
	zones   map[zoneLookup]*lookup
}

// zoneLookup is a search for a zone's servers by one configuration: another may name others.
type zoneLookup struct {
	zoneKey
	table *table
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
func (w *sightings) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.servers = nil
	w.zones = nil // a search that runs is kept by nobody but those who wait for it
}

// wait returns nil when the servers that must have them were seen to have all records. Resolvers are asked when those have
// them and not before: one that is asked too early remembers for long that there was nothing.
func (w *watchers) wait(ctx context.Context, records []recordKey, seen func(have, want int)) error {
	servers, err := w.quorums(ctx, records)
	if err != nil {
		return err
	}
	resolvers, err := w.resolvers(servers)
	if err != nil {
		return err
	}
	everybody := membersOf(slices.Concat(servers, resolvers))
	last := -1
	tell := func() {
		if have, want := tally(everybody); have != last && want > 0 {
			seen(have, want)
			last = have
		}
	}
	for _, stage := range [][]*quorum{servers, resolvers} {
		if err := w.gather(ctx, stage, tell); err != nil {
			return err
		}
	}
	return nil
}

// gather waits until all quorums are satisfied. tell is called whenever more is known.
func (w *watchers) gather(ctx context.Context, quorums []*quorum, tell func()) error {
	poke := make(chan struct{}, 1)
	given := time.Duration(0)
	for _, q := range quorums {
		defer q.leave()
		given = max(given, q.begin(&w.solver.tasks, poke))
	}
	timer := time.NewTimer(given)
	defer timer.Stop()
	for late := false; ; {
		tell()
		if !slices.ContainsFunc(quorums, func(q *quorum) bool { return !q.satisfied() }) {
			return nil
		}
		if late {
			return laggards(quorums, given)
		}
		select {
		case <-poke:
		case <-timer.C:
			late = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// quorums returns what is waited for at the servers of the records' zones.
func (w *watchers) quorums(ctx context.Context, records []recordKey) (list []*quorum, err error) {
	known := map[zoneKey]*quorum{}
	for _, r := range records {
		key := zoneKey{r.provider, r.zone}
		if q := known[key]; q != nil {
			q.records = append(q.records, r)
			continue
		}
		p, ok := w.solver.provider(r.provider)
		if !ok {
			return nil, fmt.Errorf("waiting for %s, provider %q: %w", r.name, r.provider, errNoProvider)
		}
		endpoints, err := w.endpoints(ctx, p, r.zone)
		if err != nil {
			return nil, err
		}
		q := &quorum{provider: p, records: []recordKey{r}, enough: p.MinNameservers}
		for _, e := range endpoints {
			q.members = append(q.members, &member{endpoint: e, server: w.server(e)})
		}
		known[key] = q
		list = append(list, q)
	}
	return list, nil
}

// resolvers returns what is waited for at the resolvers, for those who want them asked.
func (w *watchers) resolvers(servers []*quorum) (list []*quorum, err error) {
	for _, q := range servers {
		if q.provider.Check != CheckResolvers {
			continue
		}
		if len(w.solver.recursive()) == 0 {
			return nil, fmt.Errorf("provider %q wants resolvers to be asked, and none is configured: [resolvers] public = [\"ADDRESS\"]", q.provider.Name)
		}
		r := &quorum{provider: q.provider, records: q.records}
		for _, addr := range w.solver.recursive() {
			e := endpoint{addr: addr}
			r.members = append(r.members, &member{endpoint: e, server: w.server(e), recurse: true})
		}
		list = append(list, r)
	}
	return list, nil
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
		w.zones = map[zoneLookup]*lookup{}
	}
	search := zoneLookup{key, w.solver.table()}
	l = w.zones[search]
	if l != nil && (l.until.IsZero() || time.Now().Before(l.until)) {
		return l, false
	}
	l = &lookup{done: make(chan struct{})}
	w.zones[search] = l
	return l, true
}

// found tells the result of a search to those who wait for it, and keeps it if it is one.
func (w *watchers) found(key zoneKey, l *lookup) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.until = time.Now().Add(serversKept)
	if search := (zoneLookup{key, w.solver.table()}); l.err != nil && w.zones[search] == l {
		delete(w.zones, search)
	}
	close(l.done)
}

func (w *watchers) server(e endpoint) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.servers == nil {
		w.servers = map[server]*watched{}
	}
	at := server{e.addr, e.key}
	s := w.servers[at]
	if s == nil {
		s = &watched{where: e, wake: make(chan struct{}, 1)}
		w.servers[at] = s
	}
	return s
}
