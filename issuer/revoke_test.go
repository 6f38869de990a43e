package issuer_test

import (
	"crypto"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

func TestRevoke(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	stranger := *w // another account at the same CA
	stranger.Store = &memory{}
	stranger.Config.Storage = stranger.Store
	stranger.restart(t)
	if _, _, err := stranger.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	nobody := *w // no account at all
	nobody.Config.Storage = &memory{}
	nobody.restart(t)

	for n, tt := range []struct {
		name    string
		by      *world
		ownKey  bool
		reason  issuer.Reason
		revoked bool
		says    string
	}{
		{"by the account that ordered it", w, false, issuer.Unspecified, true, ""},
		{"by the certificate's key", w, true, issuer.KeyCompromise, true, ""},
		{"by the certificate's key, without an account", &nobody, true, issuer.Unspecified, true, ""},
		{"by another account", &stranger, false, issuer.Unspecified, false, "(unauthorized); another account has ordered it; sign with the certificate's own key instead: --key FILE"},
		{"without an account or a key", &nobody, false, issuer.Unspecified, false, "no account is registered"},
		{"for a reason that the CA doesn't know", w, false, 7, false, "(badRevocationReason); public CAs take unspecified, "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := w.obtain(t, fmt.Sprintf("rev%d.example.test", n))
			if err != nil {
				t.Fatal(err)
			}
			var key crypto.Signer
			if tt.ownKey {
				pair, err := tls.X509KeyPair(b.Leaf, b.Key)
				if err != nil {
					t.Fatal(err)
				}
				key = pair.PrivateKey.(crypto.Signer)
			}
			err = tt.by.Revoke(t.Context(), b.Cert, key, tt.reason)
			if (err == nil) != tt.revoked || err != nil && !strings.Contains(said(err), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			want := map[bool]string{true: "Revoked", false: "Valid"}[tt.revoked]
			if status, err := w.CA.CertStatus(hex.EncodeToString(b.Cert.SerialNumber.Bytes())); err != nil || status != want {
				t.Errorf("the certificate is %s, want %s (%v)", status, want, err)
			}
			if tt.revoked {
				if err := tt.by.Revoke(t.Context(), b.Cert, key, tt.reason); !errors.Is(err, issuer.ErrAlreadyRevoked) {
					t.Errorf("once more: %v", err)
				}
			}
		})
	}
}

func TestParseReason(t *testing.T) {
	for _, tt := range []struct {
		text string
		want issuer.Reason
		ok   bool
	}{
		{"unspecified", issuer.Unspecified, true},
		{"0", issuer.Unspecified, true},
		{"keyCompromise", issuer.KeyCompromise, true},
		{"keycompromise", issuer.KeyCompromise, true},
		{"1", issuer.KeyCompromise, true},
		{"superseded", 4, true},
		{"10", 10, true},
		{"7", 0, false}, // nobody's
		{"8", 0, false}, // removeFromCRL is the end of a revocation
		{"-1", 0, false},
		{"", 0, false},
		{"stolen", 0, false},
	} {
		got, err := issuer.ParseReason(tt.text)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: %d, %v", tt.text, got, err)
		}
	}
}
