package zones

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// moody is a name server that has the value "x" at every name, and admits it or doesn't.
type moody struct {
	addr  string
	admit func(n int) bool // is told how often it was asked before

	mu    sync.Mutex
	value string // another than "x"
	given []bool
}

func startMoody(t *testing.T, admit func(n int) bool) *moody {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{addr: conn.LocalAddr().String(), admit: admit}
	serve(t, &dns.Server{PacketConn: conn, Handler: m})
	return m
}

// serve runs a name server until the test ends.
func serve(t *testing.T, server *dns.Server) {
	t.Helper()
	started, ended := make(chan struct{}), make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(ended)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-ended
	})
}

// ServeDNS implements dns.Handler.
func (m *moody) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m.mu.Lock()
	defer m.mu.Unlock()
	reply := new(dns.Msg).SetReply(q)
	admitted := m.admit(len(m.given))
	m.given = append(m.given, admitted)
	if admitted {
		reply.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{cmp.Or(m.value, "x")}}}
	}
	_ = w.WriteMsg(reply)
}

// Given are its answers so far.
func (m *moody) Given() []bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.given)
}

// The time lost is that from the moment when a server has a record to the next look.
func TestPause(t *testing.T) {
	for _, tt := range []struct{ late, most time.Duration }{
		{0, 50 * time.Millisecond},
		{time.Second, 100 * time.Millisecond},
		{3 * time.Second, 200 * time.Millisecond},
		{10 * time.Second, 250 * time.Millisecond},
		{56 * time.Second, time.Second},
		{time.Hour, time.Second},
	} {
		looked := time.Duration(0)
		lost := time.Duration(0) // at most, for a server that is late by up to so much
		for looked <= tt.late {
			step := pause(looked)
			if step < watchSoonest {
				t.Fatalf("asked again after %s", step)
			}
			looked += step
			lost = max(lost, step)
		}
		if lost > tt.most {
			t.Errorf("a server that is late by up to %s costs %s more, want at most %s", tt.late, lost, tt.most)
		}
	}
}

// The same on a clock, with questions and answers.
func TestTimeLost(t *testing.T) {
	for _, tt := range []struct {
		misses int
		most   time.Duration
	}{{3, 50 * time.Millisecond}, {60, 250 * time.Millisecond}, {110, time.Second}} {
		m := startMoody(t, func(n int) bool { return n >= tt.misses })
		synctest.Test(t, func(t *testing.T) {
			s := asking(nil, Provider{Name: "bind", Nameservers: []string{m.addr}, PropagationTimeout: time.Hour})
			defer s.Close()
			begin := time.Now()
			if err := s.Wait(t.Context(), []TXT{key("late", "x")}, func(int, int) {}); err != nil {
				t.Error(err)
			}
			took := time.Since(begin)
			before := time.Duration(0) // the last look that found nothing
			for range tt.misses - 1 {
				before += pause(before)
			}
			if lost := took - before; lost > tt.most {
				t.Errorf("found after %s, and looked for the last time %s before, want at most %s", took, lost, tt.most)
			}
		})
	}
}

// Only a few missing records are asked about in a round, so the order decides whether one is seen twice in a row.
func TestPendingOrder(t *testing.T) {
	items := []*item{
		{turn: 3, last: "third"},
		{turn: 1, last: "second"},
		{turn: 0, seen: true},
		{turn: 5, hits: 1, last: "first"},
		{turn: 0, gone: true},
	}
	var order []string
	for _, it := range (&watched{items: items}).pending() {
		order = append(order, it.last)
	}
	if !slices.Equal(order, []string{"first", "second", "third"}) {
		t.Errorf("asked about in the order %q", order)
	}
}

func TestWatchSettles(t *testing.T) {
	// As two machines behind one address, one of which is late.
	m := startMoody(t, func(n int) bool { return n%2 == 0 || n > 6 })
	s := asking(nil, Provider{Name: "bind", Nameservers: []string{m.addr}, Settle: true, PropagationTimeout: patience})
	defer s.Close()
	if err := s.Wait(t.Context(), []TXT{key("settled", "x")}, func(int, int) {}); err != nil {
		t.Fatal(err)
	}
	given := m.Given()
	if n := len(given); n < 8 || !given[n-1] || !given[n-2] {
		t.Errorf("it ended after the answers %v", given)
	}
}

