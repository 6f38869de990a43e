package issuer_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// withoutType has a CA offer no challenges of a type.
func withoutType(hidden dnschallenge.Type) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reply := httptest.NewRecorder()
			next.ServeHTTP(reply, r)
			for name, values := range reply.Header() {
				w.Header()[name] = values
			}
			w.Header().Del("Content-Length")
			w.WriteHeader(reply.Code)
			_, _ = w.Write(bytes.ReplaceAll(reply.Body.Bytes(), []byte(`"`+hidden+`"`), []byte(`"else-01"`)))
		})
	}
}

// TestChallenges has the CA look where the configured challenges have it look, as far as it offers them. The CA's own
// validation finds the records there.
func TestChallenges(t *testing.T) {
	both := []dnschallenge.Type{dnschallenge.DNSAccount01, dnschallenge.DNS01}
	tests := []struct {
		name   string
		types  []dnschallenge.Type
		hidden dnschallenge.Type
		want   dnschallenge.Type // "" for a refusal
	}{
		{name: "nothing is configured", want: dnschallenge.DNS01},
		{name: "the first of both", types: both, want: dnschallenge.DNSAccount01},
		{name: "the other way round", types: []dnschallenge.Type{dnschallenge.DNS01, dnschallenge.DNSAccount01}, want: dnschallenge.DNS01},
		{name: "the first that is offered", types: both, hidden: dnschallenge.DNSAccount01, want: dnschallenge.DNS01},
		{name: "none that is offered", types: both[:1], hidden: dnschallenge.DNSAccount01},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ca := testbed.CAConfig{}
			if tt.hidden != "" {
				ca.Wrap = withoutType(tt.hidden)
			}
			w := newWorld(t, ca, func(cfg *issuer.Config) { cfg.Challenges = tt.types })
			hostnames := []string{"example.test", "*.example.test", "www.example.test"}
			b, err := w.Obtain(t.Context(), issuer.Request{Hostnames: hostnames, Orders: &orders{}})
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), "the CA offers no dns-account-01 challenge for ") {
					t.Errorf("the refusal is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkChain(t, w.CA, b, hostnames)
			stored, err := issuer.AccountURL(t.Context(), w.Store, w.Name(), w.DirectoryURL())
			if err != nil || stored != b.Account {
				t.Errorf("the stored account is %s, %v; want %s", stored, err, b.Account)
			}
			names := func(hostnames ...string) (list []string) {
				for _, h := range hostnames {
					list = append(list, dnschallenge.Challenge{Type: tt.want, Hostname: h, Account: b.Account}.Name())
				}
				return list
			}
			published := slices.Sorted(slices.Values(w.Solver.Published))
			if want := slices.Sorted(slices.Values(names(hostnames...))); !slices.Equal(published, want) {
				t.Errorf("published at %v, want %v", published, want)
			}
		})
	}
}
