//go:build linux

package preflight

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/miekg/dns"

	"autocertd/internal/dns01"
	"autocertd/internal/secret"
	"autocertd/internal/store/files"
	"autocertd/internal/testbed"
	"autocertd/internal/zones"
	"autocertd/providers"
)

// onBIND is a provider that writes to a server with a key.
func onBIND(t *testing.T, addr string, k testbed.TSIGKey, served ...string) dns01.Provider {
	t.Helper()
	text := fmt.Sprintf("server = %q\nkey_name = %q\nkey_alg = %q\nkey = %q", addr, k.Name, k.Algorithm, k.Secret)
	p, err := providers.New("rfc2136", providers.Options{Decode: func(dst any) error { return toml.Unmarshal([]byte(text), dst) }})
	if err != nil {
		t.Fatal(err)
	}
	return dns01.Provider{
		Provider: zones.Provider{
			Name:               "bind",
			Servers:            p.Servers,
			Zones:              served,
			PropagationTimeout: time.Second,
			Key:                &zones.Key{Name: k.Name, Algorithm: k.Algorithm, Secret: secret.New(k.Secret)},
		},
		Client: p.Client,
	}
}

// lookingFor is a check of the hostnames, each in a certificate of its own.
func lookingFor(t *testing.T, resolvers, hostnames []string, list ...dns01.Provider) Config {
	t.Helper()
	files, err := files.Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	s := dns01.New(dns01.Config{
		Storage: files,
		Zones:   zones.New(zones.Config{System: func() ([]string, error) { return []string{"127.0.0.1:1"}, nil }}), // where nothing listens
	})
	s.Adopt(s.With(list, resolvers))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	cfg := Config{Solver: s, Progress: func(string, string) {}}
	for _, h := range hostnames {
		cfg.Certificates = append(cfg.Certificates, Certificate{Name: h, Hostnames: []string{h}, CAs: []string{"le"}})
	}
	return cfg
}

