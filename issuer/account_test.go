package issuer_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

func (w *world) obtain(t *testing.T, name string) (*issuer.Bundle, error) {
	t.Helper()
	return w.Obtain(t.Context(), issuer.Request{Hostnames: []string{name}, Orders: &orders{}})
}

func (w *world) object(file string) string {
	return string(w.Store.Objects[issuer.AccountKey("pebble", w.CA.Directory())+file])
}

// TestAccount follows one account from its registration to the one after it.
func TestAccount(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	if _, err := w.Account(t.Context()); err == nil || !strings.Contains(said(err), "no account is registered; to register a new one: autocertd account register pebble") {
		t.Errorf("before it: %v", err)
	}
	first, made, err := w.Register(t.Context())
	if err != nil || !made {
		t.Fatal(made, err)
	}
	if first.Status != "valid" || !slices.Equal(first.Contact, []string{"mailto:admin@example.org"}) || first.Orders == "" || len(first.Thumbprint) != 43 {
		t.Errorf("registered: %+v", first)
	}
	if want := []string{`0 issue "ca.test; accounturi=` + first.URL + `; validationmethods=dns-01"`}; !slices.Equal(first.CAA, want) {
		t.Errorf("CAA %q, want %q", first.CAA, want)
	}
	again, made, err := w.Register(t.Context())
	if err != nil || made || again.URL != first.URL || again.Thumbprint != first.Thumbprint {
		t.Errorf("registered again: %+v, made %t, %v", again, made, err)
	}
	w.restart(t)
	if shown, err := w.Account(t.Context()); err != nil || shown.URL != first.URL || shown.Status != "valid" || shown.Thumbprint != first.Thumbprint {
		t.Errorf("shown: %+v, %v", shown, err)
	}
	if b, err := w.obtain(t, "acc1.example.test"); err != nil || b.Account != first.URL {
		t.Errorf("ordered by %+v, %v", b, err)
	}

	if err := w.Deactivate(t.Context()); err != nil {
		t.Fatal(err)
	}
	registrations := w.CA.Requests()["newAccount"]
	for _, when := range []string{"in the process that did it", "in another"} {
		_, err := w.obtain(t, "acc2.example.test")
		if err == nil || !strings.Contains(said(err), "was deactivated on") || !strings.Contains(said(err), "autocertd account register pebble") {
			t.Errorf("an order %s: %v", when, err)
		}
		w.restart(t)
	}
	if shown, err := w.Account(t.Context()); err != nil || shown.Status != "deactivated" || shown.URL != first.URL {
		t.Errorf("shown: %+v, %v", shown, err)
	}
	if n := w.CA.Requests()["newAccount"]; n != registrations {
		t.Errorf("%d registrations after the end", n-registrations)
	}
	second, made, err := w.Register(t.Context())
	if err != nil || !made || second.URL == first.URL || second.Thumbprint == first.Thumbprint {
		t.Fatalf("the next: %+v, made %t, %v", second, made, err)
	}
	if b, err := w.obtain(t, "acc3.example.test"); err != nil || b.Account != second.URL {
		t.Errorf("ordered by %+v, %v", b, err)
	}
}

