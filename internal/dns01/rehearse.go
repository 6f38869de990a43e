package dns01

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Rehearsal is what happened to a record that no CA asked for.
type Rehearsal struct {
	Trace     Trace
	Step      string // that failed: "locate", "publish" or "wait"; "" when all went well
	Err       error
	ByHand    bool          // a person writes the record, so that nothing was tried
	Published time.Duration // until the update was confirmed
	Sightings []Sighting    // one for each server that must have the record

	solver *Solver
	key    recordKey
	end    func()
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

// rehearsedTTL is that of a record that is rehearsed, where the provider has servers of its own: a resolver that was asked
// for it is soon ready for the real one.
const rehearsedTTL = time.Second

// Rehearse does for one record what an order does, with a random value: it finds its place, publishes it through the same
// queue and journal, and looks whether all servers get it. The record stays until End. progress is told each step as it
// begins.
func (s *Solver) Rehearse(ctx context.Context, name string, progress func(step string)) (r Rehearsal) {
	sol := s.begin()
	r.solver, r.end = s, sol.Remove
	progress("locate")
	if r.Trace, r.Err = s.Locate(ctx, name); r.Err != nil {
		if r.Step = "locate"; RefusesKey(r.Err) { // as the update would be
			r.Step = "publish"
		}
		return r
	}
	p, _ := s.provider(r.Trace.Provider)
	if p.byHand() {
		r.ByHand = true
		return r
	}
	if len(p.Servers) > 0 {
		sol.ttl = rehearsedTTL
	}
	progress("publish")
	r.key = recordKey{r.Trace.Provider, r.Trace.Zone, r.Trace.Name(), canary()}
	begin := time.Now()
	if r.Err = sol.submit(ctx, []recordKey{r.key}); r.Err != nil {
		r.Step = "publish"
		return r
	}
	r.Published = time.Since(begin)
	progress("wait")
	if r.Sightings, r.Err = s.watchCanary(ctx, r.key); r.Err != nil {
		r.Step = "wait"
	}
	return r
}

// End removes the record. The removal is done when the solver is closed, which tells of one that failed.
func (r Rehearsal) End() {
	if r.end != nil {
		r.end()
	}
}

// RefusesKey reports whether an error is that of a server that doesn't take our key.
func RefusesKey(err error) bool {
	_, ok := errors.AsType[*keyError](err)
	return ok
}

// Glance is whether somebody who isn't us sees a rehearsed record.
type Glance struct {
	Who     string        // who was asked and how, as in a View
	Outside bool          // it is a resolver, which stands for the world outside
	Key     string        // the provider's, by which the record was written; "" for none
	Answer  string        // what it said; "" when it has the record
	Cached  time.Duration // how long a resolver goes on saying that there is nothing, since it was asked before; 0 when it looked now
	Err     error         // why nothing is known
}

// Glances asks for a record that its servers have in the ways of others: the provider's servers without its key, and the
// configured resolvers. Who sees another view of the zone doesn't find it. Resolvers are asked now and not before, since one
// that was asked too early remembers that there was nothing.
func (r Rehearsal) Glances(ctx context.Context) []Glance {
	if r.solver == nil || r.ByHand || r.Step != "" {
		return nil
	}
	var list []Glance
	var whom []server
	p, _ := r.solver.provider(r.Trace.Provider)
	for _, at := range p.servers() {
		if at.key != nil {
			list, whom = append(list, Glance{Who: withoutKey(at.addr)}), append(whom, server{addr: at.addr})
		}
	}
	for _, addr := range r.solver.recursive() {
		list, whom = append(list, Glance{Who: "resolver " + addr, Outside: true}), append(whom, server{addr: addr})
	}
	if p.Key != nil {
		for i := range list {
			list[i].Key = p.Key.Name
		}
	}
	full := r.solver.soaTTL(ctx, p, r.Trace.Zone)
	each(len(list), func(i int) {
		g := &list[i]
		reply, err := ask(ctx, whom[i], question(r.key.name, dns.TypeTXT, g.Outside))
		switch {
		case err != nil:
			g.Err = err
		case !isAnswer(reply) && reply.Rcode != dns.RcodeRefused:
			g.Err = &refusedQuery{server: whom[i].addr, name: r.key.name, rcode: reply.Rcode, recurse: g.Outside}
		case !holds(reply, r.key.value):
			g.Answer, g.Cached = answered(reply), cachedFor(reply, full)
		}
	})
	return list
}

// soaTTL is the TTL of a zone's SOA at its primary, and very long where that isn't known.
func (s *Solver) soaTTL(ctx context.Context, p Provider, zone string) uint32 {
	if len(p.Servers) > 0 {
		if reply, err := s.askOwn(ctx, p, question(zone, dns.TypeSOA, false)); err == nil {
			for _, soa := range recordsIn[*dns.SOA](reply) {
				return soa.Hdr.Ttl
			}
		}
	}
	return math.MaxUint32
}

// cachedFor is how much longer a denial is remembered, when it comes from a cache: the TTL of its SOA is then below the one
// that it begins with, which is that of the SOA itself or the SOA's last number (RFC 2308, section 5).
func cachedFor(reply *dns.Msg, full uint32) time.Duration {
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*dns.SOA); ok && !reply.Authoritative && soa.Hdr.Ttl < min(soa.Minttl, full) {
			return time.Duration(soa.Hdr.Ttl) * time.Second
		}
	}
	return 0
}

// canary is a value that looks like those of a CA (RFC 8555, section 8.4) and is none.
func canary() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	return base64.RawURLEncoding.EncodeToString(random)
}

// watchCanary waits as an order does, and notes when each server was seen to have the record.
func (s *Solver) watchCanary(ctx context.Context, key recordKey) ([]Sighting, error) {
	w := &s.watchers
	servers, err := w.quorums(ctx, []recordKey{key})
	if err != nil {
		return nil, err
	}
	resolvers, err := w.resolvers(servers)
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
			err = w.gather(ctx, stage, note)
		}
	}
	sightings := make([]Sighting, len(everybody))
	for i, m := range everybody {
		_, last := m.missing()
		sightings[i] = Sighting{Server: m.String(), After: after[m], Answer: last, Silent: !m.complete() && m.isSilent()}
	}
	for i, m := range everybody {
		q := slices.IndexFunc(servers, func(q *quorum) bool { return slices.Contains(q.members, m) })
		sightings[i].Walled = q >= 0 && err == nil && !servers[q].satisfied() && w.unreachable(servers[q]) && !m.complete()
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
func giveUpOnTheDead(ctx context.Context, giveUp context.CancelCauseFunc, members []*member, key recordKey) {
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
			if _, err := ask(ctx, server{m.addr, m.key}, question(key.name, dns.TypeTXT, false)); !Silent(err) {
				return // it lives, and may get the record yet
			}
		}
		dead.servers = append(dead.servers, m.String())
	}
	if len(dead.servers) > 0 {
		giveUp(dead)
	}
}
