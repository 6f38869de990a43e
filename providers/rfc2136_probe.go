package providers

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
)

// soa asks for the SOA of name.
func (p prober) soa(ctx context.Context, name string) (answer, error) {
	return p.ask(ctx, question(name, dns.TypeSOA))
}

func question(name string, typ uint16) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	m.RecursionDesired = false
	return m
}

// emptyUpdate asks for an update of the zone that changes nothing. A server whose policy looks at records takes it.
func (p prober) emptyUpdate(ctx context.Context, zone string) (answer, error) {
	return p.ask(ctx, new(dns.Msg).SetUpdate(dns.Fqdn(zone)))
}

// otherAlgorithm returns the algorithm that the server knows the key with, or "". BIND says then that the secret is
// another one; PowerDNS says nothing unless all is right.
func (p prober) otherAlgorithm(ctx context.Context, name string) (string, error) {
	for _, algorithm := range tsigAlgorithms() {
		if algorithm == p.key.algorithm {
			continue
		}
		other := p
		other.key.algorithm = algorithm
		reply, err := other.soa(ctx, name)
		if err != nil {
			return "", err
		}
		if code := reply.tsigError(); reply.unproven == nil || code != 0 && code != dns.RcodeBadKey {
			return algorithm, nil
		}
	}
	return "", nil
}

// nobodysKey is a TSIG key that no server has.
func nobodysKey() tsigKey {
	return tsigKey{name: "autocertd-looks-for-the-primary", algorithm: "hmac-sha256", secret: "bm9ib2R5IGhhcyB0aGlzIGtleQ=="}
}

// stranger sends an update that changes nothing, with a key that the server can't know. A secondary of BIND answers
// REFUSED, since it takes no updates from anybody; a primary of BIND's answers NOTAUTH.
func (p prober) stranger(ctx context.Context, zone string) verdict {
	p.key = nobodysKey()
	reply, err := p.emptyUpdate(ctx, zone)
	if err != nil {
		return verdict{}
	}
	return verdict{rcode: reply.Rcode, signature: reply.tsigError(), unproven: reply.unproven}
}

// sight is what a server has at a name.
type sight struct {
	sure   bool // the server itself said so
	txt    []string
	isName string // that the name is an alias of, without the trailing dot
}

// look asks for the TXT records at a name.
func (p prober) look(ctx context.Context, name string) sight {
	reply, err := p.ask(ctx, question(name, dns.TypeTXT))
	if err != nil || !reply.Authoritative || reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return sight{}
	}
	s := sight{sure: reply.unproven == nil || p.key.name == ""}
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *dns.TXT:
			if dnsname.Canonical(rr.Hdr.Name) == name {
				s.txt = append(s.txt, strings.Join(rr.Txt, ""))
			}
		case *dns.CNAME:
			if dnsname.Canonical(rr.Hdr.Name) == name {
				s.isName = dnsname.Canonical(rr.Target)
			}
		}
	}
	return s
}

// serverTime returns the server's clock out of a BADTIME answer (RFC 8945, 5.2.3).
func serverTime(reply answer) (time.Time, bool) {
	t := reply.IsTsig()
	if t == nil {
		return time.Time{}, false
	}
	raw, err := hex.DecodeString(t.OtherData)
	if err != nil || len(raw) != 6 {
		return time.Time{}, false
	}
	var seconds int64
	for _, b := range raw {
		seconds = seconds<<8 | int64(b)
	}
	return time.Unix(seconds, 0).UTC(), true
}

// authority returns the SOA of the zone that the server answered from with authority, nil if it has none for the name.
func authority(reply answer) *dns.SOA {
	if reply.Msg == nil || !reply.Authoritative {
		return nil
	}
	for _, rr := range slices.Concat(reply.Answer, reply.Ns) {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa
		}
	}
	return nil
}
