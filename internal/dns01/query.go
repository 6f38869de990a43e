package dns01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	queryTimeout = 2 * time.Second // one question to one server
	udpSize      = 1232            // bytes; what crosses every network unfragmented
)

// question makes a query for a name. recurse is set for resolvers only.
func question(name string, qtype uint16, recurse bool) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.RecursionDesired = recurse
	q.SetEdns0(udpSize, false)
	return q
}

// ask asks one server, by UDP and again by TCP when the answer doesn't fit or doesn't come.
func ask(ctx context.Context, server string, q *dns.Msg) (*dns.Msg, error) {
	var failures []error
	for _, network := range []string{"udp", "tcp"} {
		client := dns.Client{Net: network, Timeout: queryTimeout, UDPSize: udpSize}
		reply, _, err := client.ExchangeContext(ctx, q, server)
		if err == nil && !reply.Truncated {
			return reply, nil
		}
		if err == nil { // by TCP nothing is too long
			err = fmt.Errorf("truncated answer over %s", network)
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("%s doesn't answer: %w", server, joinEqual(failures))
}

// askFirst asks the servers in turn and returns the first answer that is one: servers that fail, or that refuse the
// name, are passed over.
func askFirst(ctx context.Context, servers []string, q *dns.Msg) (*dns.Msg, error) {
	if len(servers) == 0 {
		return nil, errors.New("there is no server to ask")
	}
	var failures []error
	for _, server := range servers {
		reply, err := ask(ctx, server, q)
		switch {
		case err != nil:
			failures = append(failures, err)
		case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
			failures = append(failures, &refusedQuery{server: server, name: hostOf(q.Question[0].Name), rcode: reply.Rcode})
		default:
			return reply, nil
		}
	}
	return nil, joinEqual(failures)
}

// refusedQuery is an answer that says nothing about the name.
type refusedQuery struct {
	server, name string
	rcode        int
}

func (e *refusedQuery) Error() string {
	text := fmt.Sprintf("%s answers %s for %s", e.server, dns.RcodeToString[e.rcode], e.name)
	switch e.rcode {
	case dns.RcodeRefused, dns.RcodeNotAuth:
		text += ": it serves no zone that holds the name, or not to this machine (zones of the provider; allow-query on the server)"
	case dns.RcodeServerFailure:
		text += ": it can't load the zone, or the zone has expired there; on the server: journalctl -u named -n 50"
	}
	return text
}

// hostOf is a DNS name as we keep it: lower case, without the trailing dot.
func hostOf(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// inZone reports whether name is the zone's apex or below it.
func inZone(name, zone string) bool {
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// systemResolvers reads the resolvers of this machine.
func systemResolvers() ([]string, error) {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("this machine's resolvers: %w", err)
	}
	var servers []string
	for _, s := range conf.Servers {
		servers = append(servers, net.JoinHostPort(s, conf.Port))
	}
	return servers, nil
}
