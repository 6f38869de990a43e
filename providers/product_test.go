package providers

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/testbed"
	"autocertd/providers/providertest"
)

// Each product keeps the promises of a provider, as BIND does.
func TestProductConformance(t *testing.T) {
	for product := range products() {
		t.Run(string(product), func(t *testing.T) {
			t.Parallel()
			p := startProduct(t, product, testbed.ProductConfig{})
			if got := Detect(t.Context(), p.Addr()); got != product {
				t.Errorf("it is taken for %q", got)
			}
			client := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", p.Addr(), p.KeyFile("acme-key"))).Client
			providertest.Run(t, serverHarness(p, "acme-key", client))
		})
	}
}

// What the two answer to what they don't allow, and the cure in their own words. The same goes for nsupdate, which shows
// the answers in its own way.
func TestProductFailures(t *testing.T) {
	type row struct {
		name      string
		key       testbed.TSIGKey
		zone      string // default: example.test
		record    string // default: _acme-challenge.www
		want      string // of what both types of provider say; SERVER stands for the address
		whole     bool
		uncertain bool
	}
	tests := map[Product]func(good, long testbed.TSIGKey) []row{
		Knot: func(good, long testbed.TSIGKey) []row {
			return []row{
				{name: "a wrong secret", key: testbed.TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: testSecret}, whole: true, uncertain: true,
					want: `SERVER has another secret for TSIG key "acme-key" (BADSIG); copy the key from the server again, or make a new one for both sides: tsig-keygen -a hmac-sha256 acme-key`},
				{name: "an unknown key", key: testbed.TSIGKey{Name: "acme-kee", Algorithm: "hmac-sha256", Secret: testSecret}, whole: true, uncertain: true,
					want: `SERVER has no TSIG key "acme-kee", or no acl of zone example.test names it (BADKEY); in knot.conf, add the key below key: (id: acme-kee, algorithm: hmac-sha256, secret: …), name it in an acl of the zone (key: acme-kee), and then: knotc reload`},
				{name: "another algorithm", key: testbed.TSIGKey{Name: "long-key", Algorithm: "hmac-sha256", Secret: long.Secret}, whole: true, uncertain: true,
					want: `SERVER has TSIG key "long-key" for hmac-sha512, not for hmac-sha256 (BADKEY); set key_alg = "hmac-sha512", or in the key file: algorithm hmac-sha512;`},
				{name: "a zone that isn't served", key: good, zone: "example.org", whole: true, uncertain: true,
					want: `SERVER doesn't serve zone example.org (NOTAUTH), nor another one that holds _acme-challenge.www.example.org; name the zone's primary as server; its name is the first word of: dig +short SOA example.org`},
				{name: "a name that the acl forbids", key: good, record: "_acme-challenge.ftp",
					want: `SERVER forbids TSIG key "acme-key" to write TXT at _acme-challenge.ftp.example.test (NOTAUTH/BADKEY); add to the zone's acl in knot.conf and run knotc reload: update-owner-name: [_acme-challenge.ftp.example.test.]`},
			}
		},
		PowerDNS: func(good, long testbed.TSIGKey) []row {
			const unknown = `SERVER doesn't take TSIG key "NAME" for hmac-sha256 (REFUSED): it has no key of that name, or another algorithm or secret; ` +
				`on the server: pdnsutil list-tsig-keys; pdnsutil import-tsig-key NAME hmac-sha256 SECRET; pdnsutil set-meta example.test TSIG-ALLOW-DNSUPDATE NAME`
			return []row{
				{name: "a wrong secret", key: testbed.TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: testSecret}, whole: true, uncertain: true,
					want: strings.ReplaceAll(unknown, "NAME", "acme-key")},
				{name: "an unknown key", key: testbed.TSIGKey{Name: "acme-kee", Algorithm: "hmac-sha256", Secret: testSecret}, whole: true, uncertain: true,
					want: strings.ReplaceAll(unknown, "NAME", "acme-kee")},
				{name: "another algorithm", key: testbed.TSIGKey{Name: "long-key", Algorithm: "hmac-sha256", Secret: long.Secret}, whole: true, uncertain: true,
					want: `SERVER has TSIG key "long-key" for hmac-sha512, not for hmac-sha256 (REFUSED); set key_alg = "hmac-sha512", or in the key file: algorithm hmac-sha512;`},
				{name: "a zone that isn't served", key: good, zone: "example.org", whole: true,
					want: `SERVER doesn't serve zone example.org (NOTAUTH), nor another one that holds _acme-challenge.www.example.org; name the zone's primary as server; its name is the first word of: dig +short SOA example.org`},
				{name: "a CNAME in the place", key: good, record: "_acme-challenge.alias",
					want: `SERVER doesn't take a TXT record at _acme-challenge.alias.example.test, which is an alias of www.example.test (REFUSED); remove the CNAME, or let the alias lead into a zone of a provider; it is shown by: dig CNAME _acme-challenge.alias.example.test`},
			}
		},
	}
	for product, rows := range tests {
		t.Run(string(product), func(t *testing.T) {
			t.Parallel()
			p := startProduct(t, product, testbed.ProductConfig{
				Keys:    []testbed.TSIGKey{{Name: "acme-key"}, {Name: "long-key", Algorithm: "hmac-sha512"}},
				Names:   []string{"_acme-challenge.www"},
				Records: []string{"_acme-challenge.alias IN CNAME www"},
			})
			for _, tt := range rows(p.Key("acme-key"), p.Key("long-key")) {
				for _, typ := range []string{"rfc2136", "nsupdate"} {
					t.Run(tt.name+" by "+typ, func(t *testing.T) {
						keyFile := filepath.Join(t.TempDir(), "key")
						writeFile(t, keyFile, fmt.Sprintf("key %q { algorithm %s; secret %q; };", tt.key.Name, tt.key.Algorithm, tt.key.Secret), 0o600)
						client, err := New(typ, options(fmt.Sprintf("server = %q\nkey_file = %q", p.Addr(), keyFile), ""))
						if err != nil {
							t.Fatal(err)
						}
						zone, record := "example.test", "_acme-challenge.www"
						if tt.zone != "" {
							zone = tt.zone
						}
						if tt.record != "" {
							record = tt.record
						}
						if explainer, ok := client.Client.(*rfc2136Client); ok && strings.HasPrefix(tt.want, "SERVER doesn't take TSIG key") {
							want := strings.Replace(tt.want, "(REFUSED)", "(NOTAUTH)", 1)
							if err := explainer.ExplainKey(t.Context(), p.Addr(), record+"."+zone); strings.ReplaceAll(said(err), p.Addr(), "SERVER") != want {
								t.Errorf("a question: %v\nwant %s", err, want)
							}
						}
						_, err = client.Client.AppendRecords(t.Context(), zone, []libdns.Record{libdns.TXT{Name: record, TTL: time.Minute, Text: "value"}})
						failure, ok := errors.AsType[*Error](err)
						if !ok || strings.ReplaceAll(said(err), p.Addr(), "SERVER") != tt.want {
							t.Fatalf("got  %v\nwant %s", err, tt.want)
						}
						if failure.Retryable() || failure.Whole() != tt.whole || failure.Uncertain() != tt.uncertain {
							t.Errorf("Retryable() = %v, Whole() = %v, Uncertain() = %v; want false, %v, %v", failure.Retryable(), failure.Whole(), failure.Uncertain(), tt.whole, tt.uncertain)
						}
					})
				}
			}
		})
	}
}

