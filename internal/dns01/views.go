package dns01

import (
	"context"
	"slices"

	"github.com/miekg/dns"

	"autocertd/internal/printable"
)

// View is what somebody is told about a zone.
type View struct {
	Who         string   // who was asked and how
	Outside     bool     // as those see it who aren't ours: by resolvers
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
func (s *Solver) Views(ctx context.Context, provider, zone string) (views []View) {
	p, _ := s.provider(provider)
	for _, at := range p.servers() {
		if at.key != nil {
			views = append(views, viewOf(ctx, at, zone, View{Who: at.addr + " with the key " + at.key.Name}))
		}
		views = append(views, viewOf(ctx, server{addr: at.addr}, zone, View{Who: withoutKey(at.addr)}))
	}
	for _, resolver := range s.recursive() {
		views = append(views, viewOf(ctx, server{addr: resolver}, zone, View{Who: "resolver " + resolver, Outside: true}))
	}
	return views
}

func withoutKey(addr string) string { return addr + " without a key" }

// viewOf fills in what one server says.
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
			v.Nameservers = append(v.Nameservers, printable.Line(hostOf(ns.Ns)))
		}
	}
	slices.Sort(v.Nameservers)
	return v
}