// The second look comes soon, however long the first sighting took.
func TestWatchSettlesSoon(t *testing.T) {
	const misses = 80
	took := func(settle bool) (took time.Duration) {
		m := startMoody(t, func(n int) bool { return n >= misses })
		synctest.Test(t, func(t *testing.T) {
			s := asking(nil, Provider{Name: "bind", Nameservers: []string{m.addr}, Settle: settle, PropagationTimeout: 24 * time.Hour})
			begin := time.Now()
			if err := s.Wait(t.Context(), []TXT{key("soon", "x")}, func(int, int) {}); err != nil {
				t.Error(err)
			}
			took = time.Since(begin)
			s.Close()
		})
		return took
	}
	once, twice := took(false), took(true)
	if once < 10*time.Second || twice-once != watchSoonest {
		t.Errorf("once %s, twice %s", once, twice)
	}
}

// Where a firewall lets nothing but TCP through, the records are seen by TCP.
func TestWatchByTCP(t *testing.T) {
	stream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{addr: stream.Addr().String(), admit: func(n int) bool { return n >= 2 }}
	serve(t, &dns.Server{Listener: stream, Handler: m}) // nothing listens by UDP
	s := asking(nil, Provider{Name: "bind", Nameservers: []string{m.addr}, PropagationTimeout: patience})
	defer s.Close()
	if err := s.Wait(t.Context(), []TXT{key("streamed", "x")}, func(int, int) {}); err != nil {
		t.Fatal(err)
	}
}

// nobody is an address where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

// In networks where only resolvers may be asked, check = "resolvers" goes by them alone. A primary that took the update must
// have the records all the same, and so must servers when one of them can be asked.
func TestWatchBehindFirewall(t *testing.T) {
	has, hasNot := startMoody(t, func(int) bool { return true }), startMoody(t, func(int) bool { return false })
	dead, other := nobody(t), nobody(t)
	tests := []struct {
		name     string
		provider Provider
		resolver string
		want     string // in the error; "" for none
	}{
		{"the resolver has the record", Provider{Nameservers: []string{dead, other}, Check: CheckResolvers}, has.addr, ""},
		{"the resolver hasn't", Provider{Nameservers: []string{dead, other}, Check: CheckResolvers}, hasNot.addr, "resolver " + hasNot.addr + " has no TXT record"},
		{"the primary has it, too", Provider{Servers: []string{has.addr}, Nameservers: []string{dead}, Check: CheckResolvers}, has.addr, ""},
		{"the primary hasn't", Provider{Servers: []string{hasNot.addr}, Nameservers: []string{dead}, Check: CheckResolvers}, has.addr, hasNot.addr + " has no TXT record"},
		{"one server can be asked", Provider{Nameservers: []string{dead, hasNot.addr}, Check: CheckResolvers}, has.addr, hasNot.addr + " has no TXT record"},
		{"nobody said that resolvers do", Provider{Nameservers: []string{dead, other}}, has.addr,
			`where a firewall lets this machine ask resolvers only: check = "resolvers", and their addresses in [resolvers] public`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.provider.Name = "bind"
				s := asking([]string{tt.resolver}, tt.provider)
				defer s.Close()
				err := s.Wait(t.Context(), []TXT{key("walled", "x")}, func(int, int) {})
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(said(err), tt.want)) {
					t.Errorf("%v, want %q", err, tt.want)
				}
			})
		})
	}
}

// That an order waits for a server is told before it has waited in vain, and once for all who wait.
func TestWatchTellsOfLaggards(t *testing.T) {
	m := startMoody(t, func(int) bool { return false })
	log := &logged{}
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Logger: log.Logger()}).With([]Provider{{Name: "bind", Nameservers: []string{m.addr}}}, nil)
		defer s.Close()
		var orders sync.WaitGroup
		for _, host := range []string{"a", "b", "c"} {
			orders.Go(func() { _ = s.Wait(t.Context(), []TXT{key(host, "x")}, func(int, int) {}) })
		}
		time.Sleep(warnAfter + time.Second)
		if n := log.Count("waiting for servers that lack the records"); n != 1 {
			t.Errorf("told %d times:\n%s", n, &log.text)
		}
		if want := `lacking="` + m.addr + " has no TXT record when asked for _acme-challenge."; log.Count(want) != 1 {
			t.Errorf("it doesn't say %s:\n%s", want, &log.text)
		}
		orders.Wait()
	})
}

// A zone with very many servers makes no line that is longer than anybody reads.
func TestManyLaggards(t *testing.T) {
	q := &quorum{provider: Provider{Name: "bind"}, records: []TXT{key("a", "x")}}
	for i := range 1000 {
		m := &member{endpoint: endpoint{server: server{addr: "192.0.2.1:53"}, name: fmt.Sprintf("ns%d.%s.example.test", i, strings.Repeat("x", 60))}, watched: &watched{}}
		m.items = []*item{{TXT: q.records[0], last: "doesn't answer", silent: true}}
		q.members = append(q.members, m)
	}
	if err := laggards([]*quorum{q}, time.Minute); err == nil || len(said(err)) > 2000 || !strings.Contains(said(err), "and 995 more") {
		t.Errorf("%d characters: %.300s", len(fmt.Sprint(err)), fmt.Sprint(err))
	}
}