// What is pasted from Policy is all that a server needs.
func TestPolicyOfKnot(t *testing.T) {
	access := Access{Zone: "example.test", Key: "acme-key", Names: []string{"_acme-challenge.example.test", "_acme-challenge.www.example.test"}}
	text, _ := Knot.Policy(access)
	port := freeAddr(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "knot.conf"), fmt.Sprintf("server:\n  listen: %s\n  rundir: %s\nkey:\n  - id: acme-key\n    algorithm: hmac-sha256\n    secret: %s\n",
		strings.Replace(port, ":", "@", 1), dir, testSecret)+text, 0o600)
	if out, err := exec.Command("/usr/sbin/knotc", "-c", filepath.Join(dir, "knot.conf"), "conf-check").CombinedOutput(); err != nil {
		t.Errorf("%v: %s\n%s", err, out, text)
	}
	for _, product := range []Product{BIND, PowerDNS, ActiveDirectory} {
		if text, where := product.Policy(access); !strings.Contains(text, "example.test") || where == "" {
			t.Errorf("%s: %q, %q", product, text, where)
		}
	}
}

// rndcConf is a BIND that takes commands, and one update policy.
const rndcConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; notify no; version "none of your business";
};
key "acme-key" { algorithm hmac-sha256; secret "{{.Data.Secret}}"; };
controls { inet 127.0.0.1 port {{.Data.Control}} allow { 127.0.0.1; } keys { acme-key; }; };
zone "example.test" { type primary; file "zone"; update-policy { grant acme-key zonesub TXT; }; };
`

// A frozen zone is refused as one without a policy is. The server doesn't say what it is, and is known by what it does.
func TestRFC2136FrozenZone(t *testing.T) {
	_, control, _ := net.SplitHostPort(freeAddr(t))
	b, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: t.TempDir(), Conf: rndcConf, Zones: []string{"example.test"},
		Files: map[string]string{"zone": "$TTL 60\n@ SOA ns1 hostmaster 1 300 60 86400 5\n@ NS ns1\nns1 A 127.0.0.1\n"},
		Data:  map[string]string{"Secret": testSecret, "Control": control}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	keyFile := filepath.Join(t.TempDir(), "key")
	writeFile(t, keyFile, fmt.Sprintf("key acme-key { algorithm hmac-sha256; secret %q; };", testSecret), 0o600)
	command(t, "/usr/sbin/rndc", "-s", "127.0.0.1", "-p", control, "-k", keyFile, "-y", "acme-key", "freeze", "example.test")
	f := failure{server: b.Addr(), key: testbed.TSIGKey{Secret: testSecret}, whole: true,
		want: `SERVER refuses every update of zone example.test with TSIG key "acme-key" (REFUSED): the zone is frozen, or has no update-policy; ` +
			`on the server: rndc thaw example.test; and if it isn't frozen, add to its zone example.test: update-policy { grant acme-key name _acme-challenge.www.example.test. TXT; };`}
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), keyFile))
	_, err = p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
	f.compare(t, err)
	command(t, "/usr/sbin/rndc", "-s", "127.0.0.1", "-p", control, "-k", keyFile, "-y", "acme-key", "thaw", "example.test")
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord()); err != nil {
		t.Errorf("the cure didn't help: %v", err)
	}
}

