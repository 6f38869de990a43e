//go:build linux

package preflight

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/internal/zones"
)

func TestJudgeViews(t *testing.T) {
	key := zones.View{Who: "ns1 with the key k", Zone: "corp.test", Nameservers: []string{"a.test", "b.test"}, Serial: 1}
	bare, resolver, second := key, key, key
	bare.Who = "ns1 without a key"
	resolver.Who, resolver.Outside, resolver.Serial = "resolver r1", true, 2
	second.Who, second.Outside = "resolver r2", true
	with := func(v zones.View, change func(*zones.View)) zones.View {
		change(&v)
		return v
	}
	others := func(v *zones.View) { v.Nameservers = []string{"x.test", "y.test"} }
	parent := func(v *zones.View) { v.Zone, v.Nameservers = "test", nil }
	nothing := func(v *zones.View) { v.Zone, v.Nameservers = "", nil }
	broken := func(v *zones.View) { v.Zone, v.Nameservers, v.Err = "", nil, errors.New("it doesn't answer") }
	tests := []struct {
		name  string
		views []zones.View
		want  []string // nil: no finding
	}{
		{"nobody to ask", nil, nil},
		{"one view", []zones.View{bare}, []string{"ok: all who were asked say that its name servers are a.test, b.test | "}},
		{"all alike, though a change is on its way", []zones.View{key, bare, resolver}, []string{"ok: all who were asked say that its name servers are a.test, b.test | "}},
		{"the key opens what the outside sees", []zones.View{key, with(bare, others), resolver, second},
			[]string{"ok: ns1 with the key k and resolver r1 and resolver r2: on a.test, b.test; ns1 without a key: on x.test, y.test | "}},
		{"the outside has other servers", []zones.View{key, bare, with(resolver, others)},
			[]string{"warning: ns1 with the key k and ns1 without a key: on a.test, b.test; resolver r1: on x.test, y.test | ", "in [provider.bind]:",
				` | nameservers = ["x.test", "y.test"] | `, ` | check = "primary"`}},
		{"one resolver of two sees other servers", []zones.View{key, resolver, with(second, others)}, []string{"warning: ", ` | nameservers = ["x.test", "y.test"]`}},
		{"a zone with very many servers", []zones.View{with(key, func(v *zones.View) { v.Nameservers = strings.Fields(strings.Repeat("ns.test ", 1000)) })},
			[]string{"ok: all who were asked say that its name servers are ns.test, ns.test, ns.test, ns.test, ns.test and 995 more | "}},
		{"the outside doesn't know the zone", []zones.View{key, bare, with(resolver, parent)},
			[]string{"warning: ", "resolver r1: no such zone, only test | ", " | autocertd check --delegation ZONE | ", " | corp.test. 300 IN NS a.test."}},
		{"the outside knows nothing", []zones.View{key, with(resolver, nothing)}, []string{"warning: ", "resolver r1: no such zone | ", " | autocertd check --delegation ZONE | "}},
		{"the outside doesn't answer", []zones.View{key, with(resolver, broken)}, []string{"warning: ", "resolver r1: it doesn't answer | ", "dig SOA corp.test"}},
		{"nobody answers", []zones.View{with(key, broken)}, []string{"warning: ns1 with the key k: it doesn't answer | ", "public = "}},
		{"two views inside, and nobody outside to ask", []zones.View{key, with(bare, others)},
			[]string{"warning: ns1 with the key k: on a.test, b.test; ns1 without a key: on x.test, y.test | ", "[resolvers] | public = "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			expected{"corp.test", "views", tt.want}.in(t, judgeViews(place{"bind", "corp.test"}, tt.views, nil))
		})
	}
}

