package dns01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/testbed"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// progress notes what Wait tells.
type progress struct {
	mu   sync.Mutex
	told []string
}

func (p *progress) seen(have, want int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, fmt.Sprintf("%d/%d", have, want))
}

func (p *progress) Told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

// onBIND is a solver that writes to a real BIND and waits for all its servers.
func onBIND(t *testing.T, b *testbed.BIND, change func(*Provider)) *Solver {
	t.Helper()
	p := rfc2136(t, b.Addr(), b.Key("acme-key"))
	p.Nameservers = b.Servers()
	p.PropagationTimeout = patience
	if change != nil {
		change(&p)
	}
	s := newSolver(openFiles(t, t.TempDir()), p)
	t.Cleanup(func() { closeSolver(t, s) })
	return s
}

// published is an order whose records the primary has taken.
func published(t *testing.T, s *Solver, records ...issuer.Record) issuer.Solution {
	t.Helper()
	sol := s.Begin()
	t.Cleanup(sol.Remove)
	if err := sol.Publish(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	return sol
}

func challenge(host, value string) issuer.Record {
	return issuer.Record{Name: "_acme-challenge." + host + ".example.test", Value: value}
}

// One BIND with two secondaries serves all subtests, which leave it as they found it.
func TestWatchOnBIND(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{
		Secondaries: []testbed.Secondary{{}, {}},
		Zones:       []testbed.BINDZone{{Name: "example.test", Records: []string{`_acme-challenge.shared IN TXT "of somebody else"`, "_acme-challenge.alias IN CNAME target"}}},
	})
	t.Run("all servers have both values of a name", func(t *testing.T) {
		var p progress
		sol := published(t, onBIND(t, b, nil), challenge("two", "first"), challenge("two", "second"))
		if err := sol.Wait(t.Context(), p.seen); err != nil {
			t.Fatal(err)
		}
		if told := p.Told(); told[len(told)-1] != "3/3" {
			t.Errorf("told %v", told)
		}
		for _, server := range b.Servers() {
			got := values(txtAt(t, server, "_acme-challenge.two.example.test"))
			if !slices.Contains(got, "first") || !slices.Contains(got, "second") {
				t.Errorf("%s: %q", server, got)
			}
		}
	})
	t.Run("a frozen server holds the order up until it goes on", func(t *testing.T) { testFrozen(t, b) })
	t.Run("a dead server is named", func(t *testing.T) { testDead(t, b) })
	t.Run("resolvers are asked when all servers have the record", func(t *testing.T) { testResolvers(t, b) })
	t.Run("the primary is enough when it is to be", func(t *testing.T) {
		if err := b.Stop(1); err != nil {
			t.Fatal(err)
		}
		defer b.Continue(1)
		var p progress
		sol := published(t, onBIND(t, b, func(p *Provider) { p.Check = zones.CheckPrimary }), challenge("primary", "x"))
		if err := sol.Wait(t.Context(), p.seen); err != nil || p.Told()[len(p.Told())-1] != "1/1" {
			t.Errorf("Wait: %v, told %v", err, p.Told())
		}
	})
	t.Run("nobody is asked when nobody is to be", func(t *testing.T) {
		var p progress
		sol := published(t, onBIND(t, b, func(p *Provider) { p.Check = zones.CheckNone }), challenge("none", "x"))
		if err := sol.Wait(t.Context(), p.seen); err != nil || len(p.Told()) != 0 {
			t.Errorf("Wait: %v, told %v", err, p.Told())
		}
	})
	t.Run("an order that is given up stops waiting", func(t *testing.T) {
		if err := b.Stop(1); err != nil {
			t.Fatal(err)
		}
		defer b.Continue(1)
		sol := published(t, onBIND(t, b, nil), challenge("cancelled", "x"))
		ctx, cancel := context.WithCancel(t.Context())
		if err := sol.Wait(ctx, func(have, _ int) {
			if have == 2 {
				cancel()
			}
		}); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait: %v", err)
		}
	})
	t.Run("an update without effect is noticed at the primary", func(t *testing.T) { testIgnored(t, b) })
	t.Run("a value of somebody else stays", func(t *testing.T) { testStranger(t, b) })

	left, err := b.TXT(t.Context(), "example.test")
	if err != nil || len(left) != 1 || len(left["_acme-challenge.shared.example.test"]) != 1 {
		t.Errorf("in the end the zone holds %v, %v; want what somebody else put there", left, err)
	}
}

