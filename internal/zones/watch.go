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

	"autocertd/internal/cure"
)

// Wait returns nil when the servers that must have them were seen to have all records, and calls seen whenever more have. It
// looks the servers up again for the next order when some lack records.
func (a *Asker) Wait(ctx context.Context, records []TXT, seen func(have, want int)) error {
	last := -1
	servers, _, err := a.wait(ctx, records, func(members []*member) {
		if have, want := tally(members); have != last && want > 0 {
			seen(have, want)
			last = have
		}
	})
	if err != nil && ctx.Err() == nil {
		a.searches.invalidate(zonesOf(servers))
	}
	return err
}

// wait waits for records and calls note with all members whenever more is known. Resolvers are asked when the servers
// have the records and not before: one that is asked too early remembers for long that there was nothing.
func (a *Asker) wait(ctx context.Context, records []TXT, note func([]*member)) (servers []*quorum, members []*member, err error) {
	if servers, err = a.quorums(ctx, records); err != nil {
		return nil, nil, err
	}
	resolvers, err := a.resolverQuorums(servers)
	if err != nil {
		return nil, nil, err
	}
	members = membersOf(slices.Concat(servers, resolvers))
	for _, stage := range [][]*quorum{servers, resolvers} {
		if err == nil {
			err = a.gather(ctx, stage, func() { note(members) })
		}
	}
	return servers, members, err
}

// warnAfter is the time after which a line says which servers are waited for.
const warnAfter = 5 * time.Second

// gather waits until all quorums are satisfied, and calls note whenever more is known. It logs once that it takes long.
func (a *Asker) gather(ctx context.Context, quorums []*quorum, note func()) error {
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
	long := time.NewTimer(warnAfter)
	defer long.Stop()
	for late := false; ; {
		note()
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
// TCP, and the configuration wants resolvers asked. The server that took the update must have the records nevertheless.
func (a *Asker) unreachable(q *quorum) bool {
	if q.provider.Check != CheckResolvers || len(q.members) == 0 || q.members[0].recurse || !q.effective() {
		return false
	}
	for _, m := range q.members {
		if !m.hidden && !m.isSilent() {
			return false
		}
	}
	if !q.logged {
		q.logged = true
		a.cfg.Logger.Debug("none of a zone's servers can be asked from here; resolvers alone are", "provider", q.provider.Name, "zone", q.records[0].Zone)
	}
	return true
}

// logLate logs which servers an order has been waiting for, and until when it will.
func (a *Asker) logLate(quorums []*quorum, end time.Time) {
	for _, q := range quorums {
		zone := q.records[0].In()
		late := slices.DeleteFunc(slices.Clone(q.members), (*member).complete)
		if q.satisfied() || a.unreachable(q) || len(late) == 0 || !a.mayWarn(zone) {
			continue
		}
		have, servers := q.tally()
		a.cfg.Logger.Warn("waiting for servers that lack the records", "provider", zone.Provider, "zone", zone.Name,
			"have", have, "servers", servers, "lacking", strings.Join(lacking(late), "; "), "until", end.UTC().Format(time.RFC3339))
	}
}

// mayWarn reports whether it is time for a line about a zone whose servers are late: many orders wait for the same.
func (a *Asker) mayWarn(zone Zone) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, known := a.warned[zone]; known && time.Since(last) < serversKept {
		return false
	}
	a.warned[zone] = time.Now()
	return true
}

// quorums returns the quorums of the servers of the records' zones.
func (a *Asker) quorums(ctx context.Context, records []TXT) (list []*quorum, err error) {
	known := map[Zone]*quorum{}
	for _, r := range records {
		key := r.In()
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
				endpoints = []endpoint{{server: p.servers()[0], primary: true, hidden: true}}
			}
		}
		q := &quorum{provider: p, records: []TXT{r}, enough: p.MinNameservers}
		for _, e := range endpoints {
			m := &member{endpoint: e}
			if e.dead == "" {
				m.watched = a.watch(e.server)
			}
			q.members = append(q.members, m)
		}
		known[key] = q
		list = append(list, q)
	}
	return list, nil
}

