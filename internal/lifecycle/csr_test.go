package lifecycle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"autocertd/internal/state"
)

// signRequest makes a key, which nobody else ever sees, and writes the request that it signs.
func (w *world) signRequest(file string, hostnames ...string) *ecdsa.PublicKey {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: hostnames}, key)
	if err != nil {
		w.Fatal(err)
	}
	w.write(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	return &key.PublicKey
}

// TestKeyElsewhere: a certificate for a CSR is issued, deployed and renewed like any other, and there is no key of it
// anywhere.
func TestKeyElsewhere(t *testing.T) {
	w := newWorld(t)
	key := w.signRequest("web.csr", "a.example.test", "b.example.test")
	w.certificate = `csr = "web.csr"`
	p := w.start()
	p.look()
	first := p.keyless(key)
	p.look()
	if err := p.Renew(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	if renewed := p.keyless(key); renewed.Equal(first) {
		t.Error("it wasn't renewed")
	}

	key = w.signRequest("web.csr", "a.example.test", "b.example.test")
	p.use()
	if items, err := p.Items(p.ctx); err != nil || !items[0].Due.IsZero() {
		t.Errorf("a new request isn't looked at at once: %v, %v", items, err)
	}
	p.look()
	p.keyless(key)
	if !strings.Contains(p.logged.String(), `why="the CSR changed"`) {
		t.Errorf("the log doesn't say why\n%s", p.logged)
	}

	w.certificate = `hostnames = ["a.example.test", "b.example.test"]`
	p.use()
	p.look()
	if b, _ := p.bundle(); b.Key == "" || b.CSR != nil {
		t.Error("without the request there is still no key")
	}
	w.live(w.cas[0])
	if orders := w.cas[0].NewOrders(); orders != 4 {
		t.Errorf("%d orders, want 4", orders)
	}
	p.end()
	w.clean(p)
}

// keyless returns the certificate that is deployed, which has to be for the key, and looks for keys beside it.
func (p *process) keyless(key *ecdsa.PublicKey) *x509.Certificate {
	p.Helper()
	b, leaf := p.bundle()
	if b.Key != "" || !key.Equal(leaf.PublicKey) {
		p.Errorf("the bundle's key is %q, and the certificate is for another", b.Key)
	}
	text, err := os.ReadFile(p.path("state", "live", name, "cert.pem"))
	if err != nil || string(text) != b.Leaf {
		p.Errorf("the file holds another certificate (%v)", err)
	}
	if _, err := os.Stat(p.path("state", "live", name, "privkey.pem")); !errors.Is(err, fs.ErrNotExist) {
		p.Errorf("there is a file for the key: %v", err)
	}
	for _, file := range p.tree("state") {
		path, _, _ := strings.Cut(file, " ")
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), "PRIVATE KEY") && !strings.Contains(path, "/accounts/") {
			p.Errorf("%s holds a private key", path)
		}
	}
	return leaf
}

// TestKeyElsewhereAfterCrash dies when the certificate is known to the CA alone, and when its order has served.
func TestKeyElsewhereAfterCrash(t *testing.T) {
	for _, prefix := range []string{"bundles/", "orders/"} {
		w := newWorld(t)
		key := w.signRequest("web.csr", "a.example.test")
		w.certificate = `csr = "web.csr"`
		p := w.start()
		op := map[string]string{"bundles/": "Save", "orders/": "Delete"}[prefix]
		p.store.breaks(fault{Op: op, Prefix: prefix, Dies: true})
		_, _ = p.Reconcile(p.ctx, name)
		p.end()
		w.dns.OnUpdate(nil)
		p = w.start()
		p.retryNow()
		p.look()
		first := p.keyless(key)
		if orders := w.cas[0].NewOrders(); orders != 1 {
			t.Errorf("%s: %d orders", prefix, orders)
		}
		if err := p.Renew(p.ctx, name); err != nil {
			t.Fatal(err)
		}
		if p.keyless(key).Equal(first) {
			t.Errorf("%s: the renewal gave the same certificate", prefix)
		}
		p.end()
	}
}

