package hostile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"
)

// forger signs what Pebble wouldn't: a root, a certificate below it that issues, and another pair of that name which
// signed nothing.
type forger struct {
	root, issuer, impostor *x509.Certificate
	rootKey, issuerKey     *ecdsa.PrivateKey
}

func newForger() (*forger, error) {
	f := &forger{}
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err) // the system has no randomness
		}
		return k
	}
	f.rootKey, f.issuerKey = key(), key()
	other := key()
	var err error
	if f.root, err = sign(authority("hostile root"), nil, f.rootKey.Public(), f.rootKey); err != nil {
		return nil, err
	}
	if f.issuer, err = sign(authority("hostile issuer"), f.root, f.issuerKey.Public(), f.rootKey); err != nil {
		return nil, err
	}
	f.impostor, err = sign(authority("hostile issuer"), f.root, other.Public(), f.rootKey)
	return f, err
}

// sign makes a certificate; a nil parent stands for the certificate itself.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (f *forger) rootPEM() []byte { return []byte(pemOf(f.root)) }

// leaf makes a certificate for a request, with what change makes of it. The chain of it is issuer.
func (f *forger) leaf(csr *x509.CertificateRequest, change func(leaf *x509.Certificate)) *x509.Certificate {
	template := &x509.Certificate{DNSNames: csr.DNSNames, PublicKey: csr.PublicKey, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().AddDate(0, 3, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(template)
	}
	parent, by := f.issuer, f.issuerKey
	if template.IsCA {
		parent, by = f.root, f.rootKey
	}
	leaf, err := sign(template, parent, template.PublicKey, by)
	if err != nil {
		panic(err) // of a mode that makes up what can't be signed
	}
	return leaf
}

// Stranger is a pair of servers that count who comes.
type Stranger struct {
	HTTPS, HTTP string // their URLs

	visits      atomic.Int32
	secure, not *httptest.Server
}

func startStranger(f *forger) (*Stranger, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(0, 1, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, f.root, key.Public(), f.rootKey)
	if err != nil {
		return nil, err
	}
	s := &Stranger{}
	visit := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.visits.Add(1)
		http.Error(w, "internal page 4711", http.StatusNotFound)
	})
	s.not = httptest.NewServer(visit)
	s.secure = httptest.NewUnstartedServer(visit)
	s.secure.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	s.secure.StartTLS()
	s.HTTPS, s.HTTP = s.secure.URL, s.not.URL
	return s, nil
}

// Visits says how many requests came.
func (s *Stranger) Visits() int { return int(s.visits.Load()) }

// Close ends the servers.
func (s *Stranger) Close() {
	s.secure.Close()
	s.not.Close()
}
