//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/testbed"
)

// culpritTime bounds how long nine certificates take beside a name that the server doesn't take. It is about the group that
// is divided, not about the machine: while that one name held up the others, they took half an hour.
const culpritTime = 30 * time.Second

// zoneServer is a DNS server of whatever kind that takes updates of example.test.
type zoneServer struct {
	addr string
	kind string // of provider
	key  string // file
	txt  func(ctx context.Context) (map[string][]string, error)
	stop func() error
}

func bindServer(t *testing.T, z testbed.BINDZone) zoneServer {
	t.Helper()
	z.Name = zone
	b, err := testbed.StartBIND(t.Context(), testbed.BINDConfig{Dir: t.TempDir(), Zones: []testbed.BINDZone{z}})
	if err != nil {
		t.Fatal(err)
	}
	return zoneServer{b.Addr(), "rfc2136", b.KeyFile("acme-key"),
		func(ctx context.Context) (map[string][]string, error) { return b.TXT(ctx, zone) }, b.Close}
}

// answering is a server that answers rcode to all updates with the name, additions and removals alike.
func answering(t *testing.T, kind string, rcode int, name string) zoneServer {
	t.Helper()
	d, err := testbed.StartDNS(testbed.DNSConfig{Zones: []string{zone}})
	if err != nil {
		t.Fatal(err)
	}
	d.OnUpdate(func(m *dns.Msg) (int, bool) {
		if slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Name == name+"." }) {
			return rcode, true
		}
		return dns.RcodeSuccess, true
	})
	k := d.Key("acme-key")
	file := filepath.Join(t.TempDir(), "tsig.key")
	text := fmt.Sprintf("key %q {\n\talgorithm %s;\n\tsecret %q;\n};\n", k.Name, k.Algorithm, k.Secret)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return zoneServer{d.Addr(), kind, file, func(context.Context) (map[string][]string, error) { return d.All(), nil }, d.Close}
}

