package zones

import (
	"crypto/rand"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// findingIn reads the answer to a question for the CNAME of a name.
func findingIn(answer *dns.Msg, name string) finding {
	if alias, dname := aliasIn(answer, name); alias != "" {
		return finding{alias: alias, dname: dname}
	}
	if zone := zoneIn(answer, name); zone != "" {
		return finding{zone: zone}
	}
	return finding{zone: cutIn(answer, name), cut: cutIn(answer, name) != ""}
}

// aliasIn returns where the name's CNAME points, or a DNAME above it (RFC 6672), which servers answer with both, and that
// DNAME's owner.
func aliasIn(answer *dns.Msg, name string) (alias, dname string) {
	for _, rr := range answer.Answer {
		owner := Canonical(rr.Header().Name)
		switch rr := rr.(type) {
		case *dns.CNAME:
			if owner == name {
				alias = Canonical(rr.Target)
			}
		case *dns.DNAME:
			if rest, below := strings.CutSuffix(name, "."+owner); below {
				dname = owner
				if alias == "" {
					alias = rest + "." + Canonical(rr.Target)
				}
			}
		}
	}
	return alias, dname
}

// zoneIn returns the zone whose SOA the answer carries.
func zoneIn(answer *dns.Msg, name string) string {
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		if soa, ok := rr.(*dns.SOA); ok && inZone(name, Canonical(soa.Hdr.Name)) {
			return Canonical(soa.Hdr.Name)
		}
	}
	return ""
}

// cutIn returns the zone that the answer is a referral to.
func cutIn(answer *dns.Msg, name string) string {
	if answer.Authoritative || len(answer.Answer) > 0 {
		return ""
	}
	for _, rr := range answer.Ns {
		if ns, ok := rr.(*dns.NS); ok && inZone(name, Canonical(ns.Hdr.Name)) {
			return Canonical(ns.Hdr.Name)
		}
	}
	return ""
}

// randomLabel is a name that nobody has written into a zone.
func randomLabel() string { return "autocertd-" + strings.ToLower(rand.Text()) }
