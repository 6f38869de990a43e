package providers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"autocertd/internal/testbed"
	"autocertd/providers/providertest"
)

const testSecret = "dGhpcyBpcyBhIHNlY3JldCBmb3IgdGVzdHM="

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

func newTestRFC2136(t *testing.T, text string) *Provider {
	t.Helper()
	p, err := New("rfc2136", options(text, ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRFC2136Conformance(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Keys: []testbed.TSIGKey{{Name: "Acme-Key", Algorithm: "hmac-sha384"}}})
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), b.KeyFile("Acme-Key")))
	if len(p.Servers) != 1 || p.Servers[0] != b.Addr() {
		t.Errorf("Servers = %q, want %s", p.Servers, b.Addr())
	}
	providertest.Run(t, serverHarness(b, "Acme-Key", p.Client))
}

// askTTL returns the TTL of the TXT records at name.
func askTTL(ctx context.Context, server, name string) (time.Duration, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT)
	reply, _, err := new(dns.Client).ExchangeContext(ctx, m, server)
	if err != nil {
		return 0, err
	}
	if len(reply.Answer) == 0 {
		return 0, fmt.Errorf("%s has no TXT record", name)
	}
	return time.Duration(reply.Answer[0].Header().Ttl) * time.Second, nil
}

func TestRFC2136SendsAGroupAsOneMessage(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{})
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), b.KeyFile("acme-key")))
	var recs []libdns.Record
	for i := range 300 {
		recs = append(recs, libdns.TXT{Name: fmt.Sprintf("_acme-challenge.host%d", i), TTL: time.Minute, Text: strings.Repeat("x", 43)})
	}
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", recs); err != nil {
		t.Fatal(err)
	}
	if n := b.UpdateMessages(); n != 1 {
		t.Errorf("%d update messages for %d records, want 1", n, len(recs))
	}
	// More than a message can hold goes out as several.
	for i, r := range recs {
		recs[i] = libdns.TXT{Name: r.RR().Name, TTL: time.Minute, Text: strings.Repeat("y", 255)}
	}
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", recs); err != nil {
		t.Fatal(err)
	}
	if n := b.UpdateMessages(); n != 3 {
		t.Errorf("%d update messages after too much for one, want 3", n)
	}
	all, err := b.TXT(t.Context(), "example.test")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 300 || len(all["_acme-challenge.host299.example.test"]) != 2 {
		t.Errorf("%d names, %q at the last; want 300 with 2 values", len(all), all["_acme-challenge.host299.example.test"])
	}
}

func TestRFC2136TriesServersInTurn(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Secondaries: []testbed.Secondary{{}}})
	if err := b.Kill(1); err != nil {
		t.Fatal(err)
	}
	dead := b.Servers()[1]
	p := newTestRFC2136(t, fmt.Sprintf("servers = [%q, %q]\nkey_file = %q", dead, b.Addr(), b.KeyFile("acme-key")))
	rec := []libdns.Record{libdns.TXT{Name: "_acme-challenge", TTL: time.Minute, Text: "value"}}
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", rec); err != nil {
		t.Errorf("the second server is alive: %v", err)
	}

	// The last server's refusal decides, and the first one's trouble is told too.
	p = newTestRFC2136(t, fmt.Sprintf("servers = [%q, %q]\nkey_name = \"unknown\"\nkey = %q", dead, b.Addr(), testSecret))
	_, err := p.Client.AppendRecords(t.Context(), "example.test", rec)
	failure, ok := errors.AsType[*Error](err)
	want := fmt.Sprintf("no server took the update of zone example.test: nothing listens at %s over TCP (connection refused); next, %s has no TSIG key \"unknown\" (BADKEY)", dead, b.Addr())
	if !ok || failure.Problem != want || failure.Retryable() || !errors.Is(err, syscall.ECONNREFUSED) || !errors.Is(err, errServerTSIG) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestRFC2136Options(t *testing.T) {
	dir := t.TempDir()
	key := fmt.Sprintf("// made by tsig-keygen\nkey \"Acme-Key.\" {\n\talgorithm hmac-sha512;\n\tsecret %q;\n};\n", testSecret)
	writeFile(t, filepath.Join(dir, "good.key"), key, 0o640)
	tests := []struct {
		name, text string
		servers    string
		key        tsigKey
	}{
		{"a name gets port 53", `server = "ns1.corp.example.com"` + "\n" + `key_file = "good.key"`,
			"ns1.corp.example.com:53", tsigKey{"acme-key", "hmac-sha512", testSecret}},
		{"ports and IPv6 in every spelling", `servers = ["192.0.2.1:5353", "2001:db8::1", "[2001:db8::2]", "[2001:db8::3]:54", "ns1:55"]` + "\n" + `key_file = "good.key"`,
			"192.0.2.1:5353 [2001:db8::1]:53 [2001:db8::2]:53 [2001:db8::3]:54 ns1:55", tsigKey{"acme-key", "hmac-sha512", testSecret}},
		{"a key without an algorithm is hmac-sha256", fmt.Sprintf("server = \"ns1\"\nkey_name = \"Acme\"\nkey = %q", testSecret),
			"ns1:53", tsigKey{"acme", "hmac-sha256", testSecret}},
		{"an algorithm in capitals with a dot", fmt.Sprintf("server = \"ns1\"\nkey_name = \"acme.\"\nkey_alg = \"HMAC-SHA1.\"\nkey = %q", testSecret+"\\n"),
			"ns1:53", tsigKey{"acme", "hmac-sha1", testSecret}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New("rfc2136", options(strings.ReplaceAll(tt.text, `\\n`, `\n`), dir))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(p.Servers, " "); got != tt.servers {
				t.Errorf("servers are %s, want %s", got, tt.servers)
			}
			if got := p.Client.(*rfc2136Client).key; got != tt.key {
				t.Errorf("key is %v, want %v", got, tt.key)
			}
		})
	}
}

