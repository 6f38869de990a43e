//go:build linux

package main

import (
	"fmt"
	"strings"
	"testing"

	"autocertd/internal/testbed"
)

// signedConf is a server with a zone that it signs, and one that it doesn't.
const signedConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion no; dnssec-validation no; notify no; empty-zones-enable no; allow-transfer { 127.0.0.1; };
};
controls { };
key "acme-key" { algorithm hmac-sha256; secret "{{.Data}}"; };
zone "." { type primary; file "root.zone"; };
zone "signed.test" { type primary; file "signed.zone"; dnssec-policy default; inline-signing yes;
	update-policy { grant "acme-key" subdomain signed.test. TXT; }; };
zone "broken.test" { type primary; file "broken.zone"; update-policy { grant "acme-key" subdomain broken.test. TXT; }; };
`

// validatorConf is a resolver that has been told that a zone is signed which isn't: its signatures are gone.
const validatorConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion yes; dnssec-validation yes; empty-zones-enable no; forward only; forwarders { 127.0.0.1 port {{.Data}}; };
};
controls { };
trust-anchors { broken.test static-ds 12345 13 2 "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"; };
`

// TestSignedZone gets a certificate for a host in a zone that BIND signs by itself, and finds a zone whose signatures are
// broken before a single order is made for it.
func TestSignedZone(t *testing.T) {
	t.Parallel()
	const secret = "YSBzZWNyZXQgb2YgdGhlIHRlc3QgZm9yIHNpZ25lZCB6b25l"
	const empty = "$TTL 60\n@ IN SOA ns hostmaster 1 300 60 86400 5\n@ IN NS ns\nns IN A 127.0.0.1\n"
	s := &site{dir: t.TempDir(), schedule: "@every 1s"}
	start := func(cfg testbed.NamedConfig) *testbed.Named {
		cfg.Dir = s.dir
		n, err := testbed.StartNamed(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		return n
	}
	server := start(testbed.NamedConfig{Conf: signedConf, Data: secret, Zones: []string{"signed.test", "broken.test"},
		Files: map[string]string{"signed.zone": empty, "broken.zone": empty, "root.zone": empty + "test IN TXT \"where looking for CAA records ends\"\n"}})
	validator := start(testbed.NamedConfig{Conf: validatorConf, Data: server.Port()})
	s.startCA(t, testbed.CAConfig{DNS: server.Addr()})
	s.providers = []string{fmt.Sprintf("[provider.bind]\ntype = \"rfc2136\"\nserver = %q\nkey_name = \"acme-key\"\nkey = %q\n%s\n",
		server.Addr(), secret, nameservers(server.Addr()))}
	s.tables = fmt.Sprintf("[resolvers]\npublic = [%q]\n", validator.Addr())
	s.hostnames = []string{"www.signed.test", "www.broken.test"}
	s.write(t)

	r := s.command(t, "check", "--live")
	for _, words := range []string{"failure  broken.test", "DNSSEC", "signatures of broken.test bogus", "issuing would fail for www.broken.test"} {
		if r.status != exitFailed || !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), strings.Join(strings.Fields(words), " ")) {
			t.Errorf("status %d, and nothing says %q:\n%s%s", r.status, words, r.stdout, r.stderr)
		}
	}
	if orders := s.ca.NewOrders(); orders != 0 {
		t.Errorf("%d orders", orders)
	}
	if r := s.command(t, "renew", "www.signed.test"); r.status != exitDone {
		t.Errorf("status %d:\n%s", r.status, r.stderr)
	}
	if _, err := s.pair("www.signed.test"); err != nil {
		t.Error(err)
	}
	for _, zone := range []string{"signed.test", "broken.test"} {
		if left, err := testbed.TXT(t.Context(), server.Addr(), zone); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", zone, left, err)
		}
	}
}
