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
	*sightings
	solver *Solver
}

// sightings is what is known of servers, for all orders.
type sightings struct {
	mu      sync.Mutex
	servers map[server]*watched
	zones   map[zoneLookup]*lookup
	told    map[zoneKey]time.Time // when it was told last that servers are late
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
			if ctx.Err() == nil {
				w.distrust(servers)
			}
			return err
		}
	}
	return nil
}

// distrust has the servers of zones looked up again by the next order: one that lacks records may have left the zone's NS
// records since.
func (w *watchers) distrust(quorums []*quorum) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range quorums {
		search := zoneLookup{zoneKey{q.provider.Name, q.records[0].zone}, w.solver.table()}
		if l := w.zones[search]; l != nil && !l.until.IsZero() {
			delete(w.zones, search)
		}
	}
}

// toldAfter is how long servers are waited for until it is told, unless more is usual for them.
const toldAfter = 5 * time.Second

// gather waits until all quorums are satisfied. tell is called whenever more is known. That it takes long is told once.
func (w *watchers) gather(ctx context.Context, quorums []*quorum, tell func()) error {
	poke := make(chan struct{}, 1)
	given, begin := time.Duration(0), time.Now()
	for _, q := range quorums {
		defer q.leave()
		given = max(given, q.begin(&w.solver.tasks, poke))
	}
	end := time.NewTimer(given)
	defer end.Stop()
	long := time.NewTimer(toldAfter)
	defer long.Stop()
	for late := false; ; {
		tell()
		if !slices.ContainsFunc(quorums, func(q *quorum) bool { return !q.satisfied() && !w.unreachable(q) }) {
			return nil
		}
		if late {
			return laggards(quorums, given)
		}
		select {
		case <-poke:
		case <-long.C:
			if more := w.tellLate(quorums, given, time.Since(begin)); more > 0 {
				long.Reset(more)
			}
		case <-end.C:
			late = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unreachable reports whether resolvers stand for a quorum's servers: none of those can be asked from here, by UDP nor by
// TCP, and the configuration wants resolvers asked. What took the update must have the records all the same.
func (w *watchers) unreachable(q *quorum) bool {
	if q.provider.Check != CheckResolvers || len(q.members) == 0 || q.members[0].recurse || !q.effective() {
		return false
	}
	for _, m := range q.members {
		if !m.hidden && !m.isSilent() {
			return false
		}
	}
	if !q.told {
		q.told = true
		w.solver.cfg.Logger.Debug("none of a zone's servers can be asked from here; resolvers alone are", "provider", q.provider.Name, "zone", q.records[0].zone)
	}
	return true
}

// tellLate says for which servers an order has been waiting for so long. More is how long it is still usual to wait.
func (w *watchers) tellLate(quorums []*quorum, given, waited time.Duration) (more time.Duration) {
	for _, q := range quorums {
		zone := zoneKey{q.provider.Name, q.records[0].zone}
		late := slices.DeleteFunc(slices.Clone(q.members), (*member).complete)
		if q.satisfied() || w.unreachable(q) || len(late) == 0 {
			continue
		}
		for _, m := range late {
			more = max(more, m.server.usually()-waited)
		}
		if more > 0 || !w.tellable(zone) {
			continue
		}
		have, servers := q.tally()
		w.solver.cfg.Logger.Warn("waiting for servers that lack the records", "provider", zone.provider, "zone", zone.zone,
			"have", have, "servers", servers, "lacking", strings.Join(lacking(late), "; "), "until", time.Now().Add(given-waited).UTC().Format(time.RFC3339))
	}
	return more
}

// tellable reports whether it is time to tell once more of a zone whose servers are late: many orders wait for the same.
func (w *sightings) tellable(zone zoneKey) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told == nil {
		w.told = map[zoneKey]time.Time{}
	}
	if last, known := w.told[zone]; known && time.Since(last) < serversKept {
		return false
	}
	w.told[zone] = time.Now()
	return true
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
		if err != nil && (p.Check != CheckResolvers || ctx.Err() != nil) {
			return nil, err
		}
		if err != nil { // resolvers alone, then
			w.solver.cfg.Logger.Debug("a zone's servers aren't known; resolvers alone are asked", "provider", p.Name, "zone", r.zone, "err", err)
			if endpoints = nil; len(p.Servers) == 1 {
				endpoints = []endpoint{{addr: p.Servers[0], key: p.Key, primary: true, hidden: true}}
			}
		}
		q := &quorum{provider: p, records: []recordKey{r}, enough: p.MinNameservers}
		for _, e := range endpoints {
			m := &member{endpoint: e, server: &watched{}}
			if e.dead == "" {
				m.server = w.server(e)
			}
			q.members = append(q.members, m)
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
