//go:build linux

package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func startTestBIND(t *testing.T, cfg BINDConfig) *BIND {
	t.Helper()
	cfg.Dir = t.TempDir()
	b, err := StartBIND(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// addTXT is an update that adds the values, each at a name of its own.
func addTXT(t *testing.T, zone string, values ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetUpdate(dns.Fqdn(zone))
	for i, value := range values {
		rr, err := dns.NewRR(fmt.Sprintf("_acme-challenge.h%d.%s. 60 IN TXT %q", i, zone, value))
		if err != nil {
			t.Fatal(err)
		}
		m.Insert([]dns.RR{rr})
	}
	return m
}

// waitTXT looks until the server has exactly the one value at the name.
func waitTXT(t *testing.T, addr, name, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		query := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT)
		resp, _, err := new(dns.Client).ExchangeContext(ctx, query, addr)
		if err == nil && len(resp.Answer) == 1 && resp.Answer[0].(*dns.TXT).Txt[0] == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s has no %q at %s: %v", addr, want, name, err)
		}
	}
}

func TestBIND(t *testing.T) {
	b := startTestBIND(t, BINDConfig{Secondaries: []Secondary{{}, {Poll: time.Second}}, IPv6: hasIPv6()})
	if n := len(b.Servers()); n != 3 {
		t.Fatalf("%d servers", n)
	}
	s := &signer{addr: b.Addr(), key: b.Key("acme-key")}
	steps := []struct {
		name   string
		update *dns.Msg
		rcode  int
	}{
		{"three records in one message", addTXT(t, "example.test", "one", "two", "three"), dns.RcodeSuccess},
		{"second message on the connection", addTXT(t, "example.test", "one"), dns.RcodeSuccess},
		{"foreign zone", addTXT(t, "other.test", "x"), dns.RcodeNotAuth},
	}
	for i, step := range steps {
		if rcode, err := s.send(step.update); rcode != step.rcode {
			t.Fatalf("%s: %s, %v", step.name, dns.RcodeToString[rcode], err)
		}
		if got := b.UpdateMessages(); got != i+1 {
			t.Errorf("%s: %d messages counted, want %d", step.name, got, i+1)
		}
	}
	forger := &signer{addr: b.Addr(), key: TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: "AAAA"}}
	if rcode, _ := forger.send(addTXT(t, "example.test", "forged")); rcode != dns.RcodeNotAuth {
		t.Errorf("forged update: %s", dns.RcodeToString[rcode])
	}
	resp, err := dns.Exchange(addTXT(t, "example.test", "unsigned"), b.Addr())
	if err != nil || resp.Rcode != dns.RcodeRefused {
		t.Errorf("unsigned update: %v, %v", resp, err)
	}
	if got := b.UpdateMessages(); got != 5 {
		t.Errorf("%d messages counted, want 5", got)
	}

	want := map[string][]string{
		"_acme-challenge.h0.example.test": {"one"},
		"_acme-challenge.h1.example.test": {"two"},
		"_acme-challenge.h2.example.test": {"three"},
	}
	if got, err := b.TXT(t.Context(), "example.test"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("TXT: %v, %v", got, err)
	}
	for _, addr := range b.Servers() {
		waitTXT(t, addr, "_acme-challenge.h2.example.test", "three")
	}
	if _, err := b.TXT(t.Context(), "other.test"); err == nil {
		t.Error("transferred a zone that is not there")
	}
	if hasIPv6() {
		_, port, _ := net.SplitHostPort(b.Addr())
		got := play(t, net.JoinHostPort("::1", port), step{msg: ask("ns3.example.test.", dns.TypeAAAA)})
		if got != "NOERROR aa [AAAA ::1] []" {
			t.Errorf("by IPv6: %s", got)
		}
	}
}

