package testbed

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// extraRecords are in the zone example.test beside SOA, NS and ns1.
var extraRecords = []string{
	"www.example.test. 60 IN A 127.0.0.1",
	"_acme-challenge.alias.example.test. 60 IN CNAME target.other.test.",
	"_acme-challenge.inside.example.test. 60 IN CNAME www.example.test.",
	"_acme-challenge.away.example.test. 60 IN CNAME x.elsewhere.test.",
	"loop1.example.test. 60 IN CNAME loop2.example.test.",
	"loop2.example.test. 60 IN CNAME loop1.example.test.",
	"child.example.test. 60 IN NS ns.child.example.test.",
	"deep.below.example.test. 60 IN A 127.0.0.1",
}

var testKeys = []TSIGKey{
	{Name: "acme-key", Secret: "c2VjcmV0LXNlY3JldC1zZWNyZXQ="},
	{Name: "narrow", Algorithm: "hmac-sha512", Secret: "bmFycm93LW5hcnJvdy1uYXJyb3c="},
}

func startTestDNS(t *testing.T) *DNS {
	t.Helper()
	d, err := StartDNS(DNSConfig{
		Zones: []string{"example.test", "other.test"},
		Keys:  testKeys,
		Allow: func(key, name string) bool { return key == "acme-key" || name == "_acme-challenge.www.example.test" },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Set(extraRecords...); err != nil {
		t.Fatal(err)
	}
	return d
}

// step is one message and what a server answers to it.
type step struct {
	name string
	msg  func() *dns.Msg
	key  TSIGKey // unsigned without
	skew time.Duration
	want string // see summary
}

func ask(name string, rrtype uint16) func() *dns.Msg {
	return func() *dns.Msg {
		m := new(dns.Msg).SetQuestion(name, rrtype)
		m.RecursionDesired = false
		return m
	}
}

// change is an update of zone; the records are those of nsupdate: "add RR", "delete RR", "delete NAME TYPE".
func change(zone string, lines ...string) func() *dns.Msg {
	return func() *dns.Msg {
		m := new(dns.Msg).SetUpdate(zone)
		for _, line := range lines {
			verb, rest, _ := strings.Cut(line, " ")
			fields := strings.Fields(rest)
			switch {
			case verb == "delete" && len(fields) == 2 && fields[1] == "ANY":
				m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: fields[0]}}})
			case verb == "delete" && len(fields) == 2:
				m.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: fields[0], Rrtype: dns.StringToType[fields[1]]}}})
			case verb == "delete":
				m.Remove([]dns.RR{mustRR(rest)})
			default:
				m.Insert([]dns.RR{mustRR(rest)})
			}
		}
		return m
	}
}

