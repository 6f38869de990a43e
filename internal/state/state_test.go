package state_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"strings"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/store/files"
)

const name = "web"

func open(t *testing.T) *files.Store {
	t.Helper()
	s, err := files.Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// yesterday is an object from before there were deployments: it holds what is one host's, too.
const yesterday = `{"name":"web","wish":"0123","next_look":"2026-06-01T12:00:00Z","leaf":{"fingerprint":"ab"},
	"deploy":{"failures":2,"error":"nginx.service is not reloaded","at":"2026-06-01T11:00:00Z","retry_at":"2026-06-01T12:00:00Z"},
	"pending":["nginx.service is not reloaded"],"outputs":{"/etc/ssl/web":"mark"},"of_the_future":{"x":1}}`

// TestYesterday reads a host's part from where it was before, and moves it without losing it in between.
func TestYesterday(t *testing.T) {
	s := open(t)
	must(t, s.Save(t.Context(), "states/web.json", []byte(yesterday)))
	check := func(when string) {
		t.Helper()
		d, err := state.LoadDeployment(t.Context(), s, state.LocalNode, name)
		must(t, err)
		if d.Name != name || d.Outputs["/etc/ssl/web"].Whole != "mark" || d.Trouble.Failures != 2 || len(d.Pending) != 1 {
			t.Errorf("%s: the deployment is %+v", when, d)
		}
		if c, err := state.LoadFacts(t.Context(), s, name); err != nil || c.Wish != "0123" || c.Leaf.Fingerprint != "ab" {
			t.Errorf("%s: the certificate is %+v, %v", when, c, err)
		}
	}
	check("as it was")
	c, err := state.LoadFacts(t.Context(), s, name)
	must(t, err)
	must(t, state.Save(t.Context(), s, c))
	check("after a save by a command that knows no host")
	c, err = state.LoadFacts(t.Context(), s, name)
	must(t, err)
	must(t, state.DivideHost(t.Context(), s, s, state.LocalNode, c))
	check("dying between the two writes")
	must(t, state.Save(t.Context(), s, c))
	check("moved")
	data, err := s.Load(t.Context(), "states/web.json")
	must(t, err)
	if strings.Contains(string(data), "outputs") {
		t.Errorf("the object still holds the host's part: %s", data)
	}
	must(t, s.Delete(t.Context(), "states/web.json"))
	if d, err := state.LoadDeployment(t.Context(), s, state.LocalNode, name); err != nil || d.Outputs["/etc/ssl/web"].Whole != "mark" {
		t.Errorf("the deployment isn't an object of its own: %+v, %v", d, err)
	}
}

// TestRevisions loads the later one of the two copies of the facts.
func TestRevisions(t *testing.T) {
	s := open(t)
	c := &state.Certificate{Name: name, Bundle: bundle(t)}
	must(t, state.Save(t.Context(), s, c))
	c.RenewWhy = "issued"
	must(t, state.SaveIssued(t.Context(), s, c))
	expect := func(when, why string) *state.Certificate {
		t.Helper()
		got, err := state.Load(t.Context(), s, name, nil)
		must(t, err)
		if got.RenewWhy != why || got.X509 == nil || got.Bundle == nil || got.Settled() == nil {
			t.Errorf("%s: %+v", when, got)
		}
		return got
	}
	c = expect("the copy with the bundle is the later one", "issued")
	c.RenewWhy = "looked at"
	must(t, state.Save(t.Context(), s, c))
	expect("the object of the facts is the later one", "looked at")
	must(t, s.Save(t.Context(), "states/web.json", []byte(`{"name": "web", "re`)))
	expect("torn by a power loss", "issued")
	must(t, s.Save(t.Context(), "states/web.json", []byte(`{"name": "mail", "revision": 99}`)))
	expect("of another certificate", "issued")
}

// TestDamaged keeps the facts of a bundle that is of no use, and copies the bundle once.
func TestDamaged(t *testing.T) {
	s := open(t)
	must(t, state.Save(t.Context(), s, &state.Certificate{Name: name, RenewWhy: "known"}))
	must(t, s.Save(t.Context(), "bundles/web.json", []byte(`{"name": "web"}`)))
	c, err := state.Load(t.Context(), s, name, []string{"one"})
	must(t, err)
	damaged, ok := errors.AsType[*state.DamagedError](c.Faults.Bundle)
	if !ok || c.Bundle != nil || c.RenewWhy != "known" {
		t.Fatalf("%+v", c)
	}
	for range 2 {
		if _, err := state.SetAside(t.Context(), s, name, damaged); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := s.List(t.Context(), "damaged"); err != nil || len(kept) != 1 {
		t.Errorf("kept are %v, %v", kept, err)
	}
}

// TestAdopt saves what another client got, and no other in its place.
func TestAdopt(t *testing.T) {
	s, first, second := open(t), bundle(t), bundle(t)
	for _, tt := range []struct {
		what      string
		b         *state.Bundle
		overwrite bool
		changed   bool
		exists    bool
	}{
		{"the first", first, false, true, false},
		{"the same again", first, false, false, false},
		{"another", second, false, false, true},
		{"another in its place", second, true, true, false},
	} {
		changed, err := state.Adopt(t.Context(), s, tt.b, tt.overwrite)
		if changed != tt.changed || errors.Is(err, fs.ErrExist) != tt.exists || err != nil != tt.exists {
			t.Errorf("%s: changed %t, %v", tt.what, changed, err)
		}
	}
}

// TestSanitize takes moments out that a clock has left which was years ahead.
func TestSanitize(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	far := now.AddDate(10, 0, 0)
	d := state.Deployment{Trouble: state.Trouble{Failures: -1, At: far, RetryAt: far}}
	if d.Sanitize(now); d.Trouble != (state.Trouble{At: far}) {
		t.Errorf("%+v", d)
	}
	d = state.Deployment{Trouble: state.Trouble{Failures: 1, At: now, RetryAt: now.Add(time.Hour)}}
	if before := d.Trouble; true {
		if d.Sanitize(now); d.Trouble != before {
			t.Errorf("%+v", d)
		}
	}
}

func bundle(t *testing.T) *state.Bundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example.test"}}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return &state.Bundle{
		Name:      name,
		Hostnames: template.DNSNames,
		CA:        "one",
		Issued:    time.Now(),
		Key:       string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		Leaf:      string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})),
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