// Servers are waited for as long as propagation_timeout says.
func TestWatchDeadline(t *testing.T) {
	m := startMoody(t, func(int) bool { return false })
	synctest.Test(t, func(t *testing.T) {
		s := asking(nil, Provider{Name: "bind", Nameservers: []string{m.addr}})
		defer s.Close()
		want := "after 2m0s, 0 of 1 servers have the records: " + m.addr + " has no TXT record when asked for _acme-challenge.late.example.test; " +
			"look at NOTIFY and zone transfers to them and at their port 53, or set nameservers to those that the CA can ask, or raise propagation_timeout"
		begin := time.Now()
		err := s.Wait(t.Context(), []TXT{key("late", "x")}, func(int, int) {})
		if err == nil || said(err) != want || time.Since(begin) != 2*time.Minute {
			t.Errorf("after %s: %v\nwant: %s", time.Since(begin), err, want)
		}
	})
}

// A resolver that keeps saying that there is nothing is named, and so is the lack of any.
func TestWatchLateResolver(t *testing.T) {
	has, resolver := startMoody(t, func(int) bool { return true }), startMoody(t, func(int) bool { return false })
	stale := startMoody(t, func(int) bool { return true })
	stale.mu.Lock()
	stale.value = "before"
	stale.mu.Unlock()
	tests := []struct {
		name      string
		resolvers []string
		want      string
	}{
		{"one that lags", []string{resolver.addr}, "after 2m0s, 0 of 1 servers have the records: resolver " + resolver.addr +
			" has no TXT record when asked for _acme-challenge.cached.example.test; a resolver remembers for a while that there was no record " +
			`(the last number of the zone's SOA): wait, or set check = "authoritative", or raise propagation_timeout`},
		{"one that remembers", []string{stale.addr}, "after 2m0s, 0 of 1 servers have the records: resolver " + stale.addr +
			" has other values only when asked for _acme-challenge.cached.example.test; a resolver remembers the records that were there before, " +
			`for as long as their TTL says: wait, or set check = "authoritative", or raise propagation_timeout`},
		{"none", nil, `provider "bind" wants resolvers to be asked, and none is configured; name some: [resolvers] public = ["ADDRESS"]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := asking(tt.resolvers, Provider{Name: "bind", Nameservers: []string{has.addr}, Check: CheckResolvers})
				defer s.Close()
				err := s.Wait(t.Context(), []TXT{key("cached", "x")}, func(int, int) {})
				if err == nil || said(err) != tt.want {
					t.Errorf("%v\nwant: %s", err, tt.want)
				}
			})
		})
	}
}

// Records that never come, many of them and in several zones, don't hide those that are there.
func TestWatchFindsWhatIsThereAmongTheMissing(t *testing.T) {
	d := startDNS(t, []string{"example.test", "other.test"},
		`there.example.test. 60 IN TXT "x"`, `there.other.test. 60 IN TXT "x"`)
	p := Provider{Name: "bind", Servers: []string{d.Addr()}, Check: CheckPrimary, PropagationTimeout: patience}
	s := asking(nil, p)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var missing sync.WaitGroup
	defer missing.Wait()
	defer cancel()
	for _, zone := range []string{"example.test", "other.test"} {
		for i := range 40 {
			never := TXT{"bind", zone, fmt.Sprintf("never%d.%s", i, zone), "x"}
			missing.Go(func() {
				if err := s.Wait(ctx, []TXT{never}, func(int, int) {}); !errors.Is(err, context.Canceled) {
					t.Errorf("waiting for what never comes: %v", err)
				}
			})
		}
	}
	for _, zone := range []string{"example.test", "other.test"} {
		if err := s.Wait(ctx, []TXT{{"bind", zone, "there." + zone, "x"}}, func(int, int) {}); err != nil {
			t.Error(err)
		}
	}
}

// What can't be had by UDP is asked for by TCP.
func TestWatchLongAnswer(t *testing.T) {
	var records []string
	for i := range 60 {
		records = append(records, fmt.Sprintf("long.example.test. 60 IN TXT %q", fmt.Sprintf("%043d", i)))
	}
	d := startDNS(t, nil, records...)
	s := asking(nil, Provider{Name: "bind", Servers: []string{d.Addr()}, Check: CheckPrimary})
	defer s.Close()
	last := TXT{"bind", "example.test", "long.example.test", fmt.Sprintf("%043d", 59)}
	if err := s.Wait(t.Context(), []TXT{last}, func(int, int) {}); err != nil {
		t.Error(err)
	}
}
