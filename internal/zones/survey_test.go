package zones

import (
	"slices"
	"strings"
	"testing"

	"autocertd/internal/testbed"
)

func TestFind(t *testing.T) {
	d := startDNS(t, []string{"example.test", "acme.test"},
		`a.example.test. 60 IN TXT "one"`, `a.example.test. 60 IN TXT "two" " halves"`,
		"alias.example.test. 60 IN CNAME a.example.test.")
	other := startDNS(t, []string{"example.test"}, `a.example.test. 60 IN TXT "three"`, `a.example.test. 60 IN TXT "one"`)
	const nobody = "127.0.0.1:1"
	s := asking(nil, Provider{Name: "bind", Zones: []string{"example.test"}, Servers: []string{d.Addr(), other.Addr(), nobody}},
		Provider{Name: "api", Zones: []string{"acme.test"}, Nameservers: []string{other.Addr()}, Check: CheckNone},
		Provider{Name: "silent", Zones: []string{"silent.test"}, Servers: []string{nobody}})
	defer s.Close()
	tests := []struct {
		name, provider, zone, at string
		values                   []string
		err                      string
	}{
		{name: "several servers are asked for all", provider: "bind", zone: "example.test", at: "a.example.test", values: []string{"one", "three", "two halves"}},
		{name: "aliases aren't followed", provider: "bind", zone: "example.test", at: "alias.example.test"},
		{name: "a name that isn't there has no values", provider: "bind", zone: "example.test", at: "none.example.test"},
		{name: "an API's zone is asked at its name servers, whatever orders wait for", provider: "api", zone: "acme.test", at: "x.acme.test", err: other.Addr() + " answers REFUSED"},
		{name: "silence is told", provider: "silent", zone: "silent.test", at: "x.silent.test", err: nobody + " doesn't listen"},
		{name: "a provider that is gone is told", provider: "gone", zone: "example.test", at: "a.example.test", err: "isn't in the configuration any more"},
	}
	var spots []TXTName
	for _, tt := range tests {
		spots = append(spots, TXTName{tt.provider, tt.zone, tt.at})
	}
	found := s.Find(t.Context(), append(spots, spots...))
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := found[spots[i]]
			if !slices.Equal(got.Values, tt.values) || (got.Err != nil) != (tt.err != "") || got.Err != nil && !strings.Contains(got.Err.Error(), tt.err) {
				t.Errorf("found %q (%v)", got.Values, got.Err)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	d := startDNS(t, []string{"example.test"}, "_acme-challenge.alias.example.test. 60 IN CNAME x.silent.test.",
		"_acme-challenge.abroad.example.test. 60 IN CNAME x.foreign.test.")
	s := asking([]string{d.Addr()}, Provider{Name: "bind", Zones: []string{"example.test"}, Servers: []string{d.Addr()}},
		Provider{Name: "silent", Zones: []string{"silent.test", "deep.silent.test"}, Servers: []string{"127.0.0.1:1"}})
	defer s.Close()
	tests := []struct {
		name, at                string
		provider, zone, written string
		fails                   bool
	}{
		{name: "DNS says it", at: "_acme-challenge.WWW.example.test.", provider: "bind", zone: "example.test", written: "_acme-challenge.www.example.test"},
		{name: "for a silent server the configuration says it", at: "a.deep.silent.test", provider: "silent", zone: "deep.silent.test", written: "a.deep.silent.test", fails: true},
		{name: "an alias to a silent server isn't where it starts", at: "_acme-challenge.alias.example.test", written: "x.silent.test", fails: true},
		{name: "an alias to nobody's zone leads nowhere", at: "_acme-challenge.abroad.example.test", written: "x.foreign.test", fails: true},
		{name: "a name that nobody serves has no place", at: "www.foreign.test", written: "www.foreign.test", fails: true},
	}
	var names []string
	for _, tt := range tests {
		names = append(names, tt.at)
	}
	for i, got := range s.Places(t.Context(), names) {
		tt := tests[i]
		t.Run(tt.name, func(t *testing.T) {
			if got.Provider != tt.provider || got.Zone != tt.zone || got.Name() != tt.written || (got.Err != nil) != tt.fails {
				t.Errorf("%s is in zone %q of %q (%v)", got, got.Zone, got.Provider, got.Err)
			}
		})
	}
}

// TestLookForUnserved finds the servers of names that no provider serves.
func TestLookForUnserved(t *testing.T) {
	bind, err := testbed.StartBIND(t.Context(), testbed.BINDConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bind.Close() })
	s := asking([]string{bind.Addr()}, Provider{Name: "people", Zones: []string{"corp.test"}})
	got := s.LookFor(t.Context(), []NameValue{{Name: "_acme-challenge.www.example.test", Value: "value"}})[0]
	if got.Err != nil || got.Target.Zone != "example.test" || len(got.Servers) != 1 || !strings.HasPrefix(got.Servers[0].Server, "ns1.example.test (") || got.Found() {
		t.Errorf("it is %+v", got)
	}
}