func startBIND(t *testing.T, cfg testbed.BINDConfig) *testbed.BIND {
	t.Helper()
	cfg.Dir = t.TempDir()
	b, err := testbed.StartBIND(t.Context(), cfg)
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

// about returns the findings about a subject, one line each.
func about(list []Finding, subject, check string) (lines []string) {
	for _, f := range list {
		if f.Subject == subject && f.Check == check {
			lines = append(lines, fmt.Sprintf("%s: %s | %s", f.Status, f.Text, strings.ReplaceAll(f.Cure, "\n", " | ")))
		}
	}
	return lines
}

// expected is a finding of which the words are known, in their order.
type expected struct {
	subject, check string
	words          []string // of its one line; nil: there is no such finding
}

func (e expected) in(t *testing.T, list []Finding) {
	t.Helper()
	lines := about(list, e.subject, e.check)
	if e.words == nil && len(lines) == 0 {
		return
	}
	if len(lines) != 1 || e.words == nil {
		t.Errorf("%s, %s: %q", e.subject, e.check, lines)
		return
	}
	rest := lines[0]
	for _, w := range e.words {
		var ok bool
		if _, rest, ok = strings.Cut(rest, w); !ok {
			t.Errorf("%s, %s:\n%s\ndoesn't say %q", e.subject, e.check, lines[0], w)
			return
		}
	}
}

// resolverConf is a resolver that asks our server for everything, and knows that one of its zones must be signed.
const resolverConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion yes; empty-zones-enable no; servfail-ttl 0; dnssec-validation yes;
	forward only; forwarders { 127.0.0.1 port {{.Data}}; };
};
controls { };
trust-anchors { "broken.test" static-ds 4711 13 2 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"; };
`

// startSite starts a server whose zones have all that may go well or wrong, and the resolver.
func startSite(t *testing.T) (b *testbed.BIND, resolver string) {
	t.Helper()
	b = startBIND(t, testbed.BINDConfig{
		Zones: []testbed.BINDZone{
			{Name: "test", Records: []string{`@ IN CAA 0 issue "top.invalid"`}},
			{Name: "acme.test"},
			{Name: "broken.test"},
			{Name: "example.test", Policy: []string{
				"grant acme-key name _acme-challenge.www.example.test. TXT", "grant acme-key name _acme-challenge.example.test. TXT",
				"grant acme-key name _acme-challenge.a.wild.example.test. TXT"},
				Records: []string{
					"_acme-challenge.moved IN CNAME moved.acme.test.",
					"_acme-challenge.lost  IN CNAME lost.elsewhere.test.",
					"_acme-challenge.ring  IN CNAME _acme-challenge.ring",
					"*.wild IN CNAME www",
					"part IN NS ns.elsewhere.test.",
					`@      IN CAA 0 issue "ca.invalid; accounturi=https://ca.invalid/acct/1; validationmethods=dns-01"`,
					`@      IN CAA 0 issuewild ";"`,
					`moved  IN CAA 0 issue "ca.invalid; accounturi=https://ca.invalid/acct/2"`,
					`ftp    IN CAA 0 issue "ca.invalid; validationmethods=http-01"`,
				}},
		},
		Secondaries: make([]testbed.Secondary, 1),
	})
	_, port, _ := net.SplitHostPort(b.Addr())
	n, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: t.TempDir(), Conf: resolverConf, Data: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, n.Addr()
}

func TestOnBIND(t *testing.T) {
	b, resolver := startSite(t)
	p := onBIND(t, b.Addr(), b.Key("acme-key"), "example.test", "acme.test", "broken.test")
	p.Nameservers, p.PropagationTimeout = b.Servers(), time.Minute
	hosts := []string{"*.example.test", "example.test", "www.example.test", "a.wild.example.test", "moved.example.test",
		"ftp.example.test", "lost.example.test", "ring.example.test", "host.part.example.test", "host.broken.test"}
	cfg := lookingFor(t, []string{resolver}, hosts, p)

	var sets map[string]relevant
	t.Run("challenges and zones", func(t *testing.T) {
		var list []Finding
		list, sets = cfg.checkDNS(t.Context())
		for _, e := range []expected{
			{"*.example.test", "update", []string{"ok: provider bind writes into zone example.test | "}},
			{"example.test", "update", nil}, // the wildcard has the same challenge
			{"www.example.test", "update", []string{"ok: provider bind writes into zone example.test"}},
			{"a.wild.example.test", "alias", []string{"ok: a wildcard CNAME to www.example.test answers for the challenge name; it isn't followed"}},
			{"a.wild.example.test", "update", []string{"ok: provider bind writes into zone example.test"}},
			{"moved.example.test", "alias", []string{"ok: _acme-challenge.moved.example.test -> moved.acme.test | "}},
			{"moved.example.test", "update", []string{"ok: provider bind writes into zone acme.test"}},
			{"ftp.example.test", "update", []string{"failure: ", `forbids TSIG key "acme-key" to write TXT at _acme-challenge.ftp.example.test (REFUSED) | `,
				"grant acme-key name _acme-challenge.ftp.example.test. TXT;"}},
			{"lost.example.test", "zone", []string{"failure: no provider serves _acme-challenge.lost.example.test -> lost.elsewhere.test, which is in zone test | ",
				`zones = ["test"]`}},
			{"ring.example.test", "zone", []string{"failure: ", "the CNAMEs go round in a circle", "dig CNAME _acme-challenge.ring.example.test"}},
			{"host.part.example.test", "zone", []string{"failure: no provider serves _acme-challenge.host.part.example.test, which is in zone part.example.test, delegated to other servers | ",
				`zones = ["part.example.test"]`}},
			{"host.broken.test", "update", []string{"ok: provider bind writes into zone broken.test"}},
			{"example.test", "servers", []string{"ok: the record is at " + b.Servers()[0] + " within ", b.Servers()[1] + " within "}},
			{"acme.test", "servers", []string{"ok: the record is at " + b.Servers()[0] + " within ", b.Servers()[1] + " within "}},
			{"example.test", "views", []string{"ok: all who were asked say that its name servers are ns1.example.test, ns2.example.test; a new record is seen by " + b.Addr() + " without a key, resolver " + resolver + " | "}},
			{"acme.test", "views", []string{"ok: all who were asked say that its name servers are ns1.acme.test, ns2.acme.test"}},
			{"broken.test", "views", []string{"warning: ", "with the key acme-key and " + b.Addr() + " without a key: on ns1.broken.test, ns2.broken.test; resolver " + resolver + ": ", "SERVFAIL"}},
			{"example.test", "DNSSEC", []string{"ok: not signed; " + resolver + " doesn't validate"}},
			{"broken.test", "DNSSEC", []string{"failure: resolver " + resolver + " finds the signatures of broken.test bogus", " | delv @127.0.0.1 -p ", " +rtrace +vtrace SOA broken.test | rndc dnssec -status broken.test"}},
		} {
			e.in(t, list)
		}
		for _, f := range list {
			if (f.Status == OK) != (f.Why == "") || (f.Status == OK) != (f.Cure == "") {
				t.Errorf("%+v", f)
			}
		}
		first := slices.IndexFunc(list, func(f Finding) bool { return f.Subject == "www.example.test" })
		if last := slices.IndexFunc(list, func(f Finding) bool { return f.Subject == "ftp.example.test" }); first > last {
			t.Error("the findings are not in the order of the configuration")
		}
	})

	t.Run("CAA", func(t *testing.T) {
		ours := authority{name: "le", identities: []string{"ca.invalid"}, account: "https://ca.invalid/acct/1"}
		list := cfg.judgeAllCAA([]authority{{name: "not asked", identities: []string{"x"}}, ours}, sets)
		const value = ` "ca.invalid; accounturi=https://ca.invalid/acct/1; validationmethods=dns-01"`
		for _, e := range []expected{
			{"example.test", "CAA", []string{"ok: CAA at example.test allows ca.invalid"}},
			{"www.example.test", "CAA", []string{"ok: CAA at example.test allows ca.invalid"}},
			{"*.example.test", "CAA", []string{"failure: CAA at example.test forbids every CA to issue for wildcards", "example.test. 300 IN CAA 0 issuewild" + value}},
			{"moved.example.test", "CAA", []string{"failure: ", "only for account https://ca.invalid/acct/2, not for ours, which is https://ca.invalid/acct/1",
				"moved.example.test. 300 IN CAA 0 issue" + value}},
			{"ftp.example.test", "CAA", []string{"failure: ", "only by http-01, not by dns-01", "ftp.example.test. 300 IN CAA 0 issue" + value}},
			{"host.broken.test", "CAA", []string{"failure: the CAA records of host.broken.test can't be looked up: " + resolver + " answers SERVFAIL"}},
		} {
			e.in(t, list)
		}
	})

	t.Run("another secret", func(t *testing.T) {
		key := b.Key("acme-key")
		key.Secret = base64.StdEncoding.EncodeToString(make([]byte, 32))
		cfg := lookingFor(t, nil, []string{"www.example.test"}, onBIND(t, b.Addr(), key, "example.test"))
		list, sets := cfg.checkDNS(t.Context())
		list = append(list, cfg.judgeAllCAA([]authority{{name: "le"}}, sets)...)
		expected{"www.example.test", "update", []string{"failure: ", "(BADSIG)"}}.in(t, list)
		expected{"www.example.test", "CAA", nil}.in(t, list) // the same cause
	})

	t.Run("CAA at the top, without a resolver", func(t *testing.T) {
		p := onBIND(t, b.Addr(), b.Key("acme-key"))
		ours := authority{name: "le", identities: []string{"ca.invalid"}}
		look := func(ca authority) []Finding {
			cfg := lookingFor(t, nil, []string{"a.acme.test", "b.acme.test"}, p)
			_, sets := cfg.checkDNS(t.Context())
			return cfg.judgeAllCAA([]authority{ca}, sets)
		}
		list := look(ours)
		expected{"a.acme.test", "CAA", []string{"failure: CAA at test allows top.invalid, not ca.invalid | ", `test. 300 IN CAA 0 issue "ca.invalid; validationmethods=dns-01"`,
			`or, where it counts for zone acme.test instead of that one: | acme.test. 300 IN CAA 0 issue "ca.invalid; validationmethods=dns-01"`}}.in(t, list)
		p.Zones = []string{"acme.test"}
		list = look(ours)
		expected{"acme.test", "CAA", []string{"warning: no CAA records below test; ", "[resolvers] | public = "}}.in(t, list)
		ours.private = true
		expected{"acme.test", "CAA", []string{"ok: no CAA records below test; CA le is a private one"}}.in(t, look(ours))
	})
}

// TestAskedInTime: a resolver that is asked about a hostname before the record below it is there may deny the record for as
// long as its zone says (RFC 8020, RFC 8198), so that the check itself would make the next order fail.
func TestAskedInTime(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{})
	exchange := func(q *dns.Msg) *dns.Msg {
		reply, err := dns.Exchange(q, b.Addr())
		if err != nil {
			t.Error(err)
			return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		}
		return reply
	}
	var asked, early atomic.Int32
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	resolver := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if name, ok := strings.CutSuffix(q.Question[0].Name, ".example.test."); ok && !strings.HasPrefix(name, "_acme-challenge") {
			asked.Add(1)
			if reply := exchange(new(dns.Msg).SetQuestion("_acme-challenge."+name+".example.test.", dns.TypeTXT)); len(reply.Answer) == 0 {
				early.Add(1)
			}
		}
		_ = w.WriteMsg(exchange(q))
	})}
	ended := make(chan error, 1)
	go func() { ended <- resolver.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	hosts := []string{"a.example.test", "b.example.test", "c.example.test", "*.d.example.test"}
	cfg := lookingFor(t, []string{conn.LocalAddr().String()}, hosts, onBIND(t, b.Addr(), b.Key("acme-key"), "example.test"))
	if _, sets := cfg.checkDNS(t.Context()); len(sets) != len(hosts) {
		t.Errorf("CAA records were looked for at %d names", len(sets))
	}
	if asked.Load() < int32(len(hosts)) || early.Load() > 0 {
		t.Errorf("of %d questions about hostnames %d came before the record was there", asked.Load(), early.Load())
	}
}

// TestDeadServer: one cause is one row, however many hostnames there are.
func TestDeadServer(t *testing.T) {
	key := testbed.TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: "c2VjcmV0"}
	cfg := lookingFor(t, nil, []string{"a.example.test", "b.example.test", "c.example.test"}, onBIND(t, "127.0.0.1:1", key, "example.test"))
	list, sets := cfg.checkDNS(t.Context())
	list = append(list, cfg.judgeAllCAA([]authority{{name: "le", identities: []string{"ca.invalid"}}}, sets)...)
	texts := map[[6]string]bool{}
	for _, f := range list {
		f.Subject = ""
		texts[f.Said()] = true
	}
	if len(texts) != 1 {
		t.Errorf("%d findings that differ: %+v", len(texts), texts)
	}
	expected{"b.example.test", "server", []string{"failure: nothing listens at 127.0.0.1:1 (connection refused) | on the server: systemctl status named"}}.in(t, list)
}

// TestLateServer has a server that isn't there: it is named, and nobody waits for it again and again.
func TestLateServer(t *testing.T) {
	const dead = "127.0.0.1:1"
	b := startBIND(t, testbed.BINDConfig{})
	hosts := make([]string, rehearsals+20)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("h%d.example.test", i)
	}
	p := onBIND(t, b.Addr(), b.Key("acme-key"), "example.test")
	p.Nameservers = []string{b.Addr(), dead}
	list, _ := lookingFor(t, nil, hosts, p).checkDNS(t.Context())
	expected{"h0.example.test", "update", []string{"ok: provider bind writes"}}.in(t, list)
	expected{"h0.example.test", "record", []string{"failure: 1 of 2 servers lack the record: " + dead + " doesn't listen (connection refused) | ",
		"rndc retransfer example.test | ", "in [provider.bind]: | " + fmt.Sprintf("nameservers = [%q]", b.Addr())}}.in(t, list)
	last := hosts[len(hosts)-1]
	expected{last, "record", nil}.in(t, list)
	expected{last, "update", []string{"warning: not tried, since servers of zone example.test are late already"}}.in(t, list)
	expected{"example.test", "servers", nil}.in(t, list)

	p.MinNameservers = 1
	list, _ = lookingFor(t, nil, hosts[:1], p).checkDNS(t.Context())
	lines := about(list, "example.test", "servers")
	// The other may have the record before this one's refusal is seen.
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "warning: "+dead+" ") || !strings.Contains(lines[0], "min_nameservers") || !strings.HasPrefix(lines[1], "ok: the record is at "+b.Addr()) {
		t.Errorf("with min_nameservers: %q", lines)
	}
	p.Check = zones.CheckNone
	list, _ = lookingFor(t, nil, hosts[:1], p).checkDNS(t.Context())
	expected{"example.test", "servers", []string{`ok: no server is asked for the record (check = "none")`}}.in(t, list)
}