// TestDeactivatedElsewhere is an account that ended without a note: the process died, or somebody else did it.
func TestDeactivatedElsewhere(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	if _, _, err := w.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := w.object("/account.json")
	if err := w.Deactivate(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Store.Objects[issuer.AccountKey("pebble", w.CA.Directory())+"/account.json"] = []byte(before)
	w.restart(t)
	if shown, made, err := w.Register(t.Context()); err != nil || made || shown.Status != "deactivated" {
		t.Errorf("registered: %+v, made %t, %v", shown, made, err)
	}
	if _, err := w.obtain(t, "gone.example.test"); err == nil {
		t.Error("an order goes through")
	}
	if err := w.Deactivate(t.Context()); err != nil || !strings.Contains(w.object("/account.json"), `"deactivated":"20`) {
		t.Errorf("deactivating it notes %s, %v", w.object("/account.json"), err)
	}
}

// TestContact changes the configured address of an account that is there.
func TestContact(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	for _, tt := range []struct {
		name, email string
		do          func() error
		want        string
		updates     int
	}{
		{"without an account there is nothing to do", "a@example.org", func() error { return w.UpdateContact(t.Context()) }, "", 0},
		{"registered", "a@example.org", func() error { _, err := w.obtain(t, "c1.example.test"); return err }, "a@example.org", 0},
		{"the same", "a@example.org", func() error { return w.UpdateContact(t.Context()) }, "a@example.org", 0},
		{"changed", "b@example.org", func() error { return w.UpdateContact(t.Context()) }, "b@example.org", 1},
		{"changed, at the next order", "c@example.org", func() error { _, err := w.obtain(t, "c2.example.test"); return err }, "c@example.org", 1},
		{"one that the CA refuses doesn't stop orders", "é@example.org", func() error { _, err := w.obtain(t, "c3.example.test"); return err }, "c@example.org", 1},
		{"taken out: the CA keeps the last", "", func() error { return w.UpdateContact(t.Context()) }, "c@example.org", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.Config.Email = tt.email
			w.restart(t)
			before := w.CA.Requests()["account"]
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			if n := w.CA.Requests()["account"] - before; n != tt.updates {
				t.Errorf("%d updates, want %d", n, tt.updates)
			}
			if tt.want == "" {
				return
			}
			if shown, err := w.Account(t.Context()); err != nil || !slices.Equal(shown.Contact, []string{"mailto:" + tt.want}) {
				t.Errorf("the CA has %q, %v", shown.Contact, err)
			}
		})
	}
}

// TestRollover changes the key under a process that has the account in memory.
func TestRollover(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	first, err := w.obtain(t, "roll1.example.test")
	if err != nil {
		t.Fatal(err)
	}
	running, key := w.Issuer, w.object("/key.pem")
	w.restart(t)
	before, err := w.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after, err := w.Rollover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.URL != before.URL || after.Thumbprint == before.Thumbprint || w.object("/key.pem") == key || w.object("/key-next.pem") != "" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	w.Issuer = running
	if b, err := w.obtain(t, "roll2.example.test"); err != nil || b.Account != first.Account {
		t.Errorf("the process that was running: %+v, %v", b, err)
	}
}

// TestRolloverRefused is a CA that takes no new key: everything goes on with the old one, and no key is lost.
func TestRolloverRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		wrap func(http.Handler) http.Handler
		says string
		next bool // the new key is kept
	}{
		{"refused", answer("rollover-account-key", 403, "", "unauthorized"), "a bad day (unauthorized); the next rollover goes on with the same new key", true},
		{"not offered", withoutKeyChange, "offers no change of account keys", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, testbed.CAConfig{Wrap: tt.wrap}, nil)
			if _, err := w.obtain(t, "ref1.example.test"); err != nil {
				t.Fatal(err)
			}
			key := w.object("/key.pem")
			for range 2 {
				if _, err := w.Rollover(t.Context()); err == nil || !strings.Contains(said(err), tt.says) {
					t.Errorf("got %v, want %q", err, tt.says)
				}
			}
			if w.object("/key.pem") != key || (w.object("/key-next.pem") != "") != tt.next {
				t.Error("the keys aren't as they should be")
			}
			if _, err := w.obtain(t, "ref2.example.test"); err != nil {
				t.Error(err)
			}
		})
	}
}

// withoutKeyChange is a CA whose directory has no keyChange.
func withoutKeyChange(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dir" {
			next.ServeHTTP(w, r)
			return
		}
		body := captured{header: w.Header()}
		next.ServeHTTP(&body, r)
		var dir map[string]any
		_ = json.Unmarshal(body.text, &dir)
		delete(dir, "keyChange")
		text, _ := json.Marshal(dir)
		w.Header().Del("Content-Length")
		_, _ = w.Write(text)
	})
}

// captured is a reply that is changed before it is sent.
type captured struct {
	header http.Header
	text   []byte
}

func (c *captured) Header() http.Header { return c.header }
func (c *captured) WriteHeader(int)     {}
func (c *captured) Write(text []byte) (int, error) {
	c.text = append(c.text, text...)
	return len(text), nil
}
