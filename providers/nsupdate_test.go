package providers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/testbed"
	"autocertd/providers/providertest"
)

func newTestNSUpdate(t *testing.T, text string) *Provider {
	t.Helper()
	p, err := New("nsupdate", options(text, ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNSUpdateConformance(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Keys: []testbed.TSIGKey{{Name: "Acme-Key", Algorithm: "hmac-sha512"}}})
	p := newTestNSUpdate(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), b.KeyFile("Acme-Key")))
	if !slices.Equal(p.Servers, []string{b.Addr()}) || p.Timeout != 15*time.Second {
		t.Errorf("Servers = %q, Timeout = %v; want %s and 15s", p.Servers, p.Timeout, b.Addr())
	}
	providertest.Run(t, serverHarness(b, "Acme-Key", p.Client))
}

// What libdns/rfc2136 can't: updates without a signature, where our address is enough, and by UDP.
func TestNSUpdateWithoutAKey(t *testing.T) {
	// A policy of BIND's for addresses: each may write at its own reverse name, by TCP.
	b := startBIND(t, testbed.BINDConfig{Zones: []testbed.BINDZone{
		{Name: "0.0.127.in-addr.arpa", Policy: []string{"grant * tcp-self . TXT"}},
		{Name: "example.test"},
	}})
	p := newTestNSUpdate(t, fmt.Sprintf("server = %q", b.Addr()))
	rec := []libdns.Record{libdns.TXT{Name: "1", TTL: time.Minute, Text: "value"}}
	if _, err := p.Client.AppendRecords(t.Context(), "0.0.127.in-addr.arpa", rec); err != nil {
		t.Error(err)
	}
	if all, err := b.TXT(t.Context(), "0.0.127.in-addr.arpa"); err != nil || len(all) != 1 {
		t.Errorf("the server has %v, %v; want the record", all, err)
	}
	_, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
	want := fmt.Sprintf("%s refuses updates of zone example.test without a key from our address 127.0.0.1 (REFUSED); "+
		"better: a key, by key_file; else in the zone's statement: allow-update { 127.0.0.1; };", b.Addr())
	failure, ok := errors.AsType[*Error](err)
	if !ok || said(err) != want || failure.Retryable() || !failure.Whole() {
		t.Errorf("got  %v\nwant %s", err, want)
	}

	p = newTestNSUpdate(t, fmt.Sprintf("server = %q\nkey_file = %q\nudp = true", b.Addr(), b.KeyFile("acme-key")))
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord()); err != nil {
		t.Error(err)
	}
}

// The questions after a failure are those of rfc2136, whose table has every answer; these rows show that they are asked.
func TestNSUpdateFailures(t *testing.T) {
	b := failing(t)
	keys := t.TempDir()
	keyFile := func(name, algorithm, secret string) string {
		path := filepath.Join(keys, fmt.Sprintf("%d%s%x", len(algorithm), name, secret[:3]))
		writeFile(t, path, fmt.Sprintf("key %q { algorithm %s; secret %q; };", name, algorithm, secret), 0o600)
		return path
	}
	good, long := b.KeyFile("acme-key"), b.Key("long-key")
	www := "_acme-challenge.www"
	tests := []struct {
		name, keyFile, zone, record string
		want                        string
		whole                       bool
	}{
		{"a wrong secret", keyFile("acme-key", "hmac-sha256", testSecret), "example.test", www,
			`SERVER has another secret for TSIG key "acme-key" (BADSIG); copy the key from the server again, or make a new one for both sides: tsig-keygen -a hmac-sha256 acme-key`, true},
		{"an unknown key", keyFile("acme-kee", "hmac-sha256", testSecret), "example.test", www,
			`SERVER has no TSIG key "acme-kee" (BADKEY); on the server, name the file with key "acme-kee" in named.conf: include "/etc/bind/acme-kee.key"; and then: rndc reconfig`, true},
		{"another algorithm", keyFile("long-key", "hmac-sha256", long.Secret), "example.test", www,
			`SERVER has TSIG key "long-key" for hmac-sha512, not for hmac-sha256 (BADKEY); set key_alg = "hmac-sha512", or in the key file: algorithm hmac-sha512;`, true},
		{"a zone that isn't served", good, "example.org", www,
			`SERVER doesn't serve zone example.org (NOTAUTH), nor another one that holds _acme-challenge.www.example.org; name the zone's primary as server; its name is the first word of: dig +short SOA example.org`, true},
		{"a name that the policy forbids", good, "example.test", "_acme-challenge.ftp",
			`SERVER forbids TSIG key "acme-key" to write TXT at _acme-challenge.ftp.example.test (REFUSED); add to update-policy of zone example.test, above any deny, and run rndc reconfig: grant acme-key name _acme-challenge.ftp.example.test. TXT;`, false},
		{"a name outside the zone", good, "example.test", "_acme-challenge.www.example.org.",
			`_acme-challenge.www.example.org isn't in zone example.test (NOTZONE); SERVER serves no zone that holds it: let another provider write it`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newTestNSUpdate(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), tt.keyFile))
			_, err := p.Client.AppendRecords(t.Context(), tt.zone, []libdns.Record{libdns.TXT{Name: tt.record, TTL: time.Minute, Text: "value"}})
			failure, ok := errors.AsType[*Error](err)
			if !ok || strings.ReplaceAll(said(err), b.Addr(), "SERVER") != tt.want {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if failure.Retryable() || failure.Whole() != tt.whole {
				t.Errorf("Retryable() = %v, Whole() = %v; want false, %v", failure.Retryable(), failure.Whole(), tt.whole)
			}
		})
	}
}