// TestReuseKey says which key the next certificate is for.
func TestReuseKey(t *testing.T) {
	const hostnames = `hostnames = ["a.example.test"]`
	for _, tt := range []struct {
		what          string
		before, after string // lines of the certificate
		same          bool
	}{
		{"it is reused", "reuse_key = true", "reuse_key = true", true},
		{"a new one each time", "", "", false},
		{"from now on", "", "reuse_key = true", true},
		{"no longer", "reuse_key = true", "", false},
		{"of another type", "reuse_key = true", "reuse_key = true\nkey_type = \"ecdsa-p384\"", false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			w.certificate = hostnames + "\n" + tt.before
			p := w.start()
			p.look()
			old, leaf := p.bundle()
			w.certificate = hostnames + "\n" + tt.after
			p.use()
			if err := p.Renew(p.ctx, name); err != nil {
				t.Fatal(err)
			}
			b, renewed := p.bundle()
			if same := b.Key == old.Key; same != tt.same || renewed.Equal(leaf) {
				t.Errorf("the same key: %t, want %t", same, tt.same)
			}
			w.live(w.cas[0])
		})
	}
}

// TestReuseKeyAfterCrash: an order that has served isn't taken for an open one, though both have the same key, nor the
// other way round.
func TestReuseKeyAfterCrash(t *testing.T) {
	for _, tt := range []struct {
		what   string
		fault  fault
		orders int
	}{
		{"the renewal isn't saved", fault{Op: "Save", Prefix: "bundles/", Dies: true}, 2},
		{"the order of the renewal isn't dropped", fault{Op: "Delete", Prefix: "orders/", Dies: true}, 3},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			w.certificate += "\nreuse_key = true"
			p := w.start()
			p.look()
			old, _ := p.bundle()
			p.store.breaks(tt.fault)
			_ = p.Renew(p.ctx, name)
			p.end()
			w.dns.OnUpdate(nil)
			p = w.start()
			p.retryNow()
			before, _ := p.bundle()
			if err := p.Renew(p.ctx, name); err != nil {
				t.Fatal(err)
			}
			b, _ := p.bundle()
			if b.Key != old.Key || b.Leaf == before.Leaf {
				t.Error("another key, or no other certificate")
			}
			if orders := w.cas[0].NewOrders(); orders != tt.orders {
				t.Errorf("%d orders, want %d", orders, tt.orders)
			}
			p.end()
			w.clean(p)
		})
	}
}

// TestCompromisedKeyIsNotReused: neither as a key of ours nor by a request that it signed.
func TestCompromisedKeyIsNotReused(t *testing.T) {
	t.Run("reuse_key", func(t *testing.T) {
		w := newWorld(t)
		w.certificate += "\nreuse_key = true"
		p := w.start()
		p.look()
		old, leaf := p.bundle()
		if _, err := state.MarkCompromised(p.ctx, p.store, leaf); err != nil {
			t.Fatal(err)
		}
		p.look()
		if b, _ := p.bundle(); b.Key == old.Key {
			t.Error("the key is used again")
		}
	})
	t.Run("csr", func(t *testing.T) {
		w := newWorld(t)
		w.signRequest("web.csr", "a.example.test")
		w.certificate = `csr = "web.csr"`
		p := w.start()
		p.look()
		_, leaf := p.bundle()
		if _, err := state.MarkCompromised(p.ctx, p.store, leaf); err != nil {
			t.Fatal(err)
		}
		p.fails("web.csr was signed by a key that is compromised; make a new key, and a new CSR with it")
		if orders := w.cas[0].NewOrders(); orders != 1 {
			t.Errorf("%d orders", orders)
		}
		key := w.signRequest("web.csr", "a.example.test")
		p.use()
		p.look()
		p.keyless(key)
	})
}