func testFrozen(t *testing.T, b *testbed.BIND) {
	if err := b.Stop(2); err != nil {
		t.Fatal(err)
	}
	defer b.Continue(2)
	var p progress
	sol := published(t, onBIND(t, b, nil), challenge("frozen", "x"))
	result := make(chan error, 1)
	go func() { result <- sol.Wait(t.Context(), p.seen) }()
	eventually(t, "two of three servers are seen", func() bool { return slices.Contains(p.Told(), "2/3") })
	select {
	case err := <-result:
		t.Fatalf("Wait ended while a server was frozen: %v", err)
	default:
	}
	if err := b.Continue(2); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
	if told := p.Told(); told[len(told)-1] != "3/3" {
		t.Errorf("told %v", told)
	}
}

func testDead(t *testing.T, b *testbed.BIND) {
	if err := b.Kill(2); err != nil {
		t.Fatal(err)
	}
	s := onBIND(t, b, func(p *Provider) { p.PropagationTimeout = time.Second })
	dead := b.Servers()[2]
	err := published(t, s, challenge("dead", "x")).Wait(t.Context(), func(int, int) {})
	var late *zones.PropagationError
	if !errors.As(err, &late) || late.Servers != 3 || !slices.ContainsFunc(late.Missing, func(m string) bool {
		return m == dead+" doesn't listen (connection refused) when asked for _acme-challenge.dead.example.test"
	}) {
		t.Errorf("Wait: %v", err)
	}
	if late != nil && late.Have == 2 && !strings.HasSuffix(said(err), "; look at NOTIFY and zone transfers to them and at their port 53, "+
		"or set nameservers to those that the CA can ask, or raise propagation_timeout, or go on without them: min_nameservers = 2") {
		t.Errorf("the cure: %v", err)
	}
	testTolerated(t, b)
	if err := b.Restart(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
}

// testTolerated finds the last server dead.
func testTolerated(t *testing.T, b *testbed.BIND) {
	if err := b.Stop(1); err != nil {
		t.Fatal(err)
	}
	defer b.Continue(1)
	s := onBIND(t, b, func(p *Provider) { p.MinNameservers = 2 })
	var p progress
	sol := published(t, s, challenge("tolerated", "x"), challenge("tolerated", "y"))
	result := make(chan error, 1)
	go func() { result <- sol.Wait(t.Context(), p.seen) }()
	eventually(t, "the primary is seen", func() bool { return slices.Contains(p.Told(), "1/3") })
	select {
	case err := <-result:
		t.Fatalf("with min_nameservers = 2, Wait ended when one server had the records: %v", err)
	default:
	}
	if err := b.Continue(1); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil || p.Told()[len(p.Told())-1] != "2/3" {
		t.Errorf("with min_nameservers = 2: %v, told %v", err, p.Told())
	}
}

// BIND takes an update at the name of an alias and ignores it (RFC 2136, 3.4.2.2).
func testIgnored(t *testing.T, b *testbed.BIND) {
	s := onBIND(t, b, func(p *Provider) { p.PropagationTimeout = time.Second })
	sol := begin(s)
	defer sol.Remove()
	mustSubmit(t, sol, key("alias", "x"))
	err := sol.Wait(t.Context(), func(int, int) {})
	if err == nil || !strings.Contains(said(err), b.Addr()+" has a CNAME in the way, beside which no TXT record can be (BIND takes the update and ignores it: remove the CNAME, or let it lead to a zone of a provider) when asked for _acme-challenge.alias.example.test") {
		t.Errorf("Wait: %v", err)
	}
}

func testStranger(t *testing.T, b *testbed.BIND) {
	s := onBIND(t, b, nil)
	sol := published(t, s, challenge("shared", "ours"))
	if err := sol.Wait(t.Context(), func(int, int) {}); err != nil {
		t.Fatal(err)
	}
	txt := func() []string {
		all, err := b.TXT(t.Context(), "example.test")
		if err != nil {
			t.Fatal(err)
		}
		return all["_acme-challenge.shared.example.test"]
	}
	if len(txt()) != 2 {
		t.Errorf("while we need ours: %q", txt())
	}
	sol.Remove()
	eventually(t, "ours is gone", func() bool { return s.Left() == 0 })
	if got := txt(); !slices.Equal(got, []string{"of somebody else"}) {
		t.Errorf("afterwards: %q", got)
	}
}

// A secondary that polls holds the order up, and not for longer than it must.
func TestWatchLateServerOnBIND(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Secondaries: []testbed.Secondary{{}, {Poll: 5 * time.Second}}})
	s := onBIND(t, b, nil)
	wait := func(host string) (late time.Duration) {
		sol := published(t, s, challenge(host, "x"))
		has := make(chan time.Time, 1)
		go func() {
			for t.Context().Err() == nil && !slices.Contains(values(txtAt(t, b.Servers()[2], "_acme-challenge."+host+".example.test")), "x") {
				time.Sleep(time.Millisecond)
			}
			has <- time.Now()
		}()
		if err := sol.Wait(t.Context(), func(int, int) {}); err != nil {
			t.Fatal(err)
		}
		ended := time.Now()
		return ended.Sub(<-has)
	}
	wait("first") // ends when the secondary has just polled, so that the next record is as late as can be
	var late time.Duration
	for _, host := range []string{"second", "third", "fourth"} { // somebody else may have the processor
		if late = wait(host); late <= 500*time.Millisecond {
			break
		}
	}
	t.Logf("the last server had the record %s before Wait ended", late)
	if late > 500*time.Millisecond {
		t.Error("that is more than half a second")
	}
}

