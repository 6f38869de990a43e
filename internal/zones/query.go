package zones

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/cure"
	"autocertd/internal/dnsname"
	"autocertd/internal/secret"
)

const (
	queryTimeout = 2 * time.Second // one question to one server
	freshTimeout = 3 * time.Second // a question to servers that perhaps can't be asked from here
	udpSize      = 1232            // bytes; what crosses every network unfragmented
	tsigFudge    = 300             // seconds that clocks may differ (RFC 8945, section 10)
)

// Key signs queries (RFC 8945), so that a server with several views answers from the one that the key opens.
type Key = secret.TSIGKey

// server is a host:port to ask, and the key that opens the right view there, nil for none.
type server struct {
	addr string
	key  *Key
}

// unsigned returns servers that are asked without a key.
func unsigned(addrs []string) []server {
	list := make([]server, len(addrs))
	for i, addr := range addrs {
		list[i] = server{addr: addr}
	}
	return list
}

// question makes a query for a name. recurse is set for resolvers only.
func question(name string, qtype uint16, recurse bool) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.RecursionDesired = recurse
	q.SetEdns0(udpSize, false)
	return q
}

// exchange asks once over a connection. A signed question is answered by a signed reply or not at all (RFC 8945, section
// 5.3): what comes unsigned is an error, except for the word that the answer doesn't fit. It is never asked unsigned
// instead, which would be a question about another view, and one whose answer may be forged.
func exchange(ctx context.Context, client dns.Client, conn *dns.Conn, q *dns.Msg, key *Key) (*dns.Msg, error) {
	if key == nil {
		client.TsigSecret = nil
		reply, _, err := client.ExchangeWithConnContext(ctx, q, conn)
		return reply, err
	}
	signed := q.Copy()
	name := dns.Fqdn(key.Name)
	signed.SetTsig(name, dns.Fqdn(key.Algorithm), tsigFudge, time.Now().Unix())
	client.TsigSecret = map[string]string{name: key.Secret.Reveal()}
	// A dns.Conn mixes the signature of its last question into the next one, as only a zone transfer wants it. So each
	// question has one of its own, around the socket that they share.
	reply, _, err := client.ExchangeWithConnContext(ctx, signed, &dns.Conn{Conn: conn.Conn})
	switch {
	case reply == nil:
		return nil, err
	case err == nil && (reply.IsTsig() != nil || reply.Truncated):
		return reply, nil
	case reply.Rcode == dns.RcodeNotAuth, reply.IsTsig() != nil && reply.IsTsig().Error != 0:
		return nil, refusalOf(reply, conn.RemoteAddr().String(), key)
	case err == nil:
		err = errUnsigned
	}
	return nil, err
}

// errUnsigned says that a reply may be forged.
var errUnsigned = errors.New("the reply to a signed question isn't signed")

// keyError says that a server doesn't take the key of a question.
type keyError struct {
	server, key string
	code        int // the TSIG error (RFC 8945, section 5.2), 0 when the server names none
	why         error
}

func refusalOf(reply *dns.Msg, server string, key *Key) *keyError {
	e := &keyError{server: server, key: key.Name}
	if t := reply.IsTsig(); t != nil {
		e.code = int(t.Error)
	}
	return e
}

func (e *keyError) Unwrap() error { return e.why }

func (e *keyError) Error() string {
	if e.why != nil {
		return e.why.Error()
	}
	code := "NOTAUTH"
	if e.code != 0 {
		code = dns.RcodeToString[e.code]
	}
	return fmt.Sprintf("%s doesn't take TSIG key %q (%s)", e.server, e.key, code)
}

// Cure returns what to compare, unless the reason knows better.
func (e *keyError) Cure() string {
	if e.why != nil {
		return cure.Of(e.why)
	}
	return "name, algorithm and secret must be the same on both sides"
}

// SameCause reports whether another error is that of the same key at the same server, and for the same reason.
func (e *keyError) SameCause(other error) bool {
	o, ok := other.(*keyError)
	return ok && e.server == o.server && e.key == o.key && e.code == o.code && cure.Same(e.why, o.why)
}

// RefusesKey reports whether an error is that of a server that doesn't take our key.
func RefusesKey(err error) bool {
	_, ok := errors.AsType[*keyError](err)
	return ok
}

