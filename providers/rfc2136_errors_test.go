package providers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"autocertd/internal/testbed"
)

// failing is a real BIND that allows little.
func failing(t *testing.T) *testbed.BIND {
	return startBIND(t, testbed.BINDConfig{
		Zones: []testbed.BINDZone{
			{Name: "example.test", Policy: []string{"grant acme-key name _acme-challenge.www.example.test. TXT"}},
			{Name: "sub.example.test"},
		},
		Keys:        []testbed.TSIGKey{{Name: "acme-key"}, {Name: "long-key", Algorithm: "hmac-sha512"}},
		Secondaries: []testbed.Secondary{{}},
	})
}

// failure is one wrong request and what the user must read. In want, SERVER stands for the address.
type failure struct {
	name             string
	key              testbed.TSIGKey
	server           string // default: the primary
	zone             string // default: example.test
	records          []string
	want             string
	retryable, whole bool
	local            bool // nobody was asked
	absent           bool // the server shows that the record isn't there, so that its removal is done
}

func TestRFC2136Failures(t *testing.T) {
	b := failing(t)
	good, long := b.Key("acme-key"), b.Key("long-key")
	secondary := b.Servers()[1]
	www := []string{"_acme-challenge.www"}
	tests := []failure{
		{
			name: "a wrong secret", key: testbed.TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: testSecret}, records: www,
			want:  `SERVER has another secret for TSIG key "acme-key" (BADSIG); copy the key from the server again, or make a new one for both sides: tsig-keygen -a hmac-sha256 acme-key`,
			whole: true,
		}, {
			name: "an unknown key", key: testbed.TSIGKey{Name: "acme-kee", Algorithm: "hmac-sha256", Secret: testSecret}, records: www,
			want:  `SERVER has no TSIG key "acme-kee" (BADKEY); on the server, name the file with key "acme-kee" in named.conf: include "/etc/bind/acme-kee.key"; and then: rndc reconfig`,
			whole: true,
		}, {
			name: "another algorithm", key: testbed.TSIGKey{Name: "long-key", Algorithm: "hmac-sha256", Secret: long.Secret}, records: www,
			want:  `SERVER has TSIG key "long-key" for hmac-sha512, not for hmac-sha256 (BADKEY); set key_alg = "hmac-sha512", or in the key file: algorithm hmac-sha512;`,
			whole: true,
		}, {
			name: "another algorithm and a wrong secret", key: testbed.TSIGKey{Name: "long-key", Algorithm: "hmac-sha1", Secret: testSecret}, records: www,
			want:  `SERVER has TSIG key "long-key" for hmac-sha512, not for hmac-sha1 (BADKEY); set key_alg = "hmac-sha512", or in the key file: algorithm hmac-sha512;`,
			whole: true,
		}, {
			name: "a zone that isn't served", key: good, zone: "example.org", records: www,
			want:  `SERVER doesn't serve zone example.org (NOTAUTH), nor another one that holds _acme-challenge.www.example.org; name the zone's primary as server; its name is the first word of: dig +short SOA example.org`,
			whole: true,
		}, {
			name: "a zone that is a part of one that is served", key: good, zone: "corp.example.test", records: www,
			want:  `SERVER doesn't serve zone corp.example.test (NOTAUTH); its zone for _acme-challenge.www.corp.example.test is example.test; zones = ["example.test"]`,
			whole: true,
		}, {
			name: "a zone above the one that is served", key: good, zone: "test", records: []string{"_acme-challenge.x.sub.example"},
			want:  `SERVER doesn't serve zone test (NOTAUTH); its zone for _acme-challenge.x.sub.example.test is sub.example.test; zones = ["sub.example.test"]`,
			whole: true,
		}, {
			name: "a name that the policy forbids", key: good, absent: true, records: []string{"_acme-challenge.ftp"},
			want: `SERVER forbids TSIG key "acme-key" to write TXT at _acme-challenge.ftp.example.test (REFUSED); add to update-policy of zone example.test, above any deny, and run rndc reconfig: grant acme-key name _acme-challenge.ftp.example.test. TXT;`,
		}, {
			name: "one of several names that the policy forbids", key: good, records: []string{"_acme-challenge.www", "_acme-challenge", "_acme-challenge", "_acme-challenge.c", "_acme-challenge.d"},
			want: `SERVER forbids TSIG key "acme-key" to write TXT at _acme-challenge.www.example.test, _acme-challenge.example.test, _acme-challenge.c.example.test, and 1 more (REFUSED); ` +
				`add to update-policy of zone example.test, above any deny, and run rndc reconfig: grant acme-key name _acme-challenge.www.example.test. TXT; grant acme-key name _acme-challenge.example.test. TXT; grant acme-key name _acme-challenge.c.example.test. TXT; and 1 more`,
		}, {
			name: "a secondary", key: good, server: secondary, records: www,
			want:  `SERVER is a secondary of zone example.test, whose primary is ns1.example.test by the SOA (REFUSED); name the primary: server = "ns1.example.test"`,
			whole: true,
		}, {
			name: "a secondary that doesn't know the key", key: testbed.TSIGKey{Name: "acme-kee", Algorithm: "hmac-sha256", Secret: testSecret}, server: secondary, records: www,
			want:  `SERVER is a secondary of zone example.test, whose primary is ns1.example.test by the SOA (REFUSED/BADKEY); name the primary: server = "ns1.example.test"`,
			whole: true,
		}, {
			name: "a name that is too long with the zone's", key: good, records: []string{"_acme-challenge.www", strings.Repeat("a.", 120) + "b"},
			want: strings.Repeat("a.", 120) + `b.example.test is too long for a DNS name, which has 253 characters at most`, local: true,
		}, {
			name: "a name outside the zone", key: good, records: []string{"_acme-challenge.www", "_acme-challenge.www.example.org."},
			want: `_acme-challenge.www.example.org isn't in zone example.test (NOTZONE); SERVER serves no zone that holds it: let another provider write it`,
		}, {
			name: "a name of another zone of the server", key: good, absent: true, zone: "sub.example.test", records: []string{"_acme-challenge.www.example.test."},
			want: `_acme-challenge.www.example.test isn't in zone sub.example.test (NOTZONE); SERVER serves the zone that holds it: zones = ["example.test"]`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, b.Addr()) })
	}
	all, err := b.TXT(t.Context(), "example.test")
	if err != nil || len(all) > 0 {
		t.Errorf("records were written: %v, %v", all, err)
	}
}

