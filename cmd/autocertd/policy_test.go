//go:build linux

package main

import (
	"maps"
	"os/exec"
	"strings"
	"testing"

	"autocertd/internal/preflight"
	"autocertd/internal/testbed"
	"autocertd/internal/zones"
	"autocertd/providers"
)

const challengeZone = "acme.test"

// policyConf is a BIND that allows exactly what was pasted into its zones. It follows aliases from zone to zone, which the
// CA leaves to it.
const policyConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion yes; allow-recursion { 127.0.0.1; }; dnssec-validation no; empty-zones-enable no; notify no;
};
controls { };
key "acme-key" { algorithm hmac-sha256; secret "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"; };
{{- range $zone, $paste := .Data}}
zone "{{$zone}}" {
	type primary; file "{{$zone}}.zone";
	{{$paste}}
};
{{- end}}
`

const policyZone = "$TTL 60\n@ IN SOA ns1 hostmaster ( 1 300 60 86400 5 )\n@ IN NS ns1\nns1 IN A 127.0.0.1\n"

// TestPolicyAndDelegation pastes what check prints into a real BIND, which allows nothing else.
func TestPolicyAndDelegation(t *testing.T) {
	t.Parallel()
	s := &site{dir: t.TempDir(), schedule: "@every 1s", hostnames: []string{"www." + zone, "alias." + zone}}
	s.tables = "[[certificate]]\nname = \"apex\"\nhostnames = [\"example.test\", \"*.example.test\"]\n"
	zoneFile := policyZone + "_acme-challenge.alias IN CNAME alias.acme.test.\n"

	s.serve(t, zoneFile, map[string]string{zone: "", challengeZone: ""})
	if r := s.command(t, "renew"); r.status != exitFailed || strings.Count(r.stderr, "REFUSED") < 3 {
		t.Fatalf("without a policy renew ends with %d:\n%s", r.status, r.stderr)
	}
	r := s.command(t, "check", "--policy")
	blocks := policyBlocks(r.stdout)
	want := map[string]string{
		zone: "update-policy {\n\tgrant acme-key name _acme-challenge.example.test. TXT;\n" +
			"\tgrant acme-key name _acme-challenge.www.example.test. TXT;\n};\n",
		challengeZone: "update-policy {\n\tgrant acme-key name alias.acme.test. TXT;\n};\n",
	}
	if r.status != exitDone || r.stderr != "" || !maps.Equal(blocks, want) {
		t.Fatalf("check --policy ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	s.serve(t, zoneFile, blocks)
	s.issues(t)
	s.hostnames = append(s.hostnames, "another."+zone)
	s.write(t)
	if r := s.command(t, "renew", "another."+zone); r.status != exitFailed || !strings.Contains(r.stderr, "REFUSED") {
		t.Errorf("the policy allows more than was asked for: renew ends with %d:\n%s", r.status, r.stderr)
	}

	r = s.command(t, "check", "--delegation", "ACME.test.")
	if r.status != exitDone || r.stderr != "" {
		t.Fatalf("check --delegation ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	zoneFile += r.stdout
	s.checkZone(t, zoneFile)
	_, policy, _ := strings.Cut(r.stdout, "; For zone acme.test in named.conf:\n")
	s.serve(t, zoneFile, map[string]string{zone: "", challengeZone: strings.ReplaceAll(policy, ";\t", "\t")})
	s.issues(t)
	again := s.command(t, "check", "--delegation", challengeZone).stdout
	if strings.Count(again, "is delegated already, to ") != 4 || strings.Contains(again, " CNAME ") {
		t.Errorf("once all is delegated, check --delegation still prints:\n%s", again)
	}
}

// serve starts a BIND with the zone file, what is pasted into each zone, and a CA that asks it, and configures them.
func (s *site) serve(t *testing.T, zoneFile string, paste map[string]string) {
	t.Helper()
	named, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: s.dir, Conf: policyConf, Data: paste,
		Files: map[string]string{zone + ".zone": zoneFile, challengeZone + ".zone": policyZone}, Zones: []string{zone, challengeZone}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = named.Close() })
	s.startCA(t, testbed.CAConfig{DNS: named.Addr()})
	s.providers = []string{"[provider.bind]\ntype = \"rfc2136\"\nserver = \"" + named.Addr() +
		"\"\nkey_name = \"acme-key\"\nkey = \"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\"\n"}
	s.write(t)
}

// issues wants all certificates anew.
func (s *site) issues(t *testing.T) {
	t.Helper()
	s.renewed(t, "--force")
	if err := s.pairs(s.hostnames...); err != nil {
		t.Error(err)
	}
	if _, err := s.pair("apex", zone, "*."+zone); err != nil {
		t.Error(err)
	}
}

// checkZone lets BIND's own tool read a zone file.
func (s *site) checkZone(t *testing.T, text string) {
	t.Helper()
	s.writeFile(t, "checked.zone", text)
	if said, err := exec.Command("named-checkzone", zone, s.path("checked.zone")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, said, text)
	}
}

// policyBlocks returns what stands below each zone's comment.
func policyBlocks(text string) map[string]string {
	blocks := map[string]string{}
	for part := range strings.SplitSeq(text, "# zone ") {
		if head, block, ok := strings.Cut(part, "\n"); ok {
			name, _, _ := strings.Cut(head, ",")
			blocks[name] = strings.TrimRight(block, "\n") + "\n"
		}
	}
	return blocks
}

func TestPolicyText(t *testing.T) {
	allowed := func(p preflight.Policy, key *zones.Key, product providers.Product) preflight.Policy {
		p.Allow("ns1.corp.example.com:53", key, string(product), &products{})
		return p
	}
	key := &zones.Key{Name: "acme-key"}
	list := []preflight.Policy{
		{Provider: "api", Zone: "example.net"},
		allowed(preflight.Policy{Provider: "bind", Zone: "", Names: []string{"a.example.com"}}, key, providers.BIND),
		allowed(preflight.Policy{Provider: "bind", Zone: "example.com", Names: []string{"b.example.com"}}, key, providers.BIND),
		allowed(preflight.Policy{Provider: "kerberos", Zone: "example.com", Names: []string{"c.example.com"}}, nil, providers.BIND),
		allowed(preflight.Policy{Provider: "silent", Zone: "example.org", Names: []string{"d.example.org"}}, key, providers.UnknownProduct),
		allowed(preflight.Policy{Provider: "knot", Zone: "knot.example", Names: []string{"e.knot.example", "f.knot.example"}}, key, providers.Knot),
		allowed(preflight.Policy{Provider: "power", Zone: "power.example", Names: []string{"g.power.example"}}, key, providers.PowerDNS),
		allowed(preflight.Policy{Provider: "ad", Zone: "ad.example", Names: []string{"h.ad.example"}}, nil, providers.ActiveDirectory),
	}
	const want = `# zone example.net, provider api: nothing is needed, since it sends no dynamic updates of its own

