package zones

import (
	"slices"
	"strings"
	"testing"

	"autocertd/internal/secret"
)

func TestQuorum(t *testing.T) {
	const (
		primary = "P"
		hidden  = "H"
	)
	tests := []struct {
		name    string
		members string // server/address, with a + when it has the record, and a - when it says nothing; P is the primary, H a primary that isn't listed
		enough  int
		want    bool
	}{
		{"all servers have the record", "P/1+ b/1+ c/1+", 0, true},
		{"all but one", "P/1+ b/1+ c/1", 0, false},
		{"two are enough", "P/1+ b/1 c/1+", 2, true},
		{"two are enough, and one has it", "P/1+ b/1 c/1", 2, false},
		{"two others have it, and the primary hasn't", "P/1 b/1+ c/1+", 2, false},
		{"one is enough, which is the primary", "P/1+ b/1 c/1", 1, true},
		{"a primary that nobody else asks isn't counted", "H/1+ b/1 c/1", 1, false},
		{"but must have it", "H/1 b/1+ c/1+", 1, false},
		{"and has", "H/1+ b/1+ c/1", 1, true},
		{"without a limit it must have it, too", "H/1 b/1+ c/1+", 0, false},
		{"a server with two addresses is one", "P/1+ P/2+ b/1 c/1", 2, false},
		{"it has the record when both have", "P/1+ b/1+ b/2 c/1", 2, false},
		{"and no matter in which order", "P/1+ b/1 b/2+ c/1", 2, false},
		{"nor when one says nothing", "P/1+ b/1+ b/2-", 0, false},
		{"unless one server is enough, or two: another address has it", "P/1+ b/1+ b/2-", 2, true},
		{"an address of the primary says nothing", "P/1+ P/2- b/1+", 2, true},
		{"none of its addresses says anything", "P/1- P/2- b/1+ c/1+", 2, false},
		{"an address of a lone server says nothing", "P/1+ P/2-", 1, true},
		{"it answers that it lacks the record", "P/1+ P/2", 1, false},
		{"where there are fewer servers, all of them are needed", "P/1+ b/1", 3, false},
		{"and are enough", "P/1+ b/1+", 3, true},
		{"of several primaries none is known to have taken the update", "a/1 b/1+ c/1+", 2, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := &quorum{enough: tt.enough}
			for text := range strings.FieldsSeq(tt.members) {
				name, addr, _ := strings.Cut(text, "/")
				m := &member{endpoint: endpoint{server: server{addr: addr}, name: name}}
				m.primary, m.hidden = name == primary || name == hidden, name == hidden
				m.items = []*item{{seen: true}, {seen: strings.HasSuffix(addr, "+")}}
				if strings.HasSuffix(addr, "-") {
					m.items = []*item{{silent: true}, {silent: true}}
				}
				q.members = append(q.members, m)
			}
			if got := q.satisfied(); got != tt.want {
				t.Errorf("satisfied: %v, want %v", got, tt.want)
			}
			slices.Reverse(q.members)
			if got := q.satisfied(); got != tt.want {
				t.Errorf("the other way round: %v, want %v", got, tt.want)
			}
		})
	}
}

// Who must have the records, and what it means, when servers are given by name or listed elsewhere.
func TestEndpointsOfPrimaries(t *testing.T) {
	d := startDNS(t, []string{"example.test"})
	port := d.Addr()[strings.LastIndexByte(d.Addr(), ':'):]
	by := func(e endpoint) string {
		text := e.String()
		if e.primary {
			text += " primary"
		}
		if e.hidden {
			text += " hidden"
		}
		if e.key != nil {
			text += " signed"
		}
		return text
	}
	known := d.Key("acme-key")
	k := &Key{Name: known.Name, Algorithm: known.Algorithm, Secret: secret.New(known.Secret)}
	tests := []struct {
		name string
		Provider
		want []string
	}{
		{"the primary among the NS records", Provider{Servers: []string{d.Addr()}}, []string{"ns1.example.test (" + d.Addr() + ") primary signed"}},
		{"the primary given by name is the one in the NS records", Provider{Servers: []string{"localhost" + port}},
			[]string{"ns1.example.test (" + d.Addr() + ") primary signed"}},
		{"the primary among the listed servers", Provider{Servers: []string{d.Addr()}, Nameservers: []string{"127.0.0.7:53", d.Addr(), "127.0.0.7:53"}},
			[]string{"127.0.0.7:53", d.Addr() + " primary signed"}},
		{"a primary that isn't listed", Provider{Servers: []string{d.Addr()}, Nameservers: []string{"127.0.0.7:53"}},
			[]string{"127.0.0.7:53", d.Addr() + " primary hidden signed"}},
		{"the primary alone", Provider{Servers: []string{d.Addr()}, Check: CheckPrimary}, []string{d.Addr() + " primary signed"}},
		{"several primaries", Provider{Servers: []string{d.Addr(), "127.0.0.8:53"}, Nameservers: []string{"127.0.0.8:53", "127.0.0.7:53"}},
			[]string{"127.0.0.8:53 signed", "127.0.0.7:53"}},
		{"a listed server whose name leads nowhere is left to whoever dials it", Provider{Nameservers: []string{"nowhere.invalid:53"}}, []string{"nowhere.invalid:53"}},
	}
	s := locator(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.Key = k
			list, err := s.endpoints(t.Context(), tt.Provider, "example.test")
			var got []string
			for _, e := range list {
				got = append(got, by(e))
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
}
