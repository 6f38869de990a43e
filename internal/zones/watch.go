package zones

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Wait returns nil when the servers that must have them were seen to have all records. Resolvers are asked when those have
// them and not before: one that is asked too early remembers for long that there was nothing.
func (a *Asker) Wait(ctx context.Context, records []TXT, seen func(have, want int)) error {
	servers, err := a.quorums(ctx, records)
	if err != nil {
		return err
	}
	resolvers, err := a.resolverQuorums(servers)
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
		if err := a.gather(ctx, stage, tell); err != nil {
			if ctx.Err() == nil {
				a.searches.distrust(zonesOf(servers))
			}
			return err
		}
	}
	return nil
}

// toldAfter is how long servers are waited for until that is logged.
const toldAfter = 5 * time.Second

// gather waits until all quorums are satisfied. tell is called whenever more is known. That it takes long is told once.
func (a *Asker) gather(ctx context.Context, quorums []*quorum, tell func()) error {
	poke := make(chan struct{}, 1)
	given := time.Duration(0)
	for _, q := range quorums {
		defer q.leave()
		given = max(given, q.provider.PropagationTimeout)
		q.begin(&a.watching, poke)
	}
	deadline := time.Now().Add(given)
	end := time.NewTimer(given)
	defer end.Stop()
	long := time.NewTimer(toldAfter)
	defer long.Stop()
	for late := false; ; {
		tell()
		if !slices.ContainsFunc(quorums, func(q *quorum) bool { return !q.satisfied() && !a.unreachable(q) }) {
			return nil
		}
		if late {
			return laggards(quorums, given)
		}
		select {
		case <-poke:
		case <-long.C:
			a.logLate(quorums, deadline)
		case <-end.C:
			late = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unreachable reports whether resolvers stand for a quorum's servers: none of those can be asked from here, by UDP nor by
// TCP, and the configuration wants resolvers asked. What took the update must have the records all the same.
func (a *Asker) unreachable(q *quorum) bool {
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
		a.cfg.Logger.Debug("none of a zone's servers can be asked from here; resolvers alone are", "provider", q.provider.Name, "zone", q.records[0].Zone)
	}
	return true
}

// logLate logs which servers an order has been waiting for, and goes on to wait for until end.
func (a *Asker) logLate(quorums []*quorum, end time.Time) {
	for _, q := range quorums {
		zone := q.records[0].In()
		late := slices.DeleteFunc(slices.Clone(q.members), (*member).complete)
		if q.satisfied() || a.unreachable(q) || len(late) == 0 || !a.tellable(zone) {
			continue
		}
		have, servers := q.tally()
		a.cfg.Logger.Warn("waiting for servers that lack the records", "provider", zone.Provider, "zone", zone.Name,
			"have", have, "servers", servers, "lacking", strings.Join(lacking(late), "; "), "until", end.UTC().Format(time.RFC3339))
	}
}

// tellable reports whether it is time to tell once more of a zone whose servers are late: many orders wait for the same.
func (a *Asker) tellable(zone Zone) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, known := a.told[zone]; known && time.Since(last) < serversKept {
		return false
	}
	a.told[zone] = time.Now()
	return true
}

// quorums returns what is waited for at the servers of the records' zones.
func (a *Asker) quorums(ctx context.Context, records []TXT) (list []*quorum, err error) {
	known := map[Zone]*quorum{}
	for _, r := range records {
		key := Zone{r.Provider, r.Zone}
		if q := known[key]; q != nil {
			q.records = append(q.records, r)
			continue
		}
		p, ok := a.provider(r.Provider)
		if !ok {
			return nil, fmt.Errorf("waiting for %s, provider %q: %w", r.Name, r.Provider, ErrNoProvider)
		}
		endpoints, err := a.knownEndpoints(ctx, p, r.Zone)
		if err != nil && (p.Check != CheckResolvers || ctx.Err() != nil) {
			return nil, err
		}
		if err != nil { // resolvers alone, then
			a.cfg.Logger.Debug("a zone's servers aren't known; resolvers alone are asked", "provider", p.Name, "zone", r.Zone, "err", err)
			if endpoints = nil; len(p.Servers) == 1 {
				endpoints = []endpoint{{addr: p.Servers[0], key: p.Key, primary: true, hidden: true}}
			}
		}
		q := &quorum{provider: p, records: []TXT{r}, enough: p.MinNameservers}
		for _, e := range endpoints {
			m := &member{endpoint: e, server: &watched{}}
			if e.dead == "" {
				m.server = a.watch(e)
			}
			q.members = append(q.members, m)
		}
		known[key] = q
		list = append(list, q)
	}
	return list, nil
}

// resolverQuorums returns what is waited for at the resolvers, for those who want them asked.
func (a *Asker) resolverQuorums(servers []*quorum) (list []*quorum, err error) {
	for _, q := range servers {
		if q.provider.Check != CheckResolvers {
			continue
		}
		if len(a.resolving) == 0 {
			return nil, fmt.Errorf("provider %q wants resolvers to be asked, and none is configured: [resolvers] public = [\"ADDRESS\"]", q.provider.Name)
		}
		r := &quorum{provider: q.provider, records: q.records}
		for _, addr := range a.resolving {
			e := endpoint{addr: addr}
			r.members = append(r.members, &member{endpoint: e, server: a.watch(e), recurse: true})
		}
		list = append(list, r)
	}
	return list, nil
}

// watch returns what watches an address, for all orders that wait there.
func (a *Asker) watch(e endpoint) *watched {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := server{e.addr, e.key}
	s := a.watched[at]
	if s == nil {
		s = &watched{where: at, wake: make(chan struct{}, 1)}
		a.watched[at] = s
	}
	return s
}

// Forget drops what is known of servers; after a reload they may be others.
func (a *Asker) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watched = map[server]*watched{}
}

