package providers

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// prober asks one server the questions that explain why it didn't take an update.
type prober struct {
	server string
	key    tsigKey
}

// ask sends m over TCP, signed with the given algorithm if there is a key, and returns the answer, whatever it says.
func (p prober) ask(ctx context.Context, m *dns.Msg, algorithm string) (*dns.Msg, error) {
	client := dns.Client{Net: "tcp"}
	if p.key.name != "" {
		keyName := dns.Fqdn(p.key.name)
		m.SetTsig(keyName, dns.Fqdn(algorithm), 300, time.Now().Unix())
		client.TsigSecret = map[string]string{keyName: p.key.secret}
	}
	reply, _, err := client.ExchangeContext(ctx, m, p.server)
	// With NOTAUTH the client returns both the error and the answer; what the server means is in the TSIG record.
	if errors.Is(err, dns.ErrAuth) && reply != nil {
		err = nil
	}
	return reply, err
}

// soa asks for the SOA of name.
func (p prober) soa(ctx context.Context, name, algorithm string) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeSOA)
	m.RecursionDesired = false
	return p.ask(ctx, m, algorithm)
}

// emptyUpdate asks for an update of the zone that changes nothing. A server whose policy looks at records takes it.
func (p prober) emptyUpdate(ctx context.Context, zone string) (*dns.Msg, error) {
	return p.ask(ctx, new(dns.Msg).SetUpdate(dns.Fqdn(zone)), p.key.algorithm)
}

// otherAlgorithm returns the algorithm that the server knows the key with, or "".
func (p prober) otherAlgorithm(ctx context.Context, name string) (string, error) {
	for _, algorithm := range tsigAlgorithms() {
		if algorithm == p.key.algorithm {
			continue
		}
		reply, err := p.soa(ctx, name, algorithm)
		if err != nil {
			return "", err
		}
		if tsigError(reply) != dns.RcodeBadKey {
			return algorithm, nil
		}
	}
	return "", nil
}

// tsigError returns the error field of the answer's TSIG record (RFC 8945, 5.2), 0 if there is none.
func tsigError(reply *dns.Msg) int {
	if t := reply.IsTsig(); t != nil {
		return int(t.Error)
	}
	return 0
}

// serverTime returns the server's clock out of a BADTIME answer (RFC 8945, 5.2.3).
func serverTime(reply *dns.Msg) (time.Time, bool) {
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
func authority(reply *dns.Msg) *dns.SOA {
	if !reply.Authoritative {
		return nil
	}
	for _, rr := range slices.Concat(reply.Answer, reply.Ns) {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa
		}
	}
	return nil
}
