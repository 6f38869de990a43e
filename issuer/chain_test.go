package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// authority is a root or an intermediate with its key.
type authority struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate of that name; one without parent signs itself.
func issue(t *testing.T, name string, parent *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	signer := &authority{template, key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.Certificate, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func chainOf(list ...*authority) acme.Certificate {
	var text []byte
	for _, a := range list {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Raw})...)
	}
	return acme.Certificate{ChainPEM: text}
}

// print is a fingerprint as openssl writes it.
func (a *authority) print() string {
	sum := sha256.Sum256(a.Raw)
	return strings.TrimSuffix(regexp.MustCompile("..").ReplaceAllString(strings.ToUpper(hex.EncodeToString(sum[:])), "$0:"), ":")
}

// TestChoose offers the same certificate by two roots of one name and by a third, whose own certificate is sent along.
func TestChoose(t *testing.T) {
	old, young, third := issue(t, "Root", nil), issue(t, "Root", nil), issue(t, "Third", nil)
	byOld, byYoung, byThird := issue(t, "R1", old), issue(t, "R1", young), issue(t, "R1", third)
	leaf := issue(t, "leaf", byOld)
	chains := []acme.Certificate{chainOf(leaf, byOld), chainOf(leaf, byYoung), chainOf(leaf, byThird, third)}
	plain := strings.ToLower(strings.ReplaceAll(young.print(), ":", ""))
	for _, tt := range []struct {
		what, preferred string
		want            int
		warns           bool
	}{
		{"nothing is preferred", "", 0, false},
		{"by name, the first of two", "Root", 0, false},
		{"by name, the last", "Third", 2, false},
		{"by fingerprint, the second of one name", young.print(), 1, false},
		{"by fingerprint without colons", plain, 1, false},
		{"by fingerprint of a root that is sent along", third.print(), 2, false},
		{"a name that isn't offered", "Fourth", 0, true},
		{"a fingerprint that isn't offered", leaf.print(), 0, true},
		{"a fingerprint that is cut short", plain[:40], 0, true},
	} {
		var log strings.Builder
		cfg := Config{PreferredChain: tt.preferred, Roots: []*x509.Certificate{old.Certificate, young.Certificate},
			Logger: slog.New(slog.NewTextHandler(&log, nil))}
		got, err := cfg.choose(chains)
		if err != nil || string(got) != string(chains[tt.want].ChainPEM) {
			t.Errorf("%s: another chain than number %d (%v)", tt.what, tt.want+1, err)
		}
		if warns := strings.Contains(log.String(), "offered="); warns != tt.warns {
			t.Errorf("%s: it logs %q", tt.what, log.String())
		}
	}
	if _, err := (Config{}).choose(nil); err == nil {
		t.Error("no chain at all is no error")
	}
}