// TestJudgeGlances: who doesn't see a record that its servers have.
func TestJudgeGlances(t *testing.T) {
	inside, other := zones.Glance{Who: "ns1 without a key", Key: "k"}, zones.Glance{Who: "resolver r1", Outside: true, Key: "k"}
	blind := func(g zones.Glance) zones.Glance {
		g.Answer = "has no such name (NXDOMAIN)"
		return g
	}
	cached, broken := blind(other), other
	cached.Cached, broken.Err = 7*time.Second, errors.New("it doesn't answer")
	tests := []struct {
		name    string
		glances []zones.Glance
		status  Status
		text    string
		cure    string
	}{
		{"nobody was asked", nil, OK, "", ""},
		{"all see it", []zones.Glance{inside, other}, OK, "; a new record is seen by ns1 without a key, resolver r1", ""},
		{"the outside doesn't", []zones.Glance{inside, blind(other)}, Failure,
			"; a record that its servers have is hidden from the outside: resolver r1 has no such name (NXDOMAIN)", `match-clients { key "k"; … };`},
		{"one resolver of two doesn't", []zones.Glance{other, blind(other)}, Failure, "; a record that its servers have is hidden from the outside: resolver r1 has", "check --delegation"},
		{"only the inside doesn't", []zones.Glance{blind(inside), other}, OK, "; only without the key the inside sees another view", ""},
		{"the inside doesn't, and the outside isn't known", []zones.Glance{blind(inside)}, Warning,
			"; a record that its servers have with the key is hidden without it: ns1 without a key has no such name (NXDOMAIN)", "[resolvers]"},
		{"a resolver remembers that there was nothing", []zones.Glance{inside, cached}, Warning,
			"; whether the outside sees a new record isn't known: resolver r1 has no such name (NXDOMAIN), from its cache, for another 7s", "check again"},
		{"a resolver that doesn't answer is told elsewhere", []zones.Glance{broken}, OK, "", ""},
	}
	for _, tt := range tests {
		f := Finding{Status: OK}
		judgeGlances(&f, place{"bind", "corp.test"}, tt.glances)
		if f.Status != tt.status || !strings.HasPrefix(f.Text, tt.text) || tt.text == "" && f.Text != "" || !strings.Contains(f.Cure, tt.cure) || (f.Status == OK) != (f.Cure == "") {
			t.Errorf("%s: %+v", tt.name, f)
		}
	}
}

// splitConf is a server with two views of one zone: who comes to 127.0.0.1 sees the inner one, to ::1 the outer one.
// The key opens the view that Data names.
const splitConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 port {{.Port}} { ::1; }; reuseport no;
	recursion no; dnssec-validation no; notify no; empty-zones-enable no;
};
controls { };
key "acme-key" { algorithm hmac-sha256; secret "{{.Data.Secret}}"; };
view "update" {
	match-clients { key "acme-key"; };
	zone "example.test" { type primary; file "{{.Data.View}}.zone"; update-policy { grant acme-key subdomain example.test. TXT; }; };
};
view "outer" {
	match-destinations { ::1; };
	zone "example.test" { {{if eq .Data.View "outer"}}in-view "update";{{else}}type primary; file "outer.zone";{{end}} };
};
view "inner" {
	zone "example.test" { {{if eq .Data.View "inner"}}in-view "update";{{else}}type primary; file "inner.zone";{{end}} };
};
`

func TestSplitHorizon(t *testing.T) {
	const soa = "$TTL 60\n@ IN SOA ns hostmaster 1 300 60 86400 5\n"
	key := testbed.TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: "c2VjcmV0IG9mIHRoZSB0ZXN0IGZvciB0aGUgdmlld3M="}
	tests := []struct {
		view string // that the key opens
		want []string
	}{
		{"outer", []string{"ok: ", " with the key acme-key and resolver ", ": on outer.example.test; ", " without a key: on inner.example.test; only without the key the inside sees another view | "}},
		{"inner", []string{"failure: ", " with the key acme-key and ", " without a key: on inner.example.test; resolver ", ": on outer.example.test",
			"; a record that its servers have is hidden from the outside: resolver ", " has no such name (NXDOMAIN) | ", `match-clients { key "acme-key"; … };`}},
	}
	for _, tt := range tests {
		t.Run("the key opens the "+tt.view+" view", func(t *testing.T) {
			n, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: t.TempDir(), Conf: splitConf, Zones: []string{"example.test"},
				Data: map[string]string{"Secret": key.Secret, "View": tt.view}, Files: map[string]string{
					"inner.zone": soa + "@ NS inner\ninner A 127.0.0.1\n", "outer.zone": soa + "@ NS outer\nouter AAAA ::1\n"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := n.Close(); err != nil {
					t.Error(err)
				}
			})
			outside := net.JoinHostPort("::1", strconv.Itoa(n.Port()))
			p := onBIND(t, n.Addr(), key)
			p.Check = zones.CheckPrimary
			list, _ := lookingFor(t, []string{outside}, []string{"www.example.test"}, p).checkDNS(t.Context())
			expected{"www.example.test", "update", []string{"ok: "}}.in(t, list)
			expected{"example.test", "views", tt.want}.in(t, list)
		})
	}
}