// check does what must fail, both ways, and reads the error.
func (f failure) check(t *testing.T, primary string) {
	t.Helper()
	if f.server == "" {
		f.server = primary
	}
	if f.zone == "" {
		f.zone = "example.test"
	}
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_name = %q\nkey_alg = %q\nkey = %q\ntimeout = \"1s\"", f.server, f.key.Name, f.key.Algorithm, f.key.Secret))
	var recs []libdns.Record
	for i, name := range f.records {
		recs = append(recs, libdns.TXT{Name: name, TTL: time.Minute, Text: fmt.Sprint("value", i)})
	}
	_, err := p.Client.AppendRecords(t.Context(), f.zone, recs)
	f.compare(t, err)
	_, err = p.Client.DeleteRecords(t.Context(), f.zone, recs)
	if f.absent {
		if err != nil {
			t.Errorf("what isn't there can't be removed: %v", err)
		}
		return
	}
	f.compare(t, err)
}

func (f failure) compare(t *testing.T, err error) {
	t.Helper()
	failure, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	if got := strings.ReplaceAll(said(err), f.server, "SERVER"); got != f.want {
		t.Errorf("got  %s\nwant %s", got, f.want)
	}
	if failure.Retryable() != f.retryable || failure.Whole() != f.whole {
		t.Errorf("Retryable() = %v, Whole() = %v; want %v, %v", failure.Retryable(), failure.Whole(), f.retryable, f.whole)
	}
	if errors.Unwrap(err) == nil && !f.local {
		t.Error("the original error is lost")
	}
	if f.key.Secret != "" && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), f.key.Secret) {
		t.Errorf("the secret is shown: %#v", err)
	}
}

// A synctest bubble has a clock of its own, which says the year 2000.
func TestRFC2136ClockSkew(t *testing.T) {
	b := failing(t)
	before := time.Now()
	synctest.Test(t, func(t *testing.T) {
		p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), b.KeyFile("acme-key")))
		rec := []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "value"}}
		_, err := p.Client.AppendRecords(t.Context(), "example.test", rec)
		failure, ok := errors.AsType[*Error](err)
		if !ok || failure.Retryable() || !failure.Whole() {
			t.Fatalf("got %v", err)
		}
		fields := strings.Fields(strings.TrimPrefix(failure.Problem, "the clock of "+b.Addr()+" says "))
		theirs, err := time.Parse(time.RFC3339, strings.TrimSuffix(fields[0], ","))
		if err != nil || theirs.Before(before.Truncate(time.Second)) || theirs.Sub(before) > time.Hour {
			t.Errorf("the server's clock is %v, %v; want about %v", theirs, err, before)
		}
		ours := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		want := fmt.Sprintf("the clock of %s says %s, ours says 2000-01-01T00:00:00Z: a signature may be 300 s old, not %.0f s (BADTIME); set the clock that is wrong: timedatectl set-ntp true",
			b.Addr(), theirs.Format(time.RFC3339), theirs.Sub(ours).Seconds())
		if said(failure) != want {
			t.Errorf("got  %s\nwant %s", failure, want)
		}
	})
}

