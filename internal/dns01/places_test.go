package dns01

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/internal/zones"
)

// viewsConf is a server with two views of one zone. Who asks 127.0.0.1 sees the inner one, who asks [::1] the outer one;
// what is signed with the key goes to the outer one, wherever it comes in.
const viewsConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 port {{.Port}} { ::1; }; reuseport no;
	recursion no; dnssec-validation no; notify no; empty-zones-enable no;
};
controls { };
key "{{.Data.Name}}" { algorithm {{.Data.Algorithm}}; secret "{{.Data.Secret}}"; };
view "update" {
	match-clients { key "{{.Data.Name}}"; };
	zone "example.test" { type primary; file "outer.zone"; update-policy { grant "{{.Data.Name}}" subdomain example.test. TXT; }; };
};
view "outer" {
	match-destinations { ::1; };
	zone "example.test" { in-view "update"; };
};
view "inner" {
	zone "example.test" { type primary; file "inner.zone"; allow-update { none; }; };
	zone "corp.example.test" { type primary; file "inner.zone"; };
};
`

// views starts the server with two views and returns the provider that updates the outer one through the inner address.
func views(t *testing.T) (p Provider, outside string) {
	t.Helper()
	key := testbed.TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: "c2VjcmV0IG9mIHRoZSB0ZXN0IGZvciB0aGUgdmlld3M="}
	n := startNamed(t, testbed.NamedConfig{Conf: viewsConf, Data: key, Zones: []string{"example.test"}, Files: map[string]string{
		"inner.zone": zoneText("inner"), "outer.zone": zoneText("outer")}})
	outside = net.JoinHostPort("::1", strconv.Itoa(n.Port()))
	p = rfc2136(t, n.Addr(), key)
	p.Nameservers, p.PropagationTimeout = []string{outside}, patience
	return p, outside
}

// TestViews has a zone that is another one from inside, with a zone cut that the outside doesn't know. Only the key opens the
// view that the CA sees.
func TestViews(t *testing.T) {
	p, outside := views(t)
	s := New(Config{Storage: openFiles(t, t.TempDir())})
	s.Adopt(s.With([]Provider{p}, []string{outside}))
	defer closeSolver(t, s)

	r := s.Rehearse(t.Context(), "_acme-challenge.www.corp.example.test", func(string) {})
	defer r.End()
	if r.Err != nil || r.Target.Zone != "example.test" || len(r.Sightings) != 2 {
		t.Errorf("with the key: %+v", r)
	}
	views := s.Zones().Views(t.Context(), "bind", "example.test")
	if len(views) != 3 || views[0].Same(views[1]) || !views[0].Same(views[2]) {
		t.Errorf("the key opens the view of the outside, not that of the inside: %+v", views)
	}
	p.Key = nil
	configure(s, p)
	if trace, err := s.Zones().Locate(t.Context(), "_acme-challenge.www.corp.example.test"); err != nil || trace.Zone != "corp.example.test" {
		t.Errorf("without the key, from inside: %+v, %v", trace, err)
	}
}

// place is a row of a table: where a host's record goes, or which words the error has.
type place struct {
	name, host           string
	provider, zone, want string
	err                  []string
}

func (p place) check(t *testing.T, s *Solver) {
	t.Helper()
	target, err := s.Zones().Locate(t.Context(), "_acme-challenge."+p.host)
	got := [3]string{target.Provider, target.Zone, target.Name()}
	if want := ([3]string{p.provider, p.zone, p.want}); err == nil && got != want {
		t.Errorf("found %+v, want %+v", got, want)
	}
	if (err != nil) != (len(p.err) > 0) {
		t.Errorf("error: %v", err)
	}
	for _, words := range p.err {
		if err != nil && !strings.Contains(said(err), words) {
			t.Errorf("error %q doesn't say %q", err, words)
		}
	}
}

// aliasesConf is a server with two zones and a key for each. The first delegates a name to a server that isn't there.
const aliasesConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion no; dnssec-validation no; notify no; empty-zones-enable no;
};
controls { };
{{range .Data}}
key "{{.Name}}" { algorithm {{.Algorithm}}; secret "{{.Secret}}"; };
{{end}}
zone "example.test" { type primary; file "example.zone"; update-policy { grant "corp-key" subdomain example.test. TXT; }; };
zone "acme.test" { type primary; file "acme.zone"; update-policy { grant "acme-key" subdomain acme.test. TXT; }; };
zone "_acme-challenge.own.example.test" { type primary; file "own.zone"; update-policy { grant "corp-key" subdomain example.test. TXT; }; };
`