func mustRR(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// steps are played in order. BIND answers each in the same way; another test says so.
func steps() []step {
	acme, narrow := testKeys[0].withDefaults(), testKeys[1].withDefaults()
	capitals, wrongSecret, wrongAlgorithm, unknown := acme, acme, acme, acme
	capitals.Name = "ACME-Key"
	wrongSecret.Secret = narrow.Secret
	wrongAlgorithm.Algorithm = "hmac-sha512"
	unknown.Name = "unknown"
	const www, alias = "_acme-challenge.www.example.test.", "_acme-challenge.alias.example.test."
	return []step{
		{"address", ask("www.example.test.", dns.TypeA), TSIGKey{}, 0, "NOERROR aa [A 127.0.0.1] []"},
		{"name server", ask("example.test.", dns.TypeNS), TSIGKey{}, 0, "NOERROR aa [NS ns1.example.test.] []"},
		{"other case", ask("WWW.example.TEST.", dns.TypeA), TSIGKey{}, 0, "NOERROR aa [A 127.0.0.1] []"},
		{"no such type", ask("www.example.test.", dns.TypeTXT), TSIGKey{}, 0, "NOERROR aa [] [SOA 1]"},
		{"no such name", ask("no.example.test.", dns.TypeTXT), TSIGKey{}, 0, "NXDOMAIN aa [] [SOA 1]"},
		{"name above others", ask("below.example.test.", dns.TypeTXT), TSIGKey{}, 0, "NOERROR aa [] [SOA 1]"},
		{"foreign name", ask("www.elsewhere.test.", dns.TypeA), TSIGKey{}, 0, "REFUSED [] []"},
		{"alias itself", ask(alias, dns.TypeCNAME), TSIGKey{}, 0, "NOERROR aa [CNAME target.other.test.] []"},
		{"alias inside", ask("_acme-challenge.inside.example.test.", dns.TypeA), TSIGKey{}, 0, "NOERROR aa [A 127.0.0.1 CNAME www.example.test.] []"},
		{"alias into a zone next door", ask(alias, dns.TypeTXT), TSIGKey{}, 0, "NOERROR aa [CNAME target.other.test.] []"},
		{"alias away", ask("_acme-challenge.away.example.test.", dns.TypeTXT), TSIGKey{}, 0, "NOERROR aa [CNAME x.elsewhere.test.] []"},
		{"alias to nothing of the type", ask("_acme-challenge.inside.example.test.", dns.TypeTXT), TSIGKey{}, 0, "NOERROR aa [CNAME www.example.test.] [SOA 1]"},
		{"loop", ask("loop1.example.test.", dns.TypeTXT), TSIGKey{}, 0, "SERVFAIL aa [CNAME loop1.example.test. CNAME loop2.example.test.] []"},
		{"delegation", ask("www.child.example.test.", dns.TypeA), TSIGKey{}, 0, "NOERROR [] [NS ns.child.example.test.]"},
		{"signed query", ask("www.example.test.", dns.TypeA), acme, 0, "NOERROR aa [A 127.0.0.1] [] signed"},

		{"unsigned update", change("example.test.", "add "+www+" 60 IN TXT a"), TSIGKey{}, 0, "REFUSED [] []"},
		{"unknown key", change("example.test.", "add "+www+" 60 IN TXT a"), unknown, 0, "NOTAUTH [] [] BADKEY"},
		{"wrong secret", change("example.test.", "add "+www+" 60 IN TXT a"), wrongSecret, 0, "NOTAUTH [] [] BADSIG"},
		{"wrong algorithm", change("example.test.", "add "+www+" 60 IN TXT a"), wrongAlgorithm, 0, "NOTAUTH [] [] BADKEY"},
		{"wrong clock", change("example.test.", "add "+www+" 60 IN TXT a"), acme, time.Hour, "NOTAUTH [] [] BADTIME"},
		{"zone not served", change("elsewhere.test.", "add x.elsewhere.test. 60 IN TXT a"), acme, 0, "NOTAUTH [] [] dns: bad authentication"},
		{"name outside", change("example.test.", "add x.other.test. 60 IN TXT a"), acme, 0, "NOTZONE [] [] signed"},
		{"nothing happened", ask(www, dns.TypeTXT), TSIGKey{}, 0, "NXDOMAIN aa [] [SOA 1]"},

		{"add two", change("example.test.", "add "+www+" 60 IN TXT a", "add "+www+" 60 IN TXT b"), acme, 0, "NOERROR [] [] signed"},
		{"they are there", ask(www, dns.TypeTXT), TSIGKey{}, 0, `NOERROR aa [TXT "a" TXT "b"] []`},
		{"add again", change("example.test.", "add "+www+" 60 IN TXT a"), acme, 0, "NOERROR [] [] signed"},
		{"no third, no new serial", ask("example.test.", dns.TypeSOA), TSIGKey{}, 0, "NOERROR aa [SOA 2] []"},
		{"key with capitals", change("example.test.", "add "+www+" 60 IN TXT c"), capitals, 0, "NOERROR [] [] signed"},
		{"grant", change("example.test.", "add "+www+" 60 IN TXT d"), narrow, 0, "NOERROR [] [] signed"},
		{"beyond the grant", change("example.test.", "add "+www+" 60 IN TXT e", "add x.example.test. 60 IN TXT e"), narrow, 0, "REFUSED [] [] signed"},
		{"delete a value", change("example.test.", "delete "+www+" 0 IN TXT a"), acme, 0, "NOERROR [] [] signed"},
		{"delete what is not there", change("example.test.", "delete "+www+" 0 IN TXT z"), acme, 0, "NOERROR [] [] signed"},
		{"the others stay", ask(www, dns.TypeTXT), TSIGKey{}, 0, `NOERROR aa [TXT "b" TXT "c" TXT "d"] []`},
		{"replace", change("example.test.", "delete "+www+" TXT", "add "+www+" 60 IN TXT e"), acme, 0, "NOERROR [] [] signed"},
		{"one is left", ask(www, dns.TypeTXT), TSIGKey{}, 0, `NOERROR aa [TXT "e"] []`},
		{"delete the name", change("example.test.", "delete "+www+" ANY"), acme, 0, "NOERROR [] [] signed"},
		{"it is gone", ask(www, dns.TypeTXT), TSIGKey{}, 0, "NXDOMAIN aa [] [SOA 7]"},
		{"TXT at an alias", change("example.test.", "add "+alias+" 60 IN TXT a"), acme, 0, "NOERROR [] [] signed"},
		{"is ignored", ask(alias, dns.TypeTXT), TSIGKey{}, 0, "NOERROR aa [CNAME target.other.test.] []"},
		{"empty the apex", change("example.test.", "delete example.test. ANY", "delete example.test. 0 IN NS ns1.example.test."), acme, 0, "NOERROR [] [] signed"},
		{"it stays", ask("example.test.", dns.TypeNS), TSIGKey{}, 0, "NOERROR aa [NS ns1.example.test.] []"},
	}
}

// play sends the message by TCP and describes the answer.
func play(t *testing.T, addr string, s step) string {
	t.Helper()
	m := s.msg()
	conn, err := dns.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s.key.Name != "" {
		m.SetTsig(dns.Fqdn(s.key.Name), dns.Fqdn(s.key.Algorithm), 300, time.Now().Add(s.skew).Unix())
		conn.TsigProvider = keyring{dns.CanonicalName(s.key.Name): s.key}
	}
	if err := conn.WriteMsg(m); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	reply, verified := conn.ReadMsg()
	if reply == nil {
		t.Fatalf("%s: %v", s.name, verified)
	}
	return summary(reply, verified)
}

// summary is what matters in an answer: status, answer and authority sections, and how it is signed.
func summary(reply *dns.Msg, verified error) string {
	out := dns.RcodeToString[reply.Rcode]
	if reply.Authoritative {
		out += " aa"
	}
	for _, section := range [][]dns.RR{reply.Answer, reply.Ns} {
		values := []string{}
		for _, rr := range section {
			value := strings.TrimPrefix(rr.String(), rr.Header().String())
			if soa, ok := rr.(*dns.SOA); ok {
				value = fmt.Sprint(soa.Serial)
			}
			values = append(values, dns.TypeToString[rr.Header().Rrtype]+" "+value)
		}
		slices.Sort(values)
		out += " " + fmt.Sprint(values)
	}
	switch tsig := reply.IsTsig(); {
	case tsig == nil:
	case tsig.Error != 0:
		out += " " + strings.ReplaceAll(dns.RcodeToString[int(tsig.Error)], "BADVERS", "BADSIG")
	case verified == nil:
		out += " signed"
	default:
		out += " " + verified.Error()
	}
	return out
}

// signer sends messages signed with the key, all on one connection.
type signer struct {
	addr string
	key  TSIGKey
	conn net.Conn
}

func (s *signer) send(m *dns.Msg) (int, error) {
	name := dns.CanonicalName(s.key.Name)
	m.SetTsig(name, dns.Fqdn(s.key.Algorithm), 300, time.Now().Unix())
	client := &dns.Client{Net: "tcp", Timeout: 20 * time.Second, TsigSecret: map[string]string{name: s.key.Secret}}
	if s.conn == nil {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return 0, err
		}
		s.conn = conn
	}
	// A dns.Conn would sign its second message as a continuation of the first, so each message gets a new one.
	resp, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: s.conn})
	if resp == nil {
		return 0, err
	}
	return resp.Rcode, err
}