// Sighting is when a server was seen to have a record.
type Sighting struct {
	Server string        // its name and address
	After  time.Duration // since the update was confirmed
	Answer string        // what it said last; "" when it has the record
	Silent bool          // it gave no answer at all
	Walled bool          // it can't be asked from here, and resolvers stand for it
}

// silence is how long a rehearsal asks servers that don't answer at all.
const silence = 10 * time.Second

// Watch waits as an order does, and notes when each server was seen to have the record.
func (a *Asker) Watch(ctx context.Context, key TXT) ([]Sighting, error) {
	servers, err := a.quorums(ctx, []TXT{key})
	if err != nil {
		return nil, err
	}
	resolvers, err := a.resolverQuorums(servers)
	if err != nil {
		return nil, err
	}
	everybody := membersOf(slices.Concat(servers, resolvers))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var end sync.WaitGroup
	defer end.Wait()
	defer cancel(nil)
	end.Go(func() { giveUpOnTheDead(ctx, cancel, membersOf(servers), key) })

	begin, after := time.Now(), map[*member]time.Duration{}
	note := func() {
		for _, m := range everybody {
			if _, known := after[m]; !known && m.complete() {
				after[m] = time.Since(begin)
			}
		}
	}
	for _, stage := range [][]*quorum{servers, resolvers} {
		if err == nil {
			err = a.gather(ctx, stage, note)
		}
	}
	sightings := make([]Sighting, len(everybody))
	for i, m := range everybody {
		_, last := m.missing()
		sightings[i] = Sighting{Server: m.String(), After: after[m], Answer: last, Silent: !m.complete() && m.isSilent()}
	}
	for i, m := range everybody {
		q := slices.IndexFunc(servers, func(q *quorum) bool { return slices.Contains(q.members, m) })
		sightings[i].Walled = q >= 0 && err == nil && !servers[q].satisfied() && a.unreachable(servers[q]) && !m.complete()
	}
	if dead, ok := errors.AsType[*silentError](context.Cause(ctx)); ok {
		return sightings, dead
	}
	return sightings, err
}

// silentError says which servers gave no answer at all.
type silentError struct{ servers []string }

func (e *silentError) Error() string {
	return fmt.Sprintf("no answer within %s from %s", silence, strings.Join(e.servers, ", "))
}

// giveUpOnTheDead ends a rehearsal whose missing servers are all silent. An order asks them until the propagation timeout;
// who looks on learns no more by waiting.
func giveUpOnTheDead(ctx context.Context, giveUp context.CancelCauseFunc, members []*member, key TXT) {
	select {
	case <-time.After(silence):
	case <-ctx.Done():
		return
	}
	dead := &silentError{}
	for _, m := range members {
		if m.complete() {
			continue
		}
		if m.dead == "" {
			if _, err := ask(ctx, server{m.addr, m.key}, question(key.Name, dns.TypeTXT, false)); !Silent(err) {
				return // it lives, and may get the record yet
			}
		}
		dead.servers = append(dead.servers, m.String())
	}
	if len(dead.servers) > 0 {
		giveUp(dead)
	}
}