// exchangeOnce asks once over a connection of its own.
func exchangeOnce(ctx context.Context, client dns.Client, q *dns.Msg, s server) (*dns.Msg, error) {
	conn, err := client.DialContext(ctx, s.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return exchange(ctx, client, conn, q, s.key)
}

// ask asks one server, by UDP and again by TCP when the answer doesn't fit or doesn't come.
func ask(ctx context.Context, s server, q *dns.Msg) (*dns.Msg, error) {
	return askBy(ctx, []string{"udp", "tcp"}, s, q)
}

// askBy asks one server by the given protocols in turn.
func askBy(ctx context.Context, networks []string, s server, q *dns.Msg) (*dns.Msg, error) {
	var failures []error
	for _, network := range networks {
		client := dns.Client{Net: network, Timeout: queryTimeout, UDPSize: udpSize}
		reply, err := exchangeOnce(ctx, client, q, s)
		if err == nil && !reply.Truncated {
			return reply, nil
		}
		if refused, ok := errors.AsType[*keyError](err); ok {
			refused.server = s.addr
			return nil, refused
		}
		if err == nil { // by TCP nothing is too long
			err = fmt.Errorf("truncated answer over %s", network)
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, &unansweredError{s.addr, failures}
}

// unansweredError says that a server gave no answer, by UDP nor by TCP.
type unansweredError struct {
	server   string
	failures []error
}

func (e *unansweredError) Unwrap() []error { return e.failures }

// Error returns why, as far as the failures say.
func (e *unansweredError) Error() string { problem, _ := e.explain(); return problem }

// Cure returns what to look at.
func (e *unansweredError) Cure() string { _, hint := e.explain(); return hint }

func (e *unansweredError) explain() (problem, hint string) {
	host, port, _ := net.SplitHostPort(e.server)
	all := func(is func(error) bool) bool {
		return !slices.ContainsFunc(e.failures, func(err error) bool { return !is(err) })
	}
	switch name, unknown := errors.AsType[*net.DNSError](e.failures[0]); {
	case unknown:
		return fmt.Sprintf("the address of server %s can't be looked up (%s)", host, name.Err),
			"see what this machine finds: getent hosts " + host
	case all(func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }):
		return fmt.Sprintf("nothing listens at %s (connection refused)", e.server),
			"on the server: systemctl status named; ss -lntu sport = :" + port
	case all(func(err error) bool { return errors.Is(err, errUnsigned) }):
		return fmt.Sprintf("%s answers a signed question without a signature, so the answer doesn't count", e.server),
			fmt.Sprintf("see whether it is the server itself that answers there: dig @%s -p %s SOA .", host, port)
	case all(isTimeout):
		return fmt.Sprintf("%s doesn't answer, neither by UDP nor by TCP", e.server),
			fmt.Sprintf("perhaps a firewall is in between; try: dig @%s -p %s SOA .", host, port)
	}
	return fmt.Sprintf("%s doesn't answer: %v", e.server, cure.Join(e.failures...)), ""
}

// SameCause reports whether another error says the same of the same server: the network adds ports that differ each time.
func (e *unansweredError) SameCause(other error) bool {
	o, ok := other.(*unansweredError)
	if !ok || e.server != o.server {
		return false
	}
	problem, hint := e.explain()
	theirs, theirHint := o.explain()
	return problem == theirs && hint == theirHint
}

// Outage returns the part of an error that is about the servers that gave no answer, the same for every name that was asked
// for; nil when something else failed too.
func Outage(err error) error {
	unanswered, ok := errors.AsType[*unansweredError](err)
	if !ok || !Silent(err) {
		return nil
	}
	for err := err; err != nil; err = errors.Unwrap(err) {
		if list, ok := err.(cure.Several); ok { // each of several servers is named
			return list
		}
	}
	return unanswered
}

// askFirst asks the servers in turn and returns the first answer that is one: servers that fail, or that refuse the
// name, are passed over.
func askFirst(ctx context.Context, servers []server, q *dns.Msg) (*dns.Msg, error) {
	if len(servers) == 0 {
		return nil, errors.New("there is no server to ask")
	}
	var failures []error
	for _, s := range servers {
		reply, err := ask(ctx, s, q)
		switch {
		case err != nil:
			failures = append(failures, err)
		case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
			failures = append(failures, &refusedQuery{server: s.addr, name: dnsname.Canonical(q.Question[0].Name), rcode: reply.Rcode, recurse: q.RecursionDesired})
		default:
			return reply, nil
		}
	}
	return nil, cure.Join(failures...)
}

// refusedQuery is an answer that says nothing about the name.
type refusedQuery struct {
	server, name string
	rcode        int
	recurse      bool // a resolver was asked
}

// Error returns the answer, and what it may mean.
func (e *refusedQuery) Error() string {
	text := fmt.Sprintf("%s answers %s for %s", e.server, dns.RcodeToString[e.rcode], e.name)
	switch {
	case e.rcode == dns.RcodeRefused, e.rcode == dns.RcodeNotAuth:
		text += ": it serves no zone that holds the name, or not to this machine (zones of the provider; allow-query on the server)"
	case e.rcode == dns.RcodeServerFailure && e.recurse:
		text += ": it finds no server of the zone that answers, or signatures that hold"
	case e.rcode == dns.RcodeServerFailure:
		text += ": it can't load the zone, or the zone has expired there"
	}
	return text
}

// Cure returns where to look.
func (e *refusedQuery) Cure() string {
	switch {
	case e.rcode != dns.RcodeServerFailure:
		return ""
	case e.recurse:
		return "see delv"
	}
	return "on the server: journalctl -u named -n 50"
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