// TestAliasesOnBIND follows what real zones say, and publishes there.
func TestAliasesOnBIND(t *testing.T) {
	keys := []testbed.TSIGKey{
		{Name: "corp-key", Algorithm: "hmac-sha256", Secret: "c2VjcmV0IG9mIHRoZSB0ZXN0IGZvciB0aGUgem9uZQ=="},
		{Name: "acme-key", Algorithm: "hmac-sha512", Secret: "YW5vdGhlciBzZWNyZXQgb2YgdGhlIHRlc3QgZm9yIHRoZSB6b25l"},
	}
	n := startNamed(t, testbed.NamedConfig{Conf: aliasesConf, Data: keys, Zones: []string{"example.test", "acme.test"}, Files: map[string]string{
		"example.zone": zoneText("ns1",
			"_acme-challenge.two   CNAME two.hop",
			"two.hop               CNAME two.acme.test.",
			"moved                 DNAME moved.acme.test.",
			"*.wild                CNAME www",
			"*.park                CNAME park.elsewhere.invalid.",
			"*.given               CNAME given.acme.test.",
			"_acme-challenge.loop  CNAME loop.acme.test.",
			"_acme-challenge.self  CNAME _acme-challenge.self",
			"lab                   NS    ns.lab",
			"ns.lab                A     127.0.0.99",
			"_acme-challenge.own   NS    ns1",
			"www                   A     127.0.0.1"),
		"acme.zone": zoneText("ns1", "loop CNAME _acme-challenge.loop.example.test."),
		"own.zone":  "$TTL 60\n@ IN SOA ns1.example.test. hostmaster.example.test. 1 300 60 86400 5\n@ IN NS ns1.example.test.\n",
	}})
	corp, acme := rfc2136(t, n.Addr(), keys[0]), rfc2136(t, n.Addr(), keys[1])
	acme.Name, acme.Zones = "acme", []string{"acme.test"}
	corp.Check, acme.Check = zones.CheckPrimary, zones.CheckPrimary
	tests := []place{
		{name: "two CNAMEs lead into the zone of another key", host: "two.example.test", provider: "acme", zone: "acme.test", want: "two.acme.test"},
		{name: "a DNAME leads there", host: "host.moved.example.test", provider: "acme", zone: "acme.test", want: "_acme-challenge.host.moved.acme.test"},
		{name: "a wildcard CNAME is no delegation", host: "a.wild.example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.a.wild.example.test"},
		{name: "nor into a zone that nobody serves", host: "a.park.example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.a.park.example.test"},
		{name: "unless a provider of another zone serves its target", host: "a.given.example.test", provider: "acme", zone: "acme.test", want: "given.acme.test"},
		{name: "the challenge name is a zone of its own", host: "own.example.test", provider: "bind", zone: "_acme-challenge.own.example.test", want: "_acme-challenge.own.example.test"},
		{name: "a circle over two zones", host: "loop.example.test",
			err: []string{"_acme-challenge.loop.example.test -> loop.acme.test -> _acme-challenge.loop.example.test: the CNAMEs go round in a circle"}},
		{name: "a circle of one", host: "self.example.test", err: []string{"_acme-challenge.self.example.test -> _acme-challenge.self.example.test: the CNAMEs go round in a circle"}},
		{name: "a part that other servers have", host: "www.lab.example.test",
			err: []string{"no provider serves _acme-challenge.www.lab.example.test, which is in zone lab.example.test, delegated to other servers; add a provider"}},
	}
	s := newSolver(openFiles(t, t.TempDir()), corp, acme)
	defer closeSolver(t, s)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.check(t, s)
			if len(tt.err) > 0 {
				return
			}
			r := s.Rehearse(t.Context(), "_acme-challenge."+tt.host, func(string) {})
			defer r.End()
			if r.Err != nil || len(r.Sightings) != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("a lone provider without zones follows no wildcard either", func(t *testing.T) {
		alone := corp
		alone.Zones = nil
		configure(s, alone)
		place{host: "a.given.example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.a.given.example.test"}.check(t, s)
		place{host: "a.wild.example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.a.wild.example.test"}.check(t, s)
	})
}

// TestRehearsalTellsWhoIsLate has a server that stands still.
func TestRehearsalTellsWhoIsLate(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Secondaries: make([]testbed.Secondary, 1)})
	s := onBIND(t, b, func(p *Provider) { p.PropagationTimeout = time.Second })
	if err := b.Stop(1); err != nil {
		t.Fatal(err)
	}
	var steps []string
	r := s.Rehearse(t.Context(), "_acme-challenge.late.example.test", func(step string) { steps = append(steps, step) })
	defer r.End()
	if err := b.Continue(1); err != nil {
		t.Fatal(err)
	}
	late := fmt.Sprintf("after 1s, 1 of 2 servers have the records: %s ", b.Servers()[1])
	if r.Step != "wait" || r.Err == nil || !strings.HasPrefix(r.Err.Error(), late) || len(r.Sightings) != 2 || r.Sightings[0].Answer != "" {
		t.Errorf("%+v", r)
	}
	if got := strings.Join(steps, " "); got != "locate publish wait" {
		t.Errorf("steps: %s", got)
	}
}
