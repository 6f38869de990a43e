package zones

import (
	"fmt"
	"strings"
	"testing"

	"autocertd/internal/testbed"
)

// caaZones are zones under a top of their own. The middle one has no records at its apex.
func caaZones(t *testing.T) *testbed.BIND {
	t.Helper()
	return startBIND(t, testbed.BINDConfig{Zones: []testbed.BINDZone{
		{Name: "test", Records: []string{`@ IN CAA 0 issue "top.invalid"`}},
		{Name: "example.test", Records: []string{
			`www IN CAA 0 issue "ca.invalid; validationmethods=dns-01"`,
			`www IN CAA 128 iodef "mailto:me@example.test"`,
			`alias IN CNAME www`,
			`far IN CNAME cdn.corp.test.`,
			`lost IN CNAME nowhere.invalid.`,
			`bare IN CNAME ns1`,
			`ring IN CNAME ring.corp.test.`,
			`cut IN NS ns1.cut`, `ns1.cut IN A 127.0.0.99`,
		}},
		{Name: "corp.test", Records: []string{
			`@ IN CAA 0 issuewild ";"`,
			`cdn IN CAA 0 issue "cdn.invalid"`,
			`*.star IN CAA 0 issue "star.invalid"`,
			`ring IN CNAME ring.example.test.`,
		}},
	}})
}

func TestCAA(t *testing.T) {
	b := caaZones(t)
	bind := Provider{Name: "bind", Servers: []string{b.Addr()}, Zones: []string{"example.test", "corp.test"}}
	lone := Provider{Name: "bind", Servers: []string{b.Addr()}}
	api := Provider{Name: "api", Zones: []string{"example.test"}}
	tests := []struct {
		name, host string
		provider   Provider
		resolver   bool
		want, err  string
	}{
		{name: "at the name itself", host: "WWW.example.test.", provider: bind,
			want: `www.example.test: 0 issue "ca.invalid; validationmethods=dns-01", 128 iodef "mailto:me@example.test"`},
		{name: "below a name that has some", host: "deep.www.example.test", provider: bind,
			want: `www.example.test in example.test: 0 issue "ca.invalid; validationmethods=dns-01", 128 iodef "mailto:me@example.test"`},
		{name: "a wildcard begins without its star", host: "*.corp.test", provider: bind, want: `corp.test: 0 issuewild ";"`},
		{name: "records of the star itself are nothing to a wildcard", host: "*.star.corp.test", provider: bind, want: `corp.test: 0 issuewild ";"`},
		{name: "at the zone's apex", host: "host.corp.test", provider: bind, want: `corp.test: 0 issuewild ";"`},
		{name: "an alias in the zone", host: "alias.example.test", provider: bind,
			want: `alias.example.test (www.example.test): 0 issue "ca.invalid; validationmethods=dns-01", 128 iodef "mailto:me@example.test"`},
		{name: "an alias into another zone", host: "far.example.test", provider: bind, want: `far.example.test (cdn.corp.test): 0 issue "cdn.invalid"`},
		{name: "at the top, which a resolver sees", host: "host.example.test", provider: bind, resolver: true, want: `test in example.test: 0 issue "top.invalid"`},
		{name: "an alias whose target has none", host: "bare.example.test", provider: bind, resolver: true, want: `test in example.test: 0 issue "top.invalid"`},
		{name: "a provider without servers", host: "host.example.test", provider: api, resolver: true, want: `test in example.test: 0 issue "top.invalid"`},
		{name: "the top isn't served by a provider", host: "host.example.test", provider: bind, want: `unseen from test in example.test`},
		{name: "an alias that leads out of sight", host: "lost.example.test", provider: bind, want: `unseen from lost.example.test`},
		{name: "a part that others serve", host: "host.cut.example.test", provider: bind, want: `unseen from host.cut.example.test`},
		{name: "a lone provider's servers know the top", host: "host.example.test", provider: lone, want: `test in example.test: 0 issue "top.invalid"`},
		{name: "a lone provider's servers don't know the name", host: "host.other", provider: lone, want: `unseen from host.other`},
		{name: "a resolver that refuses", host: "host.other", provider: bind, resolver: true,
			err: "the CAA records of host.other can't be looked up: " + b.Addr() + " answers REFUSED"},
		{name: "aliases in a circle", host: "ring.example.test", provider: bind,
			err: "the CAA records of ring.example.test can't be looked up: more than 10 CNAMEs in a row lead from it, or they go round in a circle"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var resolvers []string
			if tt.resolver {
				resolvers = []string{b.Addr()}
			}
			set, err := locator(t, resolvers, tt.provider).CAA(t.Context(), tt.host)
			if tt.err == "" && err != nil || tt.err != "" && fmt.Sprint(err) != tt.err {
				t.Errorf("error: %v\nwant:  %s", err, tt.err)
			}
			if got := describe(set); got != tt.want {
				t.Errorf("found %s\nwant  %s", got, tt.want)
			}
		})
	}
}

// describe is a set on one line.
func describe(set CAASet) string {
	var records []string
	for _, r := range set.Records {
		records = append(records, r.String())
	}
	at := set.Domain
	if set.Unseen != "" {
		at = "unseen from " + set.Unseen
	}
	if set.Owner != set.Domain {
		at += " (" + set.Owner + ")"
	}
	if set.Zone != "" && set.Zone != set.Domain {
		at += " in " + set.Zone
	}
	if len(records) > 0 {
		at += ": " + strings.Join(records, ", ")
	}
	return at
}

// Without a server of ours, this machine's resolvers are all there is.
func TestCAAAsksThisMachine(t *testing.T) {
	b := caaZones(t)
	s := asking(nil, Provider{Name: "api"})
	s.cfg.System = func() ([]string, error) { return []string{b.Addr()}, nil }
	set, err := s.CAA(t.Context(), "host.corp.test")
	if got := describe(set); err != nil || got != `corp.test: 0 issuewild ";"` {
		t.Errorf("found %s, %v", got, err)
	}
}
