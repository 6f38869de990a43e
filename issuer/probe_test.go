package issuer_test

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// shiftDate is a CA whose clock is late.
func shiftDate(late time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(-late).UTC().Format(http.TimeFormat))
			next.ServeHTTP(w, r)
		})
	}
}

func TestProbe(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{Profiles: map[string]time.Duration{"short": time.Hour, "long": 2 * time.Hour},
		EAB: map[string]string{"kid-1": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}, Wrap: shiftDate(400 * time.Second)}, nil)
	p, err := w.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !p.NeedsEAB || p.Terms == "" || p.Took <= 0 {
		t.Errorf("probe %+v: want an external account binding, terms and a time", p)
	}
	if _, ok := p.Profiles["short"]; !ok || len(p.Profiles) != 2 {
		t.Errorf("profiles %v, want short and long", p.Profiles)
	}
	if !p.Clock || p.Ahead < 399*time.Second || p.Ahead > 500*time.Second {
		t.Errorf("our clock is ahead by %s (known: %t), want 400s", p.Ahead, p.Clock)
	}
	if r := w.CA.Requests(); r["newAccount"] != 0 || r["newOrder"] != 0 {
		t.Errorf("a probe registers or orders: %v", r)
	}
}

func TestProbeFailures(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"another site", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }, "isn't an ACME directory"},
		{"maintenance", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "answers HTTP 502"},
		{"no nonces", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			url := "https://" + r.Host + "/x"
			_ = json.NewEncoder(w).Encode(acme.Directory{NewNonce: url, NewAccount: url, NewOrder: url})
		}, "answers HTTP 403 and gives no nonce"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, testbed.CAConfig{Wrap: func(http.Handler) http.Handler { return tt.handler }}, nil)
			if _, err := w.Probe(t.Context()); err == nil || !strings.Contains(said(err), tt.want) {
				t.Errorf("error %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func deactivate(t *testing.T, w *world, account acme.Account) {
	t.Helper()
	client := acme.Client{Directory: w.CA.Directory(),
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS(w.Config.Roots)}}}
	account.Status = acme.StatusDeactivated
	if _, err := client.UpdateAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
}

func signer(t *testing.T, text []byte) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

// TestAccountState follows one account from nothing to its end.
func TestAccountState(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	look := func(when string, want issuer.AccountState) {
		t.Helper()
		before := w.CA.Requests()["newAccount"]
		w.restart(t)
		got, err := w.AccountState(t.Context())
		if err != nil || got != want {
			t.Errorf("%s: %+v (%v), want %+v", when, got, err, want)
		}
		if n := w.CA.Requests()["newAccount"]; n != before {
			t.Errorf("%s: asking registered an account", when)
		}
	}
	look("before the first order", issuer.AccountState{})

	if _, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"a.example.test"}, Orders: &orders{}}); err != nil {
		t.Fatal(err)
	}
	object := issuer.AccountKey("pebble", w.CA.Directory())
	var saved struct{ Directory, URL string }
	if err := json.Unmarshal(w.Store.Objects[object+"/account.json"], &saved); err != nil {
		t.Fatal(err)
	}
	look("after it", issuer.AccountState{URL: saved.URL, Status: "valid"})

	good := slices.Clone(w.Store.Objects[object+"/account.json"])
	gone := saved.URL + "0"
	w.Store.Objects[object+"/account.json"] = []byte(strings.Replace(string(good), saved.URL, gone, 1))
	look("when the CA has forgotten it", issuer.AccountState{URL: gone, Unknown: true})

	w.Store.Objects[object+"/account.json"] = good
	deactivate(t, w, acme.Account{Location: saved.URL, PrivateKey: signer(t, w.Store.Objects[object+"/key.pem"])})
	look("when somebody has deactivated it", issuer.AccountState{URL: saved.URL, Status: "deactivated"})

	delete(w.Store.Objects, object+"/key.pem")
	if _, err := w.AccountState(t.Context()); err == nil || !strings.Contains(said(err), "key.pem is missing") {
		t.Errorf("without its key: %v", err)
	}
}
