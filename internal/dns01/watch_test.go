package dns01

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/testbed"
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
		for _, server := range unsigned(b.Servers()) {
			reply, err := ask(t.Context(), server, question("_acme-challenge.two.example.test", 16, false))
			if err != nil || !holds(reply, "first") || !holds(reply, "second") {
				t.Errorf("%s: %v %v", server.addr, reply, err)
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
		sol := published(t, onBIND(t, b, func(p *Provider) { p.Check = CheckPrimary }), challenge("primary", "x"))
		if err := sol.Wait(t.Context(), p.seen); err != nil || p.Told()[len(p.Told())-1] != "1/1" {
			t.Errorf("Wait: %v, told %v", err, p.Told())
		}
	})
	t.Run("nobody is asked when nobody is to be", func(t *testing.T) {
		var p progress
		sol := published(t, onBIND(t, b, func(p *Provider) { p.Check = CheckNone }), challenge("none", "x"))
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
	dead := endpoint{addr: b.Servers()[2]}
	alwaysWithin(s, dead, 200*time.Millisecond)
	err := published(t, s, challenge("dead", "x")).Wait(t.Context(), func(int, int) {})
	var late *PropagationError
	if !errors.As(err, &late) || late.Servers != 3 || !slices.ContainsFunc(late.Missing, func(m string) bool {
		return m == dead.addr+" doesn't listen (connection refused) when asked for _acme-challenge.dead.example.test (it usually has records within 250ms)"
	}) {
		t.Errorf("Wait: %v", err)
	}
	if late != nil && late.Have == 2 && !strings.HasSuffix(said(err), "; look at NOTIFY and zone transfers to them and at their port 53, "+
		"or set nameservers to those that the CA can ask, or raise propagation_timeout, or go on without them: min_nameservers = 2") {
		t.Errorf("the cure: %v", err)
	}
	if s.watchers.server(dead).usually() != 0 {
		t.Error("what was usual before the server lagged still is")
	}
	if _, ours := s.watchers.lookup(zoneKey{s.table().providers[0].Name, "example.test"}); !ours {
		t.Error("the zone's servers aren't looked up again after one had no records: it may be gone from the zone")
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

// Records that never come, many of them and in several zones, don't hide those that are there.
func TestWatchFindsWhatIsThereAmongTheMissing(t *testing.T) {
	d := startDNS(t, []string{"example.test", "other.test"},
		`there.example.test. 60 IN TXT "x"`, `there.other.test. 60 IN TXT "x"`)
	p := Provider{Name: "bind", Servers: []string{d.Addr()}, Check: CheckPrimary, PropagationTimeout: patience}
	s := newSolver(nil, p)
	defer closeSolver(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var missing sync.WaitGroup
	defer missing.Wait()
	defer cancel()
	for _, zone := range []string{"example.test", "other.test"} {
		for i := range 40 {
			never := recordKey{"bind", zone, fmt.Sprintf("never%d.%s", i, zone), "x"}
			missing.Go(func() {
				if err := s.watchers.wait(ctx, []recordKey{never}, func(int, int) {}); !errors.Is(err, context.Canceled) {
					t.Errorf("waiting for what never comes: %v", err)
				}
			})
		}
	}
	for _, zone := range []string{"example.test", "other.test"} {
		if err := s.watchers.wait(ctx, []recordKey{{"bind", zone, "there." + zone, "x"}}, func(int, int) {}); err != nil {
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
	s := newSolver(nil, Provider{Name: "bind", Servers: []string{d.Addr()}, Check: CheckPrimary})
	defer closeSolver(t, s)
	last := recordKey{"bind", "example.test", "long.example.test", fmt.Sprintf("%043d", 59)}
	if err := s.watchers.wait(t.Context(), []recordKey{last}, func(int, int) {}); err != nil {
		t.Error(err)
	}
}