func TestBINDKillAndStop(t *testing.T) {
	b := startTestBIND(t, BINDConfig{
		Zones: []BINDZone{
			{Name: "a.test", Records: []string{`www IN CNAME ns1`}, Policy: []string{"grant narrow name _acme-challenge.h0.a.test. TXT"}},
			{Name: "signed.test", Options: []string{"dnssec-policy default;", "inline-signing no;"}},
		},
		Keys:        []TSIGKey{{Name: "narrow", Algorithm: "hmac-sha512"}},
		Secondaries: []Secondary{{Notify: true}},
	})
	send := func(m *dns.Msg, want int) {
		t.Helper()
		s := &signer{addr: b.Addr(), key: b.Key("narrow")}
		if rcode, err := s.send(m); rcode != want {
			t.Fatalf("update: %s, %v", dns.RcodeToString[rcode], err)
		}
	}
	send(addTXT(t, "a.test", "x"), dns.RcodeSuccess)
	send(addTXT(t, "a.test", "x", "beyond the grant"), dns.RcodeRefused)
	send(addTXT(t, "signed.test", "x"), dns.RcodeSuccess)
	waitTXT(t, b.Servers()[1], "_acme-challenge.h0.signed.test", "x")

	if err := b.Stop(0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.TXT(ctx, "a.test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stopped server answered: %v", err)
	}
	if err := b.Continue(0); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.TXT(t.Context(), "a.test"); err == nil {
		t.Error("a dead server answered")
	}
	if err := b.Restart(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	send(addTXT(t, "a.test", "x"), dns.RcodeSuccess)
	if got := b.UpdateMessages(); got != 4 {
		t.Errorf("%d messages counted over a restart, want 4", got)
	}
	if got, err := b.TXT(t.Context(), "a.test"); err != nil || len(got) != 1 {
		t.Errorf("what was acknowledged did not survive: %v, %v", got, err)
	}
	if err := b.Stop(1); err != nil { // Close must manage
		t.Fatal(err)
	}
}

// TestBINDAnswersAlike holds the in-process server to the real one: the same messages, the same answers.
func TestBINDAnswersAlike(t *testing.T) {
	policy := []string{"grant acme-key zonesub ANY", "grant narrow name _acme-challenge.www.example.test. TXT"}
	b := startTestBIND(t, BINDConfig{
		Zones: []BINDZone{{Name: "example.test", Records: extraRecords, Policy: policy}, {Name: "other.test", Policy: policy[:1]}},
		Keys:  testKeys,
	})
	for _, s := range steps() {
		if got := play(t, b.Addr(), s); got != s.want {
			t.Errorf("%s:\n got %s\nwant %s", s.name, got, s.want)
		}
	}
}

func TestBINDKeyFile(t *testing.T) {
	b := startTestBIND(t, BINDConfig{Keys: []TSIGKey{{Name: "k", Secret: "c2VjcmV0"}}})
	text, err := os.ReadFile(b.KeyFile("k"))
	if want := "key \"k\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\";\n};\n"; err != nil || string(text) != want {
		t.Errorf("key file: %q, %v", text, err)
	}
	if info, err := os.Stat(b.KeyFile("k")); err != nil || info.Mode() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
}

func TestBINDStartFails(t *testing.T) {
	_, err := StartBIND(t.Context(), BINDConfig{Dir: t.TempDir(), Zones: []BINDZone{{Name: "a.test", Records: []string{"x IN NOSUCHTYPE y"}}}})
	if err == nil || !strings.Contains(err.Error(), "NOSUCHTYPE") && !strings.Contains(err.Error(), "unknown RR type") {
		t.Errorf("a broken zone file: %v", err)
	}
}

func TestBINDPortTaken(t *testing.T) {
	b := startTestBIND(t, BINDConfig{})
	if err := b.Kill(0); err != nil {
		t.Fatal(err)
	}
	thief, err := net.Listen("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	if err := b.Restart(t.Context(), 0); !errors.Is(err, errPortTaken) {
		t.Errorf("restart on a taken port: %v", err)
	}
}

func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}
