//go:build linux

package dns01

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/libdns/libdns"

	"autocertd/internal/testbed"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// personClient is a provider that is a person.
type personClient struct{ t *testing.T }

func (c personClient) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	c.t.Error("a person was called")
	return nil, nil
}

func (c personClient) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	c.t.Error("a person was called")
	return nil, nil
}

// TestByHand looks at records that a person has written into BIND, or hasn't.
func TestByHand(t *testing.T) {
	bind, err := testbed.StartBIND(t.Context(), testbed.BINDConfig{Dir: t.TempDir(), Secondaries: []testbed.Secondary{{}},
		Zones: []testbed.BINDZone{{Name: "example.test", Records: []string{
			`_acme-challenge.here IN TXT "value"`, `_acme-challenge.stale IN TXT "earlier"`,
			`_acme-challenge.alias IN CNAME _acme-challenge.here.example.test.`, `_acme-challenge.mail IN HINFO "cpu" "os"`}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bind.Close() })
	primary, secondary := bind.Servers()[0], bind.Servers()[1]
	people := Provider{
		Provider: zones.Provider{Name: "people", Nameservers: bind.Servers(), Check: zones.CheckNone},
		Client:   personClient{t},
		Manual:   true,
	}
	rehearsing := New(Config{}).With([]Provider{people}, []string{primary})
	if r := rehearsing.Rehearse(t.Context(), "_acme-challenge.here.example.test", func(string) {}); !r.ByHand || r.Err != nil || r.Target.Zone != "example.test" {
		t.Errorf("a rehearsal: %+v", r)
	}
	look := func(name string, p Provider) error {
		s := New(Config{}).With([]Provider{p}, []string{primary})
		sol := s.begin()
		defer func() {
			sol.Remove()
			if err := s.Close(t.Context()); err != nil || s.Left() > 0 {
				t.Errorf("%s: %d records left, %v", name, s.Left(), err)
			}
		}()
		records := []issuer.Record{{Name: name, Value: "value"}}
		published, looked := sol.Publish(t.Context(), records), sol.Look(t.Context(), records)
		if (published == nil) != (looked == nil) {
			t.Errorf("%s: to publish it gives %v, to look for it %v", name, published, looked)
		}
		return published
	}
	rows := []struct {
		host  string
		place string // "" when it is found
		says  string // of each server
	}{
		{"here", "", ""},
		{"alias", "", ""},
		{"nowhere", "nowhere", "has no such name (NXDOMAIN)"},
		{"stale", "stale", "has other values only"},
		{"mail", "mail", "has no TXT record"},
	}
	for _, row := range rows {
		err := look("_acme-challenge."+row.host+".example.test", people)
		waiting, ok := errors.AsType[*issuer.ByHandError](err)
		if ok != (row.place != "") || !ok && err != nil {
			t.Errorf("%s: %v", row.host, err)
		}
		if !ok {
			continue
		}
		asked := " " + row.says + " when asked for _acme-challenge." + row.place + ".example.test"
		if want := []string{primary + asked, secondary + asked}; !slices.Equal(waiting.Missing, want) {
			t.Errorf("%s: it lacks %q, want %q", row.host, waiting.Missing, want)
		}
	}

	if err := bind.Kill(1); err != nil {
		t.Fatal(err)
	}
	const name = "_acme-challenge.here.example.test"
	if err := look(name, people); err == nil || !strings.Contains(err.Error(), secondary+" doesn't") || strings.Contains(err.Error(), primary) {
		t.Errorf("with a dead secondary: %v", err)
	}
	people.MinNameservers = 1
	if err := look(name, people); err != nil {
		t.Errorf("with a dead secondary, when one server is enough: %v", err)
	}
}