// BIND takes no more than 100 TXT records at a name, and answers SERVFAIL to all that come with the next one.
func TestRFC2136FullName(t *testing.T) {
	var full []string
	for i := range 100 {
		full = append(full, fmt.Sprintf("_acme-challenge.www IN TXT stale%d", i))
	}
	b := startBIND(t, testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: "example.test", Records: full}}})
	p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", b.Addr(), b.KeyFile("acme-key")))
	www := libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "value"}
	mail := libdns.TXT{Name: "_acme-challenge.mail", TTL: time.Minute, Text: "value"}
	f := failure{server: b.Addr(), retryable: true,
		want: "SERVER answered SERVFAIL to the update of zone example.test with TXT at _acme-challenge.mail.example.test, _acme-challenge.www.example.test; " +
			"perhaps there are too many records at the name (max-records-per-type; see: dig +tcp TXT _acme-challenge.mail.example.test), or it can't write the zone's journal; its log on the server says: journalctl -u named -n 50"}
	_, err := p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{mail, www})
	f.compare(t, err)
	f.retryable, f.want = false, "SERVER doesn't take one more TXT record at _acme-challenge.www.example.test, which has 100: too many records (SERVFAIL); "+
		"remove those that nobody needs any more; they are shown by: dig +tcp TXT _acme-challenge.www.example.test; or allow more in zone example.test: max-records-per-type 1000;"
	_, err = p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{www})
	f.compare(t, err)
	if failure, _ := errors.AsType[*Error](err); failure.Uncertain() {
		t.Error("nobody knows whether the record is there, though the server says that it isn't")
	}
	if _, err := p.Client.DeleteRecords(t.Context(), "example.test", []libdns.Record{www}); err != nil {
		t.Errorf("what isn't there can't be removed: %v", err)
	}
}