// forwarderConf is a resolver that asks the server for everything, and logs what it is asked.
const forwarderConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion yes; dnssec-validation no; empty-zones-enable no; querylog yes; max-cache-size 8m;
	forward only; forwarders { 127.0.0.1 port {{.Data}}; };
};
controls { };
`

// startSlow starts a name server that has the value "x" at every name as soon as has says so, by how often it was asked.
func startSlow(t *testing.T, has func(asked int) bool) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		if has(int(asked.Add(1)) - 1) {
			reply.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"x"}}}
		}
		_ = w.WriteMsg(reply)
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

// testResolvers has a real resolver, and a server that takes its time.
func testResolvers(t *testing.T, b *testbed.BIND) {
	queries := &logged{}
	resolver, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: t.TempDir(), Conf: forwarderConf, Log: queries,
		Data: b.Addr()[strings.LastIndexByte(b.Addr(), ':')+1:]})
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	asked := func() int { return queries.Count("query: _acme-challenge.resolved.example.test IN TXT") }
	var early atomic.Int32
	slow := startSlow(t, func(n int) bool {
		early.Store(int32(asked()))
		return n >= 10
	})
	p := rfc2136(t, b.Addr(), b.Key("acme-key"))
	p.Nameservers, p.Check, p.PropagationTimeout = []string{b.Addr(), slow}, zones.CheckResolvers, patience
	s := New(Config{Storage: openFiles(t, t.TempDir())})
	s.Adopt(s.With([]Provider{p}, []string{resolver.Addr()}))
	defer closeSolver(t, s)
	sol := s.Begin()
	defer sol.Remove()
	if err := sol.Publish(t.Context(), []issuer.Record{challenge("resolved", "x")}); err != nil {
		t.Fatal(err)
	}
	var told progress
	if err := sol.Wait(t.Context(), told.seen); err != nil {
		t.Fatal(err)
	}
	if n := early.Load(); n != 0 {
		t.Errorf("the resolver was asked %d times before all servers had the record", n)
	}
	eventually(t, "the resolver was asked", func() bool { return asked() > 0 })
	if all := told.Told(); all[len(all)-1] != "3/3" {
		t.Errorf("told %v", all)
	}
}

// All that is wrong with an order's names is said in one line, once, and nothing of the order is published.
func TestPublishSaysWhatItCannotLocate(t *testing.T) {
	d := startDNS(t, nil)
	s := New(Config{Zones: zones.New(zones.Config{System: func() ([]string, error) { return nil, errors.New("not here") }})})
	configure(s, rfc2136(t, d.Addr(), d.Key("acme-key")))
	defer closeSolver(t, s)
	sol := s.Begin()
	defer sol.Remove()
	var records []issuer.Record
	for _, host := range []string{"good.example.test", "a.x", "b.x", "b.x", "c.x", "d.x", "e.x"} {
		records = append(records, issuer.Record{Name: "_acme-challenge." + host, Value: "v"})
	}
	err := sol.Publish(t.Context(), records)
	var none *zones.NoProviderError
	if !errors.As(err, &none) || strings.Count(err.Error(), "b.x") != 1 || strings.Contains(err.Error(), "\n") || !strings.HasSuffix(err.Error(), "; and 2 more") {
		t.Errorf("Publish: %v", err)
	}
	if d.Updates() != 0 {
		t.Error("something was published")
	}
}

// Servers log a signature that is wrong as an attack. The questions of many orders share a socket.
func TestSignedQuestionsOnBIND(t *testing.T) {
	log := &logged{}
	b := startBIND(t, testbed.BINDConfig{Secondaries: []testbed.Secondary{{}}, Log: log})
	s := onBIND(t, b, func(p *Provider) { p.MinNameservers = 1 })
	sol := begin(s)
	defer sol.Remove()
	var records []zones.TXT
	for i := range 20 {
		records = append(records, key(fmt.Sprintf("signed%d", i), "x"))
	}
	mustSubmit(t, sol, records...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := sol.Wait(ctx, func(int, int) {}); err != nil {
		t.Error(err)
	}
	if n := log.Count("BADSIG") + log.Count("invalid signature"); n > 0 {
		t.Errorf("the server found %d signatures wrong", n)
	}
}
