package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// TestCSR: a key that stays elsewhere is never seen, not in the open order either, and the certificate is for it. The
// order is resumed for the same request only.
func TestCSR(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	hostnames := []string{"hsm.example.test", "*.hsm.example.test"}
	key, csr := elsewhere(t, hostnames)
	keep := &orders{}
	request := issuer.Request{Hostnames: hostnames, CSR: csr, Orders: keep}
	bundle, err := w.Obtain(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if bundle.Key != nil || keep.Open.Key != "" || !key.PublicKey.Equal(bundle.Cert.PublicKey) {
		t.Errorf("the bundle has the key %q and the open order %q", bundle.Key, keep.Open.Key)
	}
	checkChain(t, w.CA, bundle, hostnames)

	request.Open = keep.Open
	again, err := w.Obtain(t.Context(), request)
	if err != nil || !again.Cert.Equal(bundle.Cert) || again.Order != bundle.Order {
		t.Errorf("resumed, the order gives another certificate (%v)", err)
	}
	_, request.CSR = elsewhere(t, hostnames)
	request.Open = keep.Open
	if again, err = w.Obtain(t.Context(), request); err != nil || again.Order == bundle.Order {
		t.Errorf("another CSR goes on with the same order (%v)", err)
	}
}

// elsewhere makes a key and a request for it.
func elsewhere(t *testing.T, hostnames []string) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: hostnames}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// TestKeyOnceMore: a key that is given is used, and an order for another key isn't gone on with.
func TestKeyOnceMore(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	keep := &orders{}
	request := issuer.Request{Hostnames: []string{"k.example.test"}, Orders: keep}
	first, err := w.Obtain(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	request.Key = first.Key
	second, err := w.Obtain(t.Context(), request)
	if err != nil || string(second.Key) != string(first.Key) || second.Cert.Equal(first.Cert) {
		t.Fatalf("another key, or the same certificate (%v)", err)
	}
	other, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"o.example.test"}, Orders: &orders{}})
	if err != nil {
		t.Fatal(err)
	}
	request.Key, request.Open = other.Key, keep.Open
	third, err := w.Obtain(t.Context(), request)
	if err != nil || string(third.Key) != string(other.Key) || third.Order == second.Order {
		t.Errorf("the order for another key was resumed (%v)", err)
	}
}