// samba is nsupdate as it ends when Samba's DNS server has made an update: it can't verify the signature of the answer.
// For names of others Samba answers SERVFAIL.
const samba = `#!/bin/sh
script=$(cat)
case $script in *notours*)
	echo '; TSIG error with server: tsig verify failure' >&2
	echo 'update failed: SERVFAIL' >&2
	exit 2 ;;
esac
printf '%s\n' "$script" | BEHAVIOUR
echo '; TSIG error with server: tsig verify failure' >&2
exit 2
`

func TestNSUpdateWithSamba(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{})
	dir := t.TempDir()
	run := func(behaviour string) (*Provider, *strings.Builder) {
		path := filepath.Join(dir, "nsupdate")
		writeFile(t, path, strings.ReplaceAll(samba, "BEHAVIOUR", behaviour), 0o755)
		var log strings.Builder
		opts := options(fmt.Sprintf("server = %q\ngss = true\ncommand = %q", b.Addr(), path), "")
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p, err := New("nsupdate", opts)
		if err != nil {
			t.Fatal(err)
		}
		return p, &log
	}
	real := "nsupdate -v -k " + b.KeyFile("acme-key")
	p, log := run(real)
	www := libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "value"}
	mail := libdns.TXT{Name: "_acme-challenge.mail", TTL: time.Minute, Text: "value"}
	for range 2 {
		if _, err := p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{www, mail}); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := b.TXT(t.Context(), "example.test"); err != nil || len(all) != 2 {
		t.Errorf("the server has %v, %v", all, err)
	}
	if _, err := p.Client.DeleteRecords(t.Context(), "example.test", []libdns.Record{www, mail}); err != nil {
		t.Fatal(err)
	}
	if all, err := b.TXT(t.Context(), "example.test"); err != nil || len(all) != 0 {
		t.Errorf("the server has %v, %v", all, err)
	}
	if n := strings.Count(log.String(), "signatures that can't be verified"); n != 1 {
		t.Errorf("warned %d times:\n%s", n, log)
	}

	// A name of somebody else's may not hold up the others.
	_, err := p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{www, libdns.TXT{Name: "_acme-challenge.notours", Text: "value"}})
	f := failure{server: b.Addr(), retryable: true}
	f.want = "SERVER answered SERVFAIL to the update of zone example.test with TXT at _acme-challenge.www.example.test, _acme-challenge.notours.example.test; " +
		"perhaps there are too many records at the name (max-records-per-type; see: dig +tcp TXT _acme-challenge.www.example.test), or it can't write the zone's journal; its log on the server says: journalctl -u named -n 50"
	f.compare(t, err)

	// What wasn't made isn't taken for made.
	p, _ = run("cat >/dev/null")
	_, err = p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{www})
	f.want = "nsupdate can't verify the signature of what SERVER answered to the update of zone example.test, and the server doesn't show the change at _acme-challenge.www.example.test"
	f.compare(t, err)
	if failure, _ := errors.AsType[*Error](err); !failure.Uncertain() {
		t.Error("it is certain what became of the update")
	}
}

// Names of products lead to products.
func TestParseProduct(t *testing.T) {
	for _, name := range ProductNames() {
		if p, err := ParseProduct(strings.ToUpper(name)); err != nil || p == UnknownProduct {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	if _, err := ParseProduct("unbound"); err == nil || !strings.Contains(said(err), "bind, knot, powerdns, ad") {
		t.Errorf("got %v", err)
	}
	versions := map[string]Product{"9.18.49-1~deb12u3-Debian": BIND, "BIND 9.20": BIND, "Knot DNS 3.2.6": Knot, "PowerDNS Authoritative Server 4.7.3": PowerDNS,
		"Microsoft DNS 10.0.20348": ActiveDirectory, "NSD 4.6": UnknownProduct, "none": UnknownProduct, "": UnknownProduct}
	for version, want := range versions {
		if got := productOf(version); got != want {
			t.Errorf("%q is %q, want %q", version, got, want)
		}
	}
}