func TestDNS(t *testing.T) {
	d := startTestDNS(t)
	for _, s := range steps() {
		if got := play(t, d.Addr(), s); got != s.want {
			t.Errorf("%s:\n got %s\nwant %s", s.name, got, s.want)
		}
	}
	if got := d.All(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	updates := 0
	for _, s := range steps() {
		if s.msg().Opcode == dns.OpcodeUpdate {
			updates++
		}
	}
	if d.Updates() != updates {
		t.Errorf("%d updates counted, %d sent", d.Updates(), updates)
	}
}

func TestDNSFollowsAliases(t *testing.T) {
	d, err := StartDNS(DNSConfig{Zones: []string{"example.test", "other.test"}, FollowAliases: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Set(append(extraRecords, "Target.other.test. 60 IN TXT a")...); err != nil {
		t.Fatal(err)
	}
	query := step{msg: ask("_acme-challenge.alias.example.test.", dns.TypeTXT)}
	if got, want := play(t, d.Addr(), query), `NOERROR aa [CNAME target.other.test. TXT "a"] []`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := d.TXT("target.Other.test."); !slices.Equal(got, []string{"a"}) {
		t.Errorf("TXT: %v", got)
	}
}

func TestDNSTruncates(t *testing.T) {
	d := startTestDNS(t)
	for i := range 40 {
		if err := d.Set(fmt.Sprintf("big.example.test. 60 IN TXT %q", strings.Repeat("x", 43)+fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	for network, truncated := range map[string]bool{"udp": true, "tcp": false} {
		reply, _, err := (&dns.Client{Net: network}).Exchange(ask("big.example.test.", dns.TypeTXT)(), d.Addr())
		if err != nil || reply.Truncated != truncated {
			t.Errorf("%s: %v, truncated %v", network, err, reply.Truncated)
		}
	}
}

func TestDNSFaults(t *testing.T) {
	faults := []struct {
		name    string
		rcode   int
		reply   bool
		applied bool
		want    int // -1: no answer
	}{
		{"none", dns.RcodeSuccess, true, true, dns.RcodeSuccess},
		{"refused", dns.RcodeServerFailure, true, false, dns.RcodeServerFailure},
		{"request lost", dns.RcodeServerFailure, false, false, -1},
		{"reply lost", dns.RcodeSuccess, false, true, -1},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			d := startTestDNS(t)
			d.OnUpdate(func(m *dns.Msg) (int, bool) {
				if len(m.Ns) != 1 {
					t.Errorf("the hook saw %v", m)
				}
				return f.rcode, f.reply
			})
			s := &signer{addr: d.Addr(), key: d.Key("acme-key")}
			rcode, err := s.send(change("example.test.", "add x.example.test. 60 IN TXT v")())
			if f.want < 0 && err == nil || f.want >= 0 && rcode != f.want {
				t.Errorf("answer %d, %v", rcode, err)
			}
			if applied := len(d.TXT("x.example.test")) == 1; applied != f.applied {
				t.Errorf("applied: %v", applied)
			}
		})
	}
}

func TestDNSSetRefuses(t *testing.T) {
	d := startTestDNS(t)
	for _, text := range []string{"", "x.example.test. 60 IN NOSUCH y"} {
		if err := d.Set(text); err == nil {
			t.Errorf("took %q", text)
		}
	}
}
