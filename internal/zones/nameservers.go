package zones

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"autocertd/internal/cure"
	"autocertd/internal/dnsname"
	"autocertd/internal/printable"
)

// serversAtMost bounds the addresses of the servers of a zone. The root has 26.
const serversAtMost = 200

// nameThem is the cure where the NS records of a zone aren't what the CA asks.
const nameThem = `name those that must have the records: nameservers = ["ADDRESS", …]`

// knownEndpoints returns a zone's servers, searched once until they are forgotten.
func (a *Asker) knownEndpoints(ctx context.Context, p Provider, zone string) ([]endpoint, error) {
	key := Zone{p.Name, zone}
	for {
		one, ours := a.searches.get(key)
		if ours {
			one.list, one.err = a.endpoints(ctx, p, zone)
			one.again = one.err != nil && ctx.Err() != nil
			a.searches.finish(key, one)
			return one.list, one.err
		}
		select {
		case <-one.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !one.again {
			return one.list, one.err
		}
	}
}

// endpoints returns the servers that must have the records of a zone, each address once.
func (a *Asker) endpoints(ctx context.Context, p Provider, zone string) ([]endpoint, error) {
	switch {
	case p.Check == CheckNone:
		return nil, nil
	case p.Check == CheckPrimary && len(p.Servers) > 0:
		return []endpoint{{server: p.servers()[0], primary: true}}, nil
	}
	at := p // with addresses, to know the servers again among those that are found
	at.Servers = nil
	for _, e := range resolved(ctx, p.Servers) {
		at.Servers = append(at.Servers, e.addr)
	}
	found := resolved(ctx, p.Nameservers)
	for i := range found {
		found[i].key = at.keyAt(found[i].addr)
	}
	if len(found) == 0 {
		var err error
		if found, err = a.zoneServers(ctx, at, zone); err != nil {
			return nil, fmt.Errorf("finding the servers of zone %s: %w", zone, err)
		}
	}
	// The server that took the update is read back: an update can be accepted and yet be without effect. With several
	// primaries it isn't known which one took it.
	hidden := len(p.Servers) == 1
	var list []endpoint
	for _, e := range found {
		if e.dead == "" && slices.ContainsFunc(list, func(o endpoint) bool { return o.addr == e.addr }) {
			continue
		}
		if len(p.Servers) == 1 && slices.Contains(at.Servers, e.addr) {
			e.primary, hidden = true, false
		}
		list = append(list, e)
	}
	if len(list) > serversAtMost {
		return nil, cure.New(fmt.Sprintf("zone %s has %d name servers, and more than %d aren't asked", printable.Line(zone), len(list), serversAtMost), nameThem)
	}
	if hidden {
		list = append(list, endpoint{server: p.servers()[0], primary: true, hidden: true})
	}
	return list, nil
}

// resolved returns all addresses of servers that are given as host:port. A host that has none now stays as it is: the
// attempt to ask it says why.
func resolved(ctx context.Context, servers []string) (list []endpoint) {
	for _, given := range servers {
		host, port, err := net.SplitHostPort(given)
		if err != nil || net.ParseIP(host) != nil {
			list = append(list, endpoint{server: server{addr: given}})
			continue
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			list = append(list, endpoint{server: server{addr: given}})
			continue
		}
		var addrs []string
		for _, ip := range ips {
			addrs = append(addrs, net.JoinHostPort(ip, port))
		}
		for _, addr := range routable(ips, addrs) {
			list = append(list, endpoint{server: server{addr: addr}, name: host})
		}
	}
	return list
}

// zoneServers looks up the NS records of a zone and all addresses of each.
func (a *Asker) zoneServers(ctx context.Context, p Provider, zone string) ([]endpoint, error) {
	servers, recurse, err := a.knowing(p)
	if err != nil {
		return nil, err
	}
	reply, err := askFirst(ctx, servers, question(zone, dns.TypeNS, recurse))
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, rr := range reply.Answer {
		if ns, ok := rr.(*dns.NS); ok {
			hosts = append(hosts, dnsname.Canonical(ns.Ns))
		}
	}
	hosts = distinct(hosts)
	found, failures := make([][]string, len(hosts)), make([]error, len(hosts))
	each(len(hosts), func(i int) {
		found[i], failures[i] = a.addresses(ctx, servers, question(hosts[i], dns.TypeA, recurse))
	})
	var list []endpoint
	for i, host := range hosts {
		if err := failures[i]; err != nil && (p.MinNameservers == 0 || ctx.Err() != nil) {
			hint := nameThem
			if len(hosts) > 1 {
				hint = "remove its NS record, or go on without it: min_nameservers = 1; or " + hint
			}
			return nil, cure.With(err, hint)
		} else if err != nil { // as a server that can't be reached: others may be enough
			list = append(list, endpoint{name: host, dead: "has no address"})
			continue
		}
		for _, addr := range routable(found[i], p.Servers) {
			list = append(list, endpoint{server: server{addr, p.keyAt(addr)}, name: host})
		}
	}
	if len(alive(list)) == 0 {
		return nil, cure.New("no NS record of it leads to an address", nameThem)
	}
	return list, nil
}

// addresses returns the addresses of a name server that q asks for: from the zone's own servers when they know the name,
// else from the configured resolvers, else from this machine's.
func (a *Asker) addresses(ctx context.Context, servers []server, q *dns.Msg) (list []string, err error) {
	host := dnsname.Canonical(q.Question[0].Name)
	if list = addressRecords(ctx, servers, q); len(list) > 0 {
		return list, nil
	}
	if len(a.resolving) > 0 {
		list = addressRecords(ctx, unsigned(a.resolving), question(host, dns.TypeA, true))
	} else {
		list, err = net.DefaultResolver.LookupHost(ctx, host)
	}
	if err == nil && len(list) == 0 {
		err = errors.New("none is known to the zone's servers or the resolvers")
	}
	if dnsErr, ok := errors.AsType[*net.DNSError](err); ok {
		err = lookupError{dnsErr}
	}
	if err != nil {
		return nil, fmt.Errorf("name server %s has no address: %w", cmp.Or(host, "."), err)
	}
	return list, nil
}

// lookupError is a DNS error without the host in its text, which stands before it.
type lookupError struct{ of *net.DNSError }

func (e lookupError) Error() string { return e.of.Err }
func (e lookupError) Unwrap() error { return e.of }

// addressRecords asks for the addresses of both families; servers that fail know none.
func addressRecords(ctx context.Context, servers []server, q *dns.Msg) (list []string) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		q.Question[0].Qtype = qtype
		reply, err := askFirst(ctx, servers, q)
		if err != nil {
			continue
		}
		for _, rr := range reply.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				list = append(list, rr.A.String())
			case *dns.AAAA:
				list = append(list, rr.AAAA.String())
			}
		}
	}
	return list
}

// routable adds ports and leaves out the addresses of a server that this machine has no route to, typically IPv6 ones,
// unless none is left.
func routable(ips, configured []string) []string {
	var all, reachable []string
	for _, ip := range ips {
		addr := withPort(ip, configured)
		all = append(all, addr)
		if conn, err := net.Dial("udp", addr); err == nil { // sends nothing
			reachable = append(reachable, addr)
			_ = conn.Close()
		}
	}
	if len(reachable) == 0 {
		return all
	}
	return reachable
}

// withPort adds the DNS port, or the port of the configured server at that address: a server that takes updates on
// another port answers there too.
func withPort(ip string, configured []string) string {
	for _, server := range configured {
		if host, _, err := net.SplitHostPort(server); err == nil && strings.Trim(host, "[]") == ip {
			return server
		}
	}
	return net.JoinHostPort(ip, "53")
}

// serversOf returns the servers of a zone that resolvers know.
func (a *Asker) serversOf(ctx context.Context, p Provider, zone string) ([]server, error) {
	if p.Check == CheckNone || p.Check == CheckPrimary {
		return nil, errors.New("the zone's servers aren't asked")
	}
	found, err := a.knownEndpoints(ctx, p, zone)
	return alive(found), err
}