func TestRFC2136ServerTrouble(t *testing.T) {
	b := failing(t)
	primary, secondary := b.Servers()[0], b.Servers()[1]
	_, port, _ := net.SplitHostPort(primary)
	f := failure{key: b.Key("acme-key"), records: []string{"_acme-challenge.www"}, retryable: true, whole: true}

	f.want = "SERVER accepted the connection but didn't answer the update of zone example.test (timeout); see whether the server hangs; it may have too much to do: timeout = \"30s\""
	if err := b.Stop(0); err != nil {
		t.Fatal(err)
	}
	f.check(t, primary)
	if err := b.Continue(0); err != nil {
		t.Fatal(err)
	}

	if err := b.Kill(0); err != nil {
		t.Fatal(err)
	}
	f.want = "nothing listens at SERVER over TCP (connection refused); see whether the DNS server runs there: ss -ltn sport = :" + port
	f.check(t, primary)

	if err := b.Kill(1); err != nil {
		t.Fatal(err)
	}
	p := newTestRFC2136(t, fmt.Sprintf("servers = [%q, %q]\nkey_file = %q", primary, secondary, b.KeyFile("acme-key")))
	_, err := p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", Text: "value"}})
	_, port, _ = net.SplitHostPort(secondary)
	f.server = secondary
	f.want = fmt.Sprintf("no server took the update of zone example.test: nothing listens at %s over TCP (connection refused); next, nothing listens at SERVER over TCP (connection refused); see whether the DNS server runs there: ss -ltn sport = :%s", primary, port)
	failure, ok := errors.AsType[*Error](err)
	if !ok || strings.ReplaceAll(said(err), secondary, "SERVER") != f.want || !failure.Retryable() || !failure.Whole() || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got  %v\nwant %s", err, f.want)
	}
}

func TestRFC2136JournalThatCannotBeWritten(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: "example.test", Options: []string{`journal "missing/example.test.jnl";`}}}})
	f := failure{
		key: b.Key("acme-key"), records: []string{"_acme-challenge.www"}, server: b.Addr(), zone: "example.test", retryable: true,
		want: "SERVER answered SERVFAIL to the update of zone example.test with TXT at _acme-challenge.www.example.test; " +
			"perhaps there are too many records at the name (max-records-per-type; see: dig +tcp TXT _acme-challenge.www.example.test), or it can't write the zone's journal; its log on the server says: journalctl -u named -n 50",
	}
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), b.KeyFile("acme-key")))
	_, err := p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "value"}})
	f.compare(t, err)
}

// What BIND can't be made to do on loopback.
func TestRFC2136NoAnswer(t *testing.T) {
	const server = "ns1.example.test:53"
	tests := []struct {
		err                      error
		want                     string
		retryable, whole, unsent bool
	}{
		{&net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded},
			"ns1.example.test:53 can't be reached over TCP (timeout); perhaps a firewall is in between; try: nc -vz ns1.example.test 53", true, true, true},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "ns1.example.test", IsNotFound: true}},
			"the address of server ns1.example.test can't be looked up (no such host); see what this machine finds: getent hosts ns1.example.test", true, true, true},
		{io.EOF, "the connection to ns1.example.test:53 failed during the update of zone example.test: EOF; the server's log says why", true, true, false},
		{errBadAnswer, "ns1.example.test:53 didn't answer the update of zone example.test: what came back isn't a DNS message; see that a DNS server listens there: dig +tcp SOA example.test @ns1.example.test -p 53", true, true, false},
		{errors.New("odd"), "the update of zone example.test on ns1.example.test:53 failed: odd", false, false, false},
		{verdict{rcode: dns.RcodeNotImplemented}, "ns1.example.test:53 answered NOTIMP to the update of zone example.test: it takes no dynamic updates; name the zone's primary as server", false, true, true},
		{verdict{rcode: dns.RcodeFormatError}, "ns1.example.test:53 answered FORMERR to the update of zone example.test with TXT at _acme-challenge.www.example.test", false, false, true},
		{verdict{rcode: dns.RcodeServerFailure}, "ns1.example.test:53 answered SERVFAIL to the update of zone example.test with TXT at _acme-challenge.www.example.test; " +
			"perhaps there are too many records at the name (see: dig +tcp TXT _acme-challenge.www.example.test), or it can't write the zone; the server's log says why", true, false, true},
	}
	for _, tt := range tests {
		seen := newMemories()
		d := diagnosis{prober: prober{server: server}, update: update{zone: "example.test", records: []libdns.TXT{{Name: "_acme-challenge.www"}}}, err: tt.err, seen: &seen}
		var got *Error
		if v, ok := errors.AsType[verdict](tt.err); ok {
			d.verdict = v
			got = d.concluded(d.answered(UnknownProduct))
		} else {
			got = d.noAnswer()
		}
		if said(got) != tt.want || got.Retryable() != tt.retryable || got.Whole() != tt.whole || got.Uncertain() == tt.unsent || !errors.Is(got, tt.err) {
			t.Errorf("got  %v (retryable: %v, whole: %v, uncertain: %v)\nwant %s", got, got.Retryable(), got.Whole(), got.Uncertain(), tt.want)
		}
	}
}

// A server that is silent, as a listener that nobody accepts from, must not hold a cancelled call for ever.
func TestRFC2136CancelledWhileWaiting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			cancel() // the update is on its way
			_, _ = io.Copy(io.Discard, conn)
		}
	}()
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_name = \"a\"\nkey = %q", l.Addr(), testSecret))
	_, err = p.Client.AppendRecords(ctx, "example.test", []libdns.Record{libdns.TXT{Name: "_acme-challenge", Text: "value"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
