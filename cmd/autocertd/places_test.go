//go:build linux

package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"autocertd/internal/term"
	"autocertd/internal/testbed"
)

// placesConf is a server with two views of one zone: who asks 127.0.0.1 sees the inner one, who asks [::1] the outer one, and
// so does what is signed with a key. The outer view has a second zone, with a key of its own.
const placesConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 port {{.Port}} { ::1; }; reuseport no;
	recursion no; dnssec-validation no; notify no; empty-zones-enable no;
};
controls { };
key "corp-key" { algorithm hmac-sha256; secret "{{.Data}}"; };
key "acme-key" { algorithm hmac-sha256; secret "{{.Data}}"; };
view "update" {
	match-clients { key "corp-key"; key "acme-key"; };
	zone "example.test" { type primary; file "outer.zone"; update-policy { grant "corp-key" subdomain example.test. TXT; }; };
	zone "acme.test" { type primary; file "acme.zone"; update-policy { grant "acme-key" subdomain acme.test. TXT; }; };
};
view "outer" {
	match-destinations { ::1; };
	recursion yes; // else it doesn't follow a CNAME from zone to zone, which the CA's resolver does
	zone "example.test" { in-view "update"; };
	zone "acme.test" { in-view "update"; };
};
view "inner" {
	zone "example.test" { type primary; file "inner.zone"; allow-update { none; }; };
	zone "corp.example.test" { type primary; file "inner.zone"; allow-update { none; }; };
};
`

// TestPlaces gets certificates where the inside sees another zone than the CA, where names are delegated by CNAMEs and by a
// DNAME to a zone with another key, and where a wildcard CNAME answers for every name. A circle of CNAMEs fails alone.
func TestPlaces(t *testing.T) {
	t.Parallel()
	const secret = "YSBzZWNyZXQgb2YgdGhlIHRlc3QgZm9yIHRoZSB2aWV3cw=="
	zoneText := func(lines ...string) string {
		return "$TTL 60\n@ IN SOA ns hostmaster 1 300 60 86400 5\n@ IN NS ns\nns IN A 127.0.0.1\n" + strings.Join(lines, "\n") + "\n"
	}
	s := &site{dir: t.TempDir(), schedule: "@every 1s"}
	n, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: s.dir, Conf: placesConf, Data: secret, Zones: []string{zone}, Files: map[string]string{
		"inner.zone": zoneText("*.wild CNAME www"),
		"outer.zone": zoneText("_acme-challenge.two CNAME two.hop", "two.hop CNAME two.acme.test.", "moved DNAME moved.acme.test.",
			"*.wild CNAME www", "www AAAA ::1", "_acme-challenge.loop CNAME pool", "pool CNAME _acme-challenge.loop"),
		"acme.zone": zoneText(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	outside := net.JoinHostPort("::1", strconv.Itoa(n.Port()))
	s.startCA(t, testbed.CAConfig{DNS: outside})
	for name, zone := range map[string]string{"corp": zone, "acme": "acme.test"} {
		s.providers = append(s.providers, fmt.Sprintf("[provider.%s]\ntype = \"rfc2136\"\nserver = %q\nzones = [%q]\nkey_name = \"%s-key\"\nkey = %q\n%s\n",
			name, n.Addr(), zone, name, secret, nameservers(outside)))
	}
	good := []string{"plain." + zone, "www.corp." + zone, "two." + zone, "host.moved." + zone, "any.wild." + zone}
	s.hostnames = append([]string{"loop." + zone}, good...)
	d := s.start(t)
	s.deployed(t, good...)
	status := s.failing(t, "loop."+zone)
	if want := "_acme-challenge.loop.example.test -> pool.example.test -> _acme-challenge.loop.example.test: the CNAMEs go round in a circle; remove one of them"; !strings.HasSuffix(term.WithCure(status.Issue.Error, status.Issue.Cure), want) {
		t.Errorf("status says %s", status.Issue.Error)
	}
	d.stop(t)
	for _, zone := range []string{zone, "acme.test"} {
		if left, err := testbed.TXT(t.Context(), outside, zone); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", zone, left, err)
		}
	}
}