# the zones that hold these names, provider bind
update-policy {
	grant acme-key name a.example.com. TXT;
};

# zone example.com, provider bind
update-policy {
	grant acme-key name b.example.com. TXT;
};

# zone example.com, provider kerberos: a zone has one update-policy, so put these lines into the one above
# The provider has no key of its own: write the Kerberos principal that it uses in place of "PRINCIPAL@REALM"
update-policy {
	grant "PRINCIPAL@REALM" name c.example.com. TXT;
};

# zone example.org, provider silent
# ns1.corp.example.com:53 doesn't say what it runs, so this is for BIND; for others: check --policy=knot, --policy=powerdns, --policy=ad
update-policy {
	grant acme-key name d.example.org. TXT;
};

# zone knot.example, provider knot
# Knot DNS: for knot.conf
acl:
  - id: acme-key-challenges
    key: acme-key
    action: update
    update-type: [TXT]
    update-owner: name
    update-owner-match: equal
    update-owner-name: [e.knot.example., f.knot.example.]
zone:
  - domain: knot.example
    acl: [acme-key-challenges]

# zone power.example, provider power
# PowerDNS: to run on the server; PowerDNS has no rule for single names, so the key may write all of the zone
pdnsutil set-meta power.example TSIG-ALLOW-DNSUPDATE acme-key
pdnsutil set-meta power.example NOTIFY-DNSUPDATE 1

# zone ad.example, provider ad
# Active Directory: to run where samba-tool is; the account may then write all of the zone
samba-tool dsacl set -H ldap://SERVER -U Administrator --sddl="(A;CI;GA;;;SID-OF-THE-ACCOUNT)" --objectdn="DC=ad.example,CN=MicrosoftDNS,DC=DomainDnsZones,DC=DOMAIN"
`
	if got := preflight.PolicyText(list); got != want {
		t.Errorf("the policies are:\n%s", got)
	}
}
