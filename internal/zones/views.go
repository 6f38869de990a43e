package zones

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
	"autocertd/internal/printable"
)

// View is the answer about a zone that a client gets in one way of asking.
type View struct {
	Who         string   // the server, and how it was asked
	Outside     bool     // it is a resolver, which stands for the world outside
	Zone        string   // "" when there is none
	Nameservers []string // of its NS records, sorted
	Serial      uint32   // of its SOA
	Err         error    // why nothing is known
}

// Same reports whether two views can be of one and the same zone. Serials differ while a change is on its way.
func (v View) Same(o View) bool {
	return v.Err == nil && o.Err == nil && v.Zone == o.Zone && slices.Equal(v.Nameservers, o.Nameservers)
}

// Views asks about a zone in every way that matters: the provider's servers with its key, as the look-ups before an update
// do; the same servers without it; and the configured resolvers, which stand for the world outside.
func (a *Asker) Views(ctx context.Context, provider, zone string) (views []View) {
	p, _ := a.provider(provider)
	for _, at := range p.servers() {
		if at.key != nil {
			views = append(views, viewOf(ctx, at, zone, View{Who: at.addr + " with the key " + at.key.Name}))
		}
		views = append(views, viewOf(ctx, server{addr: at.addr}, zone, View{Who: withoutKey(at.addr)}))
	}
	for _, resolver := range a.resolving {
		views = append(views, viewOf(ctx, server{addr: resolver}, zone, View{Who: "resolver " + resolver, Outside: true}))
	}
	return views
}

func withoutKey(addr string) string { return addr + " without a key" }

// viewOf fills in the answers of one server.
func viewOf(ctx context.Context, at server, zone string, v View) View {
	soa, err := askFirst(ctx, []server{at}, question(zone, dns.TypeSOA, v.Outside))
	if err != nil {
		v.Err = err
		return v
	}
	v.Zone = zoneIn(soa, zone)
	for _, rr := range soa.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			v.Serial = soa.Serial
		}
	}
	if v.Zone != zone {
		return v // the zone above, or nothing
	}
	ns, err := askFirst(ctx, []server{at}, question(zone, dns.TypeNS, v.Outside))
	if err != nil {
		v.Err = err
		return v
	}
	for _, rr := range ns.Answer {
		if ns, ok := rr.(*dns.NS); ok {
			v.Nameservers = append(v.Nameservers, printable.Line(dnsname.Canonical(ns.Ns)))
		}
	}
	slices.Sort(v.Nameservers)
	return v
}

// Glance says whether a rehearsed record is visible to a client that isn't us.
type Glance struct {
	Who     string        // the server, and how it was asked, as in a View
	Outside bool          // it is a resolver, which stands for the world outside
	Key     string        // the provider's, by which the record was written; "" for none
	Answer  string        // what it said; "" when it has the record
	Cached  time.Duration // how long a resolver goes on saying that there is nothing, since it was asked before; 0 when it looked now
	Err     error         // why nothing is known
}

// Glances asks for a value that its servers have in the ways of others: the provider's servers without its key, and the
// configured resolvers. A client that gets another view of the zone doesn't find it. Resolvers are asked now and not
// before, since one that was asked too early remembers that there was nothing.
func (a *Asker) Glances(ctx context.Context, txt TXT) []Glance {
	var list []Glance
	var whom []server
	p, _ := a.provider(txt.Provider)
	for _, at := range p.servers() {
		if at.key != nil {
			list, whom = append(list, Glance{Who: withoutKey(at.addr)}), append(whom, server{addr: at.addr})
		}
	}
	for _, addr := range a.resolving {
		list, whom = append(list, Glance{Who: "resolver " + addr, Outside: true}), append(whom, server{addr: addr})
	}
	if p.Key != nil {
		for i := range list {
			list[i].Key = p.Key.Name
		}
	}
	full := a.soaTTL(ctx, p, txt.Zone)
	each(len(list), func(i int) {
		g := &list[i]
		reply, err := ask(ctx, whom[i], question(txt.Name, dns.TypeTXT, g.Outside))
		switch {
		case err != nil:
			g.Err = err
		case !isAnswer(reply) && reply.Rcode != dns.RcodeRefused:
			g.Err = &refusedQuery{server: whom[i].addr, name: txt.Name, rcode: reply.Rcode, recurse: g.Outside}
		case !holds(reply, txt.Value):
			g.Answer, g.Cached = answered(reply), cachedFor(reply, full)
		}
	})
	return list
}

// soaTTL returns the TTL of a zone's SOA at its primary, in seconds; the longest one where that isn't known.
func (a *Asker) soaTTL(ctx context.Context, p Provider, zone string) uint32 {
	if len(p.Servers) > 0 {
		if reply, err := a.askOwn(ctx, p, question(zone, dns.TypeSOA, false)); err == nil {
			for _, soa := range recordsIn[*dns.SOA](reply) {
				return soa.Hdr.Ttl
			}
		}
	}
	return math.MaxUint32
}

// cachedFor returns how much longer a denial is remembered, when it comes from a cache: the TTL of its SOA is then below
// the one that it begins with, which is that of the SOA itself or the SOA's last number (RFC 2308, section 5).
func cachedFor(reply *dns.Msg, full uint32) time.Duration {
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*dns.SOA); ok && !reply.Authoritative && soa.Hdr.Ttl < min(soa.Minttl, full) {
			return time.Duration(soa.Hdr.Ttl) * time.Second
		}
	}
	return 0
}
