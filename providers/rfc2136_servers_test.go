package providers

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"autocertd/internal/testbed"
)

// A server may be given in any way that leads to it.
func TestRFC2136ServersByNameAndAddress(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6:", err)
	}
	_ = l.Close()
	b := startBIND(t, testbed.BINDConfig{IPv6: true})
	_, port, _ := net.SplitHostPort(b.Addr())
	for _, server := range []string{"127.0.0.1:" + port, "[::1]:" + port, "[0:0:0:0:0:0:0:1]:" + port, "localhost:" + port, "LocalHost:" + port} {
		t.Run(server, func(t *testing.T) {
			p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", server, b.KeyFile("acme-key")))
			rec := []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: server}}
			if _, err := p.Client.AppendRecords(t.Context(), "example.test", rec); err != nil {
				t.Fatal(err)
			}
			all, err := b.TXT(t.Context(), "example.test")
			if values := all["_acme-challenge.www.example.test"]; err != nil || len(values) != 1 || values[0] != server {
				t.Errorf("the server has %v, %v", all, err)
			}
			if _, err := p.Client.DeleteRecords(t.Context(), "example.test", rec); err != nil {
				t.Error(err)
			}
		})
	}

	// What is wrong is told of the name as it was given.
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_name = \"unknown\"\nkey = %q", "localhost:"+port, testSecret))
	_, err = p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{libdns.TXT{Name: "_acme-challenge", Text: "value"}})
	f := failure{server: "localhost:" + port, whole: true,
		want: `SERVER has no TSIG key "unknown" (BADKEY); on the server, name the file with key "unknown" in named.conf: include "/etc/bind/unknown.key"; and then: rndc reconfig`}
	f.compare(t, err)
}

// quotaConf is a BIND that works at one update at a time. That for held.test it hands on to a primary.
const quotaConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; notify no; update-quota 1;
};
controls { };
key "acme-key" { algorithm hmac-sha256; secret "{{.Data.Secret}}"; };
zone "example.test" { type primary; file "zone"; update-policy { grant acme-key zonesub TXT; }; };
zone "held.test" {
	type secondary; file "held"; masterfile-format text;
	primaries { 127.0.0.1 port {{.Data.Primary}}; }; allow-update-forwarding { any; };
};
`

// An update that a silent primary holds up takes the only place; BIND drops the next one without a word.
func TestRFC2136UpdateQuota(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_ = silent.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	_, port, _ := net.SplitHostPort(silent.Addr().String())
	const zone = "$TTL 60\n@ SOA ns1 hostmaster 1 300 60 86400 5\n@ NS ns1\nns1 A 127.0.0.1\n"
	b, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: t.TempDir(), Conf: quotaConf,
		Files: map[string]string{"zone": zone, "held": zone}, Zones: []string{"example.test", "held.test"},
		Data: map[string]string{"Secret": testSecret, "Primary": port}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan struct{})
	go func() {
		defer close(held)
		_, _ = prober{server: b.Addr()}.ask(ctx, new(dns.Msg).SetUpdate("held.test.")) // nobody answers
	}()
	defer func() { cancel(); <-held }()
	awaitUpdate(t, silent)

	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_name = \"acme-key\"\nkey = %q\ntimeout = \"1s\"", b.Addr(), testSecret))
	_, err = p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{libdns.TXT{Name: "_acme-challenge", Text: "value"}})
	f := failure{server: b.Addr(), key: testbed.TSIGKey{Secret: testSecret}, retryable: true, whole: true,
		want: "SERVER accepted the connection but didn't answer the update of zone example.test (timeout); see whether the server hangs; it may have too much to do: timeout = \"30s\""}
	f.compare(t, err)
}

// awaitUpdate returns when somebody has sent an update to l, where nobody answers.
func awaitUpdate(t *testing.T, l net.Listener) {
	t.Helper()
	for {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if m, err := (&dns.Conn{Conn: conn}).ReadMsg(); err == nil && m.Opcode == dns.OpcodeUpdate {
			return
		}
	}
}
