package dns01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// endpoint is one address of one server that must have the records of a zone.
type endpoint struct {
	name string // the server's name, or "" when it was given by address
	addr string // host:port
}

func (e endpoint) String() string {
	if e.name == "" {
		return e.addr
	}
	return fmt.Sprintf("%s (%s)", e.name, e.addr)
}

// endpoints returns who must have the records of a zone.
func (s *Solver) endpoints(ctx context.Context, p Provider, zone string) ([]endpoint, error) {
	var list []endpoint
	add := func(e endpoint) {
		if !slices.ContainsFunc(list, func(o endpoint) bool { return o.addr == e.addr }) {
			list = append(list, e)
		}
	}
	// The server that took the update is read back first: an update can be accepted and yet be without effect. With
	// several primaries it isn't known which one took it.
	if len(p.Servers) == 1 || p.Check == CheckPrimary && len(p.Servers) > 0 {
		add(endpoint{addr: p.Servers[0]})
	}
	switch {
	case p.Check == CheckNone:
		return nil, nil
	case p.Check == CheckPrimary && len(list) > 0:
		return list, nil
	case len(p.Nameservers) > 0:
		for _, addr := range p.Nameservers {
			add(endpoint{addr: addr})
		}
		return list, nil
	}
	found, err := s.zoneServers(ctx, p, zone)
	if err != nil {
		return nil, fmt.Errorf("finding the servers of zone %s: %w", zone, err)
	}
	for _, e := range found {
		add(e)
	}
	return list, nil
}

// zoneServers looks up the NS records of a zone and all addresses of each.
func (s *Solver) zoneServers(ctx context.Context, p Provider, zone string) ([]endpoint, error) {
	servers, recurse := p.Servers, false
	if len(servers) == 0 {
		recurse = true
		var err error
		if servers, err = s.resolvers(false); err != nil {
			return nil, err
		}
	}
	reply, err := askFirst(ctx, servers, question(zone, dns.TypeNS, recurse))
	if err != nil {
		return nil, err
	}
	var list []endpoint
	for _, rr := range reply.Answer {
		ns, ok := rr.(*dns.NS)
		if !ok {
			continue
		}
		host := hostOf(ns.Ns)
		addresses, err := s.addresses(ctx, servers, question(host, dns.TypeA, recurse))
		if err != nil {
			return nil, err
		}
		for _, addr := range routable(addresses, p.Servers) {
			list = append(list, endpoint{host, addr})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no NS record of it leads to an address; name those that must have the records: nameservers = [\"ADDRESS\", …]")
	}
	return list, nil
}

// addresses returns the addresses of a name server that q asks for: from the zone's own servers when they know the name,
// else from the configured resolvers, else from this machine's.
func (s *Solver) addresses(ctx context.Context, servers []string, q *dns.Msg) (list []string, err error) {
	host := hostOf(q.Question[0].Name)
	if list = addressRecords(ctx, servers, q); len(list) > 0 {
		return list, nil
	}
	if len(s.cfg.Resolvers) > 0 {
		list = addressRecords(ctx, s.cfg.Resolvers, question(host, dns.TypeA, true))
	} else {
		list, err = net.DefaultResolver.LookupHost(ctx, host)
	}
	if err == nil && len(list) == 0 {
		err = errors.New("none is known to the zone's servers or the resolvers")
	}
	if err != nil {
		return nil, fmt.Errorf("name server %s has no address: %w; name those that must have the records: nameservers = [\"ADDRESS\", …]", host, err)
	}
	return list, nil
}

// addressRecords asks for the addresses of both families; servers that fail know none.
func addressRecords(ctx context.Context, servers []string, q *dns.Msg) (list []string) {
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