// resolverQuorums returns the quorums of resolvers, for the providers that want them asked.
func (a *Asker) resolverQuorums(servers []*quorum) (list []*quorum, err error) {
	for _, q := range servers {
		if q.provider.Check != CheckResolvers {
			continue
		}
		if len(a.resolving) == 0 {
			return nil, cure.New(fmt.Sprintf("provider %q wants resolvers to be asked, and none is configured", q.provider.Name), `name some: [resolvers] public = ["ADDRESS"]`)
		}
		r := &quorum{provider: q.provider, records: q.records}
		for _, addr := range a.resolving {
			at := server{addr: addr}
			r.members = append(r.members, &member{endpoint: endpoint{server: at}, watched: a.watch(at), recurse: true})
		}
		list = append(list, r)
	}
	return list, nil
}

// watch returns the watched server at an address, one for all orders that wait there.
func (a *Asker) watch(at server) *watched {
	a.mu.Lock()
	defer a.mu.Unlock()
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

// Sighting says when a server was seen to have a record, or what it answered instead.
type Sighting struct {
	Server string        // its name and address
	After  time.Duration // since the update was confirmed
	Answer string        // what it said last; "" when it has the record
	Silent bool          // it gave no answer at all
	Walled bool          // it can't be asked from here, and resolvers stand for it
}

// silence is the time after which a rehearsal gives up servers that don't answer at all.
const silence = 10 * time.Second

// Watch waits as Wait does, and returns when each server was seen to have the value. It ends early when all servers that lack
// it are silent: an order asks them until the propagation timeout, but waiting longer would show a person nothing more.
func (a *Asker) Watch(ctx context.Context, txt TXT) ([]Sighting, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin, after := time.Now(), map[*member]time.Duration{}
	var once sync.Once
	var ending sync.WaitGroup
	servers, members, err := a.wait(ctx, []TXT{txt}, func(members []*member) {
		once.Do(func() { ending.Go(func() { cancelWhenSilent(ctx, cancel, members, txt) }) })
		for _, m := range members {
			if _, known := after[m]; !known && m.complete() {
				after[m] = time.Since(begin)
			}
		}
	})
	if dead, ok := errors.AsType[*silentError](context.Cause(ctx)); ok {
		err = dead
	}
	cancel(nil)
	ending.Wait()
	sightings := make([]Sighting, len(members))
	for i, m := range members {
		_, last := m.missing()
		q := slices.IndexFunc(servers, func(q *quorum) bool { return slices.Contains(q.members, m) })
		sightings[i] = Sighting{
			Server: m.String(),
			After:  after[m],
			Answer: last,
			Silent: !m.complete() && m.isSilent(),
			Walled: q >= 0 && err == nil && !servers[q].satisfied() && a.unreachable(servers[q]) && !m.complete(),
		}
	}
	return sightings, err
}

// silentError says which servers gave no answer at all.
type silentError struct{ servers []string }

func (e *silentError) Error() string {
	return fmt.Sprintf("no answer within %s from %s", silence, strings.Join(e.servers, ", "))
}

// cancelWhenSilent cancels the wait for a value when all servers that lack it have been silent for some time.
func cancelWhenSilent(ctx context.Context, cancel context.CancelCauseFunc, members []*member, txt TXT) {
	select {
	case <-time.After(silence):
	case <-ctx.Done():
		return
	}
	dead := &silentError{}
	for _, m := range members {
		if m.recurse || m.complete() {
			continue
		}
		if m.dead == "" {
			if _, err := ask(ctx, m.endpoint.server, question(txt.Name, dns.TypeTXT, false)); !Silent(err) {
				return // it answers, and may get the value yet
			}
		}
		dead.servers = append(dead.servers, m.String())
	}
	if len(dead.servers) > 0 {
		cancel(dead)
	}
}