func TestRFC2136OptionMistakes(t *testing.T) {
	dir := t.TempDir()
	key := fmt.Sprintf("key \"acme-key\" { algorithm hmac-sha256; secret %q; };", testSecret)
	writeFile(t, filepath.Join(dir, "good.key"), key, 0o600)
	writeFile(t, filepath.Join(dir, "open.key"), key, 0o644)
	inline := "server = \"ns1\"\nkey_name = \"acme\"\n" + fmt.Sprintf("key = %q\n", testSecret)
	tests := []struct{ name, text, want string }{
		{"nothing", "", "server: missing; name the zone's primary: server = \"ns1.example.com\"\n" +
			"key_file: missing; updates are signed: name a file that tsig-keygen has written"},
		{"two ways to name servers", "server = \"a\"\nservers = [\"b\"]\nkey_file = \"good.key\"", "server and servers: give one of the two"},
		{"servers that are none, and a bad key", "servers = [\"http://ns1/\", \"ns1:0\", \"\"]\nkey_name = \"a b\"\nkey_alg = \"sha256\"\nkey = \"not base64\"",
			`server: "http://ns1/" is neither a host nor host:port, such as "ns1.example.com", "192.0.2.1:53" or "[2001:db8::1]:53"` + "\n" +
				`server: "ns1:0" is neither a host nor host:port, such as "ns1.example.com", "192.0.2.1:53" or "[2001:db8::1]:53"` + "\n" +
				`server: "" is neither a host nor host:port, such as "ns1.example.com", "192.0.2.1:53" or "[2001:db8::1]:53"` + "\n" +
				"the key's name isn't a DNS name: letters, digits, hyphens, underscores and dots\n" +
				`the key's algorithm "sha256" is unknown; did you mean "hmac-sha256"?` + "\n" +
				`the key's secret isn't base64; copy all that stands between the quotes after "secret" in tsig-keygen's output`},
		{"two ways to give the key", inline + `key_file = "good.key"`, "key_file: leave out key_alg and key, which the file holds; key_name says which of several keys in it is ours"},
		{"half a key", "server = \"ns1\"\nkey_alg = \"hmac-sha256\"", "the key's name is missing; it is the word after \"key\" in the server's key statement\n" +
			"the key's secret is missing; it stands between the quotes after \"secret\" in the server's key statement"},
		{"MD5", inline + `key_alg = "hmac-md5.sig-alg.reg.int."`,
			`the key's algorithm "hmac-md5.sig-alg.reg.int" is broken and no longer used; make a new key for the server and for us: tsig-keygen -a hmac-sha256 KEYNAME`},
		{"another spelling", inline + `key_alg = "HMAC_SHA-512"`, `the key's algorithm "hmac_sha-512" is unknown; did you mean "hmac-sha512"?`},
		{"no such algorithm", inline + `key_alg = "hmac-sha3-256"`,
			`the key's algorithm "hmac-sha3-256" is unknown; known are hmac-sha256, hmac-sha512, hmac-sha384, hmac-sha224, hmac-sha1`},
		{"the secret as the algorithm", inline + fmt.Sprintf("key_alg = %q", testSecret),
			"the key's algorithm is unknown; known are hmac-sha256, hmac-sha512, hmac-sha384, hmac-sha224, hmac-sha1"},
		{"a file that isn't there", "server = \"ns1\"\nkey_file = \"none.key\"", "key_file: open DIR/none.key: no such file or directory; copy the server's key to it, or make a new one for both: " +
			"(umask 027; tsig-keygen -a hmac-sha256 acme-key > DIR/none.key) && chgrp autocertd DIR/none.key"},
		{"a folder", "server = \"ns1\"\nkey_file = \".\"", "key_file: DIR isn't a regular file"},
		{"a file that everybody may read", "server = \"ns1\"\nkey_file = \"open.key\"",
			"key_file: DIR/open.key may be used by everybody (mode 0644) and holds a secret: chmod o= DIR/open.key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New("rfc2136", options(tt.text, dir))
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.ReplaceAll(said(err), dir, "DIR")
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if strings.Contains(got, testSecret) {
				t.Errorf("the secret is shown: %s", got)
			}
		})
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
}
