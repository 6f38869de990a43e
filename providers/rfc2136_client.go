package providers

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
)

// maxUpdate is about how many bytes of records go into one update message, which can't be longer than 64 KiB.
const maxUpdate = 48 << 10

// rfc2136Client writes to the first of its servers that can be reached.
type rfc2136Client struct {
	failover
	key  tsigKey
	wait time.Duration // for an answer; see [prober]
	seen memories
}

// update is one message: which records of which zone are added or removed.
type update struct {
	zone    string // in lower case, without the trailing dot
	records []libdns.TXT
	removes bool
}

// AppendRecords adds recs to the zone and returns them.
func (c *rfc2136Client) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, recs, update{zone: zone})
}

// DeleteRecords removes exactly recs from the zone and returns them, also those that weren't there.
func (c *rfc2136Client) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, recs, update{zone: zone, removes: true})
}

// write sends recs in as few messages as can hold them.
func (c *rfc2136Client) write(ctx context.Context, recs []libdns.Record, u update) ([]libdns.Record, error) {
	u, err := u.of(recs)
	if err != nil {
		return nil, err
	}
	return u.send(u.messages(), func(part update) error {
		return c.each(ctx, u.zone, func(ctx context.Context, server string) error { return c.exchange(ctx, server, part) })
	})
}

// of returns u with the records and a plain zone, when both can be written.
func (u update) of(recs []libdns.Record) (update, error) {
	zone, err := zoneName(u.zone)
	if err != nil {
		return u, err
	}
	u.zone = zone
	if u.records, err = txtRecords(recs); err != nil {
		return u, fmt.Errorf("zone %s: %w", zone, err)
	}
	for _, name := range u.names() {
		if !isName(name) {
			return u, &Error{Problem: fmt.Sprintf("%s is too long for a DNS name, which has 253 characters at most", name)}
		}
	}
	return u, nil
}

// send sends the parts one after the other and returns all records. Each part is atomic; when a later one fails, the
// earlier ones have been made.
func (u update) send(parts iter.Seq[update], do func(update) error) ([]libdns.Record, error) {
	made := false
	for part := range parts {
		if err := do(part); err != nil {
			if failure, ok := errors.AsType[*Error](err); ok && made {
				failure.effect = effectMaybe
			}
			return nil, err
		}
		made = true
	}
	return asRecords(u.records), nil
}

// messages cuts the update into as few parts as fit into one message each.
func (u update) messages() iter.Seq[update] {
	return func(yield func(update) bool) {
		for rest := u.records; len(rest) > 0; {
			n := fitting(rest, len(u.zone))
			part := u
			part.records = rest[:n]
			if !yield(part) {
				return
			}
			rest = rest[n:]
		}
	}
}

// fitting returns how many of the records go into one message, at least one.
func fitting(txts []libdns.TXT, zoneLen int) int {
	const fixed = 14 // type, class, TTL and the lengths of data, text and name
	size := 0
	for i, t := range txts {
		size += len(t.Name) + zoneLen + len(t.Text) + fixed
		if size > maxUpdate && i > 0 {
			return i
		}
	}
	return len(txts)
}

// message is the update as RFC 2136, 2.5 has it.
func (u update) message() *dns.Msg {
	rrs := make([]dns.RR, len(u.records))
	for i, t := range u.records {
		rrs[i] = &dns.TXT{
			Hdr: dns.RR_Header{Name: dns.Fqdn(u.full(t)), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(t.TTL / time.Second)},
			Txt: []string{t.Text},
		}
	}
	m := new(dns.Msg).SetUpdate(dns.Fqdn(u.zone))
	if u.removes {
		m.Remove(rrs)
	} else {
		m.Insert(rrs)
	}
	return m
}

// full is the record's name with the zone's, without the trailing dot.
func (u update) full(t libdns.TXT) string {
	return dnsname.Canonical(libdns.AbsoluteName(t.Name, u.zone))
}

// exchange sends the update to one server.
func (c *rfc2136Client) exchange(ctx context.Context, server string, u update) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := prober{server: server, key: c.key, wait: c.wait}
	reply, err := p.ask(ctx, u.message())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return diagnosis{prober: p, update: u, err: err, seen: &c.seen}.noAnswer()
	}
	v := verdict{rcode: reply.Rcode, signature: reply.tsigError(), unproven: reply.unproven}
	if v.done() {
		return nil
	}
	return diagnosis{
		prober:  p,
		update:  u,
		verdict: v,
		err:     v,
		seen:    &c.seen,
	}.diagnose(ctx)
}

// ExplainKey says why server doesn't take the key of a signed question about name, in the words for an update of it.
func (c *rfc2136Client) ExplainKey(ctx context.Context, server, name string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	zone := dnsname.Canonical(name)
	if reply, err := (prober{server: server}).soa(ctx, name); err == nil && authority(reply) != nil { // it needn't be proven for a hint
		zone = dnsname.Canonical(authority(reply).Hdr.Name)
	}
	v := verdict{rcode: dns.RcodeNotAuth, unproven: errServerTSIG}
	return diagnosis{
		prober:  prober{server: server, key: c.key, wait: c.wait},
		verdict: v,
		err:     v,
		seen:    &c.seen,
		update:  update{zone: zone, records: []libdns.TXT{{Name: libdns.RelativeName(dnsname.Canonical(name), zone)}}},
	}.explain(ctx)
}

// isDial reports whether there was no connection, so that nothing was sent.
func isDial(err error) bool {
	opErr, ok := errors.AsType[*net.OpError](err)
	return ok && opErr.Op == "dial"
}

func isTimeout(err error) bool {
	netErr, ok := errors.AsType[net.Error](err)
	return ok && netErr.Timeout()
}
