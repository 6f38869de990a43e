package zones

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
)

// isAnswer reports whether a reply says something about the name.
func isAnswer(reply *dns.Msg) bool {
	return reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError
}

// recordsIn returns the records of one type among the answers.
func recordsIn[R dns.RR](reply *dns.Msg) (list []R) {
	for _, rr := range reply.Answer {
		if r, ok := rr.(R); ok {
			list = append(list, r)
		}
	}
	return list
}

// holds reports whether a TXT record of a reply has a value.
func holds(reply *dns.Msg, value string) bool {
	for _, rr := range reply.Answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.Join(txt.Txt, "") == value {
			return true
		}
	}
	return false
}

// answered returns the end of a sentence that begins with a server which doesn't have the value.
func answered(reply *dns.Msg) string {
	switch {
	case slices.ContainsFunc(reply.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeCNAME }):
		return "has a CNAME in the way, beside which no TXT record can be (BIND takes the update and ignores it: remove the CNAME, or let it lead to a zone of a provider)"
	case reply.Rcode == dns.RcodeNameError:
		return lacksName
	case reply.Rcode == dns.RcodeRefused:
		return "doesn't serve the zone (REFUSED; a lame delegation: let it serve the zone, or remove its NS record)"
	case reply.Rcode != dns.RcodeSuccess:
		return "answers " + dns.RcodeToString[reply.Rcode]
	case len(reply.Answer) == 0:
		return lacksTXT
	}
	return lacksValue
}

// What a server has instead of a record.
const (
	lacksName  = "has no such name (NXDOMAIN)"
	lacksTXT   = "has no TXT record"
	lacksValue = "has other values only"
)

// unreachable returns the end of a sentence that begins with the server which gave no answer.
func unreachable(err error) string {
	switch {
	case isTimeout(err):
		return "doesn't answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "doesn't listen (connection refused)"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "can't be reached from here (no route to it)"
	case errors.Is(err, errUnsigned):
		return "answers without a signature, which doesn't count,"
	}
	if refused, ok := errors.AsType[*keyError](err); ok {
		return fmt.Sprintf("doesn't take TSIG key %q", refused.key)
	}
	return err.Error()
}

// aliasIn returns where the name's CNAME points, or a DNAME above it (RFC 6672), which servers answer with both, and that
// DNAME's owner.
func aliasIn(answer *dns.Msg, name string) (alias, dname string) {
	for _, rr := range answer.Answer {
		owner := dnsname.Canonical(rr.Header().Name)
		switch rr := rr.(type) {
		case *dns.CNAME:
			if owner == name {
				alias = dnsname.Canonical(rr.Target)
			}
		case *dns.DNAME:
			if rest, below := strings.CutSuffix(name, "."+owner); below {
				dname = owner
				if alias == "" {
					alias = rest + "." + dnsname.Canonical(rr.Target)
				}
			}
		}
	}
	return alias, dname
}

// lastAlias follows the aliases of an answer to their end.
func lastAlias(answer *dns.Msg, name string) string {
	for range answer.Answer { // a chain has no more links than this, unless it goes round
		if alias, _ := aliasIn(answer, name); alias != "" {
			name = alias
		}
	}
	return name
}

// zoneIn returns the zone whose SOA the answer carries.
func zoneIn(answer *dns.Msg, name string) string {
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		if soa, ok := rr.(*dns.SOA); ok && dnsname.In(name, dnsname.Canonical(soa.Hdr.Name)) {
			return dnsname.Canonical(soa.Hdr.Name)
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
		if ns, ok := rr.(*dns.NS); ok && dnsname.In(name, dnsname.Canonical(ns.Hdr.Name)) {
			return dnsname.Canonical(ns.Hdr.Name)
		}
	}
	return ""
}

// location says where a name leads: it is an alias, or lies in a zone.
type location struct {
	alias string
	dname string // whose record the alias follows from, "" when it is a CNAME's own
	zone  string
	cut   bool // the servers that were asked delegate the zone to others
}

// locationIn reads the answer to a question for the CNAME of a name.
func locationIn(answer *dns.Msg, name string) location {
	if alias, dname := aliasIn(answer, name); alias != "" {
		return location{alias: alias, dname: dname}
	}
	if zone := zoneIn(answer, name); zone != "" {
		return location{zone: zone}
	}
	return location{zone: cutIn(answer, name), cut: cutIn(answer, name) != ""}
}