func TestNSUpdateServerTrouble(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Secondaries: []testbed.Secondary{{}}})
	dead := b.Servers()[1]
	if err := b.Kill(1); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(dead)
	key := fmt.Sprintf("key_file = %q\n", b.KeyFile("acme-key"))
	if err := b.Stop(0); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, text, want string }{
		{"a server that isn't there", key + fmt.Sprintf("server = %q", dead),
			"nothing listens at " + dead + " over TCP (connection refused); see whether the DNS server runs there: ss -ltn sport = :" + port},
		{"a server that is silent", key + "timeout = \"1s\"\n" + fmt.Sprintf("server = %q", b.Addr()),
			"nsupdate got no answer from " + b.Addr() + ` to the update of zone example.test within 1s; see whether the server answers, or give it longer: timeout = "30s"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newTestNSUpdate(t, tt.text).Client.AppendRecords(t.Context(), "example.test", oneRecord())
			failure, ok := errors.AsType[*Error](err)
			if !ok || !strings.HasPrefix(said(err), tt.want) || !failure.Retryable() || !failure.Whole() {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	if err := b.Continue(0); err != nil {
		t.Fatal(err)
	}
	p := newTestNSUpdate(t, key+fmt.Sprintf("servers = [%q, %q]", dead, b.Addr()))
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord()); err != nil {
		t.Errorf("the second server is alive: %v", err)
	}
}

// What nsupdate is given: the command line, which everybody can read, its environment and its script.
func TestNSUpdateRun(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "key"), fmt.Sprintf("key acme { algorithm hmac-sha256; secret %q; };", testSecret), 0o600)
	writeFile(t, filepath.Join(dir, "keytab"), "keys", 0o600)
	t.Setenv("KRB5_CONFIG", "/krb5.conf")
	t.Setenv("KRB5CCNAME", "FILE:/tickets")
	tests := []struct{ name, text, args, env string }{
		{"by TCP with a key", `key_file = "key"`, "-v", ""},
		{"by UDP without a key", `udp = true`, "", ""},
		{"more flags", `args = ["-4", "-r", "5", "-t", "60"]`, "-v -4 -r 5 -t 60", ""},
		{"Kerberos with the daemon's tickets", "gss = true", "-v -g", "KRB5CCNAME=FILE:/tickets KRB5_CONFIG=/krb5.conf"},
		{"Kerberos with a keytab", "gss = true\nkeytab = \"keytab\"\nargs = [\"-o\"]", "-v -g -o",
			"KRB5CCNAME=MEMORY:autocertd KRB5_CLIENT_KTNAME=FILE:DIR/keytab KRB5_CONFIG=/krb5.conf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			fake := script(t, `{ echo "$*"; env | grep ^KRB5 | LC_ALL=C sort | xargs; cat; } >`+out)
			p, err := New("nsupdate", options(fmt.Sprintf("server = \"ns1.example.test\"\ncommand = %q\n", fake)+tt.text, dir))
			if err != nil {
				t.Fatal(err)
			}
			recs := []libdns.Record{libdns.TXT{Name: "_acme-challenge.a", TTL: 90 * time.Second, Text: "x y"}, libdns.TXT{Name: "@", Text: "z"}}
			if _, err := p.Client.AppendRecords(t.Context(), "Example.test.", recs); err != nil {
				t.Fatal(err)
			}
			key, between := "", ""
			if strings.Contains(tt.text, "key_file") {
				key = "key hmac-sha256:acme " + testSecret + "\n"
			}
			if strings.Contains(tt.text, "gss") {
				between = "send\nzone example.test.\n" // a message for each name
			}
			want := strings.ReplaceAll(tt.args+"\n"+tt.env, "DIR", dir) + "\nserver ns1.example.test 53\nzone example.test.\n" + key +
				"update add _acme-challenge.a.example.test. 90 TXT \"x y\"\n" + between + "update add example.test. 0 TXT \"z\"\nsend\n"
			if got := readFile(t, out); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if _, err := p.Client.DeleteRecords(t.Context(), "example.test", recs[:1]); err != nil {
				t.Fatal(err)
			}
			if got := readFile(t, out); !strings.HasSuffix(got, "\nupdate delete _acme-challenge.a.example.test. TXT \"x y\"\nsend\n") {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

func TestNSUpdateOptionMistakes(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "key"), fmt.Sprintf("key acme { algorithm hmac-sha256; secret %q; };", testSecret), 0o600)
	writeFile(t, filepath.Join(dir, "open.keytab"), "", 0o644)
	tests := []struct{ name, text, want string }{
		{"nothing", "", `server: missing; name the zone's primary: server = "ns1.example.com"`},
		{"a key and Kerberos", "server = \"ns1\"\nkey_file = \"key\"\ngss = true", "key_file and gss: give one of the two"},
		{"a keytab without Kerberos", "server = \"ns1\"\nkeytab = \"k\"", "keytab: needs gss = true"},
		{"a keytab that isn't there", "server = \"ns1\"\ngss = true\nkeytab = \"k\"", "keytab: open DIR/k: no such file or directory; export our key to it: kadmin -q 'ktadd -k DIR/k autocertd', or with Samba: samba-tool domain exportkeytab DIR/k --principal=autocertd@REALM"},
		{"a keytab that everybody may read", "server = \"ns1\"\ngss = true\nkeytab = \"open.keytab\"",
			"keytab: DIR/open.keytab may be used by everybody (mode 0644) and holds keys: chmod o= DIR/open.keytab"},
		{"a secret on the command line", "server = \"ns1\"\nargs = [\"-y\", \"hmac-sha256:acme:" + testSecret + "\"]",
			`args: "-y" isn't allowed; allowed are -4, -6, -o, -r N, -t N, -u N; keys and servers have keys of their own`},
		{"a flag without its number", "server = \"ns1\"\nargs = [\"-r\"]", `args: -r needs a number as the next string, such as "-r", "5"`},
		{"a flag with a file for a number", "server = \"ns1\"\nargs = [\"-t\", \"/etc/passwd\"]", `args: -t needs a number as the next string, such as "-t", "5"`},
		{"a program that isn't there", "server = \"ns1\"\ncommand = \"/none\"", "command: /none doesn't exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New("nsupdate", options(tt.text, dir))
			if err == nil || strings.ReplaceAll(said(err), dir, "DIR") != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	t.Run("nsupdate isn't installed", func(t *testing.T) {
		t.Setenv("PATH", dir)
		const want = `command: nsupdate isn't installed: apt-get install bind9-dnsutils; or name it: command = "/path/to/nsupdate"`
		if _, err := New("nsupdate", options(`server = "ns1"`, dir)); err == nil || said(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
	t.Run("nsupdate is removed", func(t *testing.T) {
		path := script(t, "")
		p := newTestNSUpdate(t, fmt.Sprintf("server = \"127.0.0.1\"\ncommand = %q", path))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		_, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
		want := fmt.Sprintf("nsupdate can't be run: fork/exec %s: no such file or directory; apt-get install bind9-dnsutils, and see: ls -l %s", path, path)
		if err == nil || said(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}