// TestOneCulprit has ten hosts of one zone whose records leave in one update, and one name that the server doesn't take;
// each row has another reason. The nine others are issued, the error has that name, and no record of ours is left.
func TestOneCulprit(t *testing.T) {
	const culprit = "h003." + zone
	const challenge = "_acme-challenge." + culprit
	const second = "h007." + zone
	var full []string // as many records as BIND lets a name have
	for i := range 100 {
		full = append(full, fmt.Sprintf("_acme-challenge.h003 IN TXT stale%d", i))
	}
	var allowed, granted []string
	for _, h := range hosts(10) {
		if h != culprit {
			allowed = append(allowed, "_acme-challenge."+strings.TrimSuffix(h, "."+zone))
			granted = append(granted, fmt.Sprintf("grant acme-key name _acme-challenge.%s. TXT", h))
		}
	}
	tests := []struct {
		name   string
		start  func(t *testing.T) zoneServer
		says   string // beside the name
		also   string // what is said of the second culprit; "" when there is none
		others int    // records of others
		lines  string // of the provider
	}{
		{name: "a name that is full", start: func(t *testing.T) zoneServer { return bindServer(t, testbed.BINDZone{Records: full}) }, says: "SERVFAIL", others: 100},
		{name: "a name that update-policy forbids", start: func(t *testing.T) zoneServer { return bindServer(t, testbed.BINDZone{Policy: granted}) }, says: "REFUSED"},
		{name: "a name with a CNAME", says: "the servers refuse it",
			start: func(t *testing.T) zoneServer {
				return bindServer(t, testbed.BINDZone{Records: []string{"_acme-challenge.h003 IN CNAME h003.elsewhere.invalid."}})
			}},
		{name: "a name below a DNAME", says: "remove the DNAME at " + culprit,
			start: func(t *testing.T) zoneServer {
				return bindServer(t, testbed.BINDZone{Records: []string{"h003 IN DNAME h003.elsewhere.invalid."}})
			}},
		{name: "a name that is delegated", says: "delegated to other servers",
			start: func(t *testing.T) zoneServer {
				return bindServer(t, testbed.BINDZone{Records: []string{"_acme-challenge.h003 IN NS ns.elsewhere.invalid."}})
			}},
		{name: "two names for two reasons, one of them a deny", says: "too many records", also: "above any deny", others: 100,
			start: func(t *testing.T) zoneServer {
				return bindServer(t, testbed.BINDZone{Records: full, Policy: []string{"deny acme-key name _acme-challenge." + second + ". TXT", "grant acme-key zonesub TXT"}})
			}},
		{name: "PowerDNS drops it", says: "took the update and doesn't have the record", lines: `propagation_timeout = "3s"`,
			start: func(t *testing.T) zoneServer {
				p, err := testbed.StartPowerDNS(t.Context(), testbed.ProductConfig{Dir: t.TempDir(), Zones: []string{zone},
					Policy: fmt.Sprintf("function updatepolicy(input)\n return tostring(input:getQName()) ~= \"%s.\"\nend\n", challenge)})
				if err != nil {
					t.Fatal(err)
				}
				return zoneServer{p.Addr(), "rfc2136", p.KeyFile("acme-key"), func(ctx context.Context) (map[string][]string, error) { return p.TXT(ctx, zone) }, p.Close}
			}},
		{name: "a name that is too long for the server", says: "FORMERR",
			start: func(t *testing.T) zoneServer { return answering(t, "rfc2136", dns.RcodeFormatError, challenge) }},
		{name: "a name that Knot's acl forbids", says: "NOTAUTH", start: func(t *testing.T) zoneServer {
			k, err := testbed.StartKnot(t.Context(), testbed.ProductConfig{Dir: t.TempDir(), Zones: []string{zone}, Names: allowed})
			if err != nil {
				t.Fatal(err)
			}
			return zoneServer{k.Addr(), "rfc2136", k.KeyFile("acme-key"), func(ctx context.Context) (map[string][]string, error) { return k.TXT(ctx, zone) }, k.Close}
		}},
		{name: "SERVFAIL for one name", says: "SERVFAIL", start: func(t *testing.T) zoneServer { return answering(t, "rfc2136", dns.RcodeServerFailure, challenge) }},
		{name: "SERVFAIL for one name, by nsupdate as with Samba", says: "SERVFAIL",
			start: func(t *testing.T) zoneServer { return answering(t, "nsupdate", dns.RcodeServerFailure, challenge) }},
	}
	t.Parallel()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			z := tt.start(t)
			t.Cleanup(func() { _ = z.stop() })
			s := &site{dir: t.TempDir(), schedule: "@every 1s", hostnames: hosts(10)}
			s.startCA(t, testbed.CAConfig{DNS: z.addr})
			s.providers = []string{fmt.Sprintf("[provider.bind]\ntype = %q\nserver = %q\nkey_file = %q\n%s\n%s\n", z.kind, z.addr, z.key, nameservers(z.addr), tt.lines)}
			good := slices.DeleteFunc(slices.Clone(s.hostnames), func(h string) bool { return h == culprit || tt.also != "" && h == second })
			begin := time.Now()
			d := s.start(t)
			s.deployed(t, good...)
			if took := time.Since(begin); took > culpritTime {
				t.Errorf("nine certificates took %s", took)
			}
			d.tells(t, "level=WARN", "certificate="+culprit, challenge, tt.says)
			if tt.also != "" {
				d.tells(t, "level=WARN", "certificate="+second, tt.also)
			}
			for _, h := range good {
				if strings.Contains(d.says(t), "level=WARN msg=\"certificate not issued\" certificate="+h) {
					t.Errorf("%s failed as well", h)
				}
			}
			d.stop(t)
			left, err := z.txt(t.Context())
			n := 0
			for name, values := range left {
				if n += len(values); name != challenge {
					t.Errorf("left at %s: %q", name, values)
				}
			}
			if err != nil || n != tt.others {
				t.Errorf("%d TXT records are left, want %d of others: %v", n, tt.others, err)
			}
		})
	}
}
