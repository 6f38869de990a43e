package providers

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"

	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"
	"github.com/miekg/dns"
)

// maxUpdate is about how many bytes of records go into one update message, which can't be longer than 64 KiB.
const maxUpdate = 48 << 10

// rfc2136Client writes to the first of its servers that can be reached.
type rfc2136Client struct {
	failover
	key       tsigKey
	selective memory // see diagnosis
}

// update is one message: what to do with which records of which zone.
type update struct {
	zone    string // in lower case, without the trailing dot
	records []libdns.TXT
	method  func(*rfc2136.Provider, context.Context, string, []libdns.Record) ([]libdns.Record, error)
}

// AppendRecords adds recs to the zone and returns them.
func (c *rfc2136Client) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, recs, update{zone: zone, method: (*rfc2136.Provider).AppendRecords})
}

// DeleteRecords removes exactly recs from the zone and returns them, also those that weren't there.
func (c *rfc2136Client) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, recs, update{zone: zone, method: (*rfc2136.Provider).DeleteRecords})
}

// write sends recs in as few messages as can hold them. Each message is atomic.
func (c *rfc2136Client) write(ctx context.Context, recs []libdns.Record, u update) ([]libdns.Record, error) {
	zone, err := zoneName(u.zone)
	if err != nil {
		return nil, err
	}
	u.zone = zone
	txts, err := txtRecords(recs)
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", zone, err)
	}
	for u.records = range messages(txts, len(zone)) {
		if err := c.each(ctx, zone, func(ctx context.Context, server string) error { return c.exchange(ctx, server, u) }); err != nil {
			return nil, err
		}
	}
	return asRecords(txts), nil
}

// messages cuts the records into as few parts as fit into one message each.
func messages(txts []libdns.TXT, zoneLen int) iter.Seq[[]libdns.TXT] {
	return func(yield func([]libdns.TXT) bool) {
		for rest := txts; len(rest) > 0; {
			n := fitting(rest, zoneLen)
			if !yield(rest[:n]) {
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

// exchange sends the update to one server. Updates are idempotent, so one whose answer is missing is sent once more.
func (c *rfc2136Client) exchange(ctx context.Context, server string, u update) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := &rfc2136.Provider{Server: server, KeyName: c.key.name, KeyAlg: c.key.algorithm, Key: c.key.secret}
	_, err := u.method(p, ctx, u.zone, asRecords(u.records))
	if isTimeout(err) && !isDial(err) && ctx.Err() == nil {
		_, err = u.method(p, ctx, u.zone, asRecords(u.records))
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return c.diagnose(ctx, server, u, err)
}

// ExplainKey says why server doesn't take the key of a signed question about name, in the words for an update of it.
func (c *rfc2136Client) ExplainKey(ctx context.Context, server, name string) error {
	return c.diagnose(ctx, server, update{zone: plainName(name), records: []libdns.TXT{{Name: "@"}}}, dns.ErrAuth)
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
