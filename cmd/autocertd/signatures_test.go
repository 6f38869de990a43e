//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"autocertd/internal/testbed"
)

// serverLog collects what servers log.
type serverLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines are those that have one of the words.
func (l *serverLog) lines(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		for _, w := range words {
			if strings.Contains(line, w) {
				found = append(found, line)
				break
			}
		}
	}
	return found
}

// viewsByKey is a server on which the key opens the view that takes updates; who asks without it sees the same zone, and the
// log says so.
const viewsByKey = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion no; dnssec-validation no; notify no; empty-zones-enable no; allow-transfer { 127.0.0.0/8; }; querylog yes;
	tcp-listen-queue 512; tcp-clients 1000;
};
controls { };
key "acme-key" { algorithm hmac-sha256; secret "{{.Data}}"; };
view "with-key" {
	match-clients { key acme-key; };
	zone "example.test" { type primary; file "zone.db"; update-policy { grant acme-key subdomain example.test. TXT; }; };
};
view "without" {
	match-clients { any; };
	zone "example.test" { in-view "with-key"; };
};
`

// TestSignatures has ten hosts and a certificate of 60 names, whose records are looked for at the same time by signed
// questions. No server finds a signature wrong, and where views are chosen by the key no question of ours comes without it.
func TestSignatures(t *testing.T) {
	t.Parallel()
	names := make([]string, 60)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.%s", i, zone)
	}
	many := fmt.Sprintf("[[certificate]]\nname = \"many\"\nhostnames = [%s]\n", quoted(names))
	issue := func(t *testing.T, s *site) {
		s.hostnames, s.tables = hosts(10), many
		s.write(t)
		s.renewed(t)
		if err := s.pairs(s.hostnames...); err != nil {
			t.Error(err)
		}
		if _, err := s.pair("many", names...); err != nil {
			t.Error(err)
		}
	}
	right := func(t *testing.T, log *serverLog) {
		if bad := log.lines("BADSIG", "BADKEY", "invalid signature", "tsig verify failure"); len(bad) > 0 {
			t.Errorf("%d signatures were wrong, such as %s", len(bad), bad[0])
		}
	}
	t.Run("a primary and a secondary", func(t *testing.T) {
		log := &serverLog{}
		s := newSite(t, siteConfig{bind: testbed.BINDConfig{Secondaries: make([]testbed.Secondary, 1), Log: log}})
		issue(t, s)
		right(t, log)
	})
	t.Run("views by key", func(t *testing.T) {
		log := &serverLog{}
		const secret = "c2VjcmV0IG9mIHRoZSB0ZXN0IG9mIHRoZSB2aWV3cyE="
		n, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: t.TempDir(), Conf: viewsByKey, Zones: []string{zone}, Data: secret, Log: log,
			Files: map[string]string{"zone.db": "$TTL 60\n@ IN SOA ns1 hostmaster 1 300 60 86400 5\n@ NS ns1\nns1 A 127.0.0.1\n"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		s := &site{dir: t.TempDir(), schedule: "@every 1s"}
		ca := testbed.CAConfig{DNS: n.Addr()}
		s.startCA(t, ca)
		s.providers = []string{fmt.Sprintf("[provider.bind]\ntype = \"rfc2136\"\nserver = %q\nkey_name = \"acme-key\"\nkey = %q\n%s\n", n.Addr(), secret, nameservers(n.Addr()))}
		issue(t, s)
		right(t, log)
		for _, line := range log.lines("view without: query: _acme-challenge.") {
			_, rest, _ := strings.Cut(line, " IN ")
			if flags := strings.Fields(rest); len(flags) < 2 || !strings.Contains(flags[1], "T") { // the CA alone asks by TCP
				t.Errorf("a question of ours came without its key: %s", line)
			}
		}
		if len(log.lines("view with-key: query: _acme-challenge.")) == 0 {
			t.Error("no question came with the key")
		}
	})
}

// TestCASeesAnotherView has a CA that asks a server without the record, though ours have it.
func TestCASeesAnotherView(t *testing.T) {
	t.Parallel()
	outside, err := testbed.StartDNS(testbed.DNSConfig{Zones: []string{zone}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	s := newSite(t, siteConfig{})
	s.startCA(t, testbed.CAConfig{DNS: outside.Addr()})
	s.hostnames = []string{"www." + zone}
	s.write(t)
	r := s.command(t, "renew")
	for _, words := range []string{"the server that was asked had the record, so the CA sees another view of the zone (split horizon)", "autocertd check --live"} {
		if r.status != 1 || !strings.Contains(r.stderr, words) {
			t.Errorf("renew ends with %d and doesn't say %q:\n%s", r.status, words, r.stderr)
		}
	}
}
