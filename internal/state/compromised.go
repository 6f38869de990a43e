package state

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"autocertd/internal/store"
)

// CompromisedKey notes durably that others may have a private key. It is an object of its own, by the hash of the public key
// (SubjectPublicKeyInfo), since facts may be lost.
type CompromisedKey struct {
	Serial string    `json:"serial"` // of the certificate for which it was noted
	Noted  time.Time `json:"noted"`
	Why    string    `json:"why,omitempty"` // "" when a person said that others may have it
}

// BlockedByCA is the Why of a key for which a CA issues no certificate any more.
const BlockedByCA = "blocked by the CA"

// MarkKey saves the note of a key, by its SubjectPublicKeyInfo.
func MarkKey(ctx context.Context, w store.Writer, spki []byte, note CompromisedKey) error {
	note.Noted = time.Now().UTC().Truncate(time.Second)
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return w.Save(ctx, compromisedKey(spki), data)
}

func compromisedKey(spki []byte) string {
	sum := sha256.Sum256(spki)
	return compromised + "/" + hex.EncodeToString(sum[:]) + extension
}

// IsCompromised reports whether a public key was marked. A note that can't be decoded is one: it was made for a reason.
func IsCompromised(ctx context.Context, r store.Reader, spki []byte) (bool, error) {
	_, err := r.Load(ctx, compromisedKey(spki))
	if errors.Is(err, store.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// AnyCompromised reports whether any key was marked.
func AnyCompromised(ctx context.Context, s store.Store) (bool, error) {
	marked, err := s.List(ctx, compromised)
	return len(marked) > 0, err
}

// PublicKey returns the SubjectPublicKeyInfo of a private key in PKCS #8 PEM, nil when there is none.
func PublicKey(key string) []byte {
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil
	}
	return spki
}

// MarkCompromised notes durably that others may have the key of a certificate: no certificate is ordered for it again, and
// those that have it are replaced at their next look, which is due at once. It returns their names. Dying on the way
// leaves the note, which every look finds by itself.
func MarkCompromised(ctx context.Context, s Store, cert *x509.Certificate) (names []string, err error) {
	if err := MarkKey(ctx, s, cert.RawSubjectPublicKeyInfo, CompromisedKey{Serial: hex.EncodeToString(cert.SerialNumber.Bytes())}); err != nil {
		return nil, err
	}
	if names, err = keyUsers(ctx, s, cert); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := lookSoon(ctx, s, name); err != nil {
			return names, err
		}
	}
	return names, nil
}

// lookSoon makes the next look at a certificate due. A process that works on it now is waited for.
func lookSoon(ctx context.Context, s Store, name string) error {
	lease, err := s.Acquire(ctx, Lock(name))
	if err != nil {
		return err
	}
	defer lease.Release()
	c, err := LoadFacts(ctx, s, name)
	if err != nil {
		return err
	}
	c.Compromised, c.NextLook = c.Leaf.Fingerprint, time.Time{}
	return Save(ctx, lease, c)
}

// keyUsers returns the names of the certificates that were issued for the key of a certificate. A bundle that can't be read
// isn't known to have the key; the next look at it says more.
func keyUsers(ctx context.Context, s Store, cert *x509.Certificate) (names []string, err error) {
	for o, err := range s.Scan(ctx, bundles) {
		if err != nil {
			return nil, err
		}
		name, ok := nameOf(o.Key)
		if _, leaf, err := open(o.Data); ok && err == nil && string(leaf.RawSubjectPublicKeyInfo) == string(cert.RawSubjectPublicKeyInfo) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Revocation says that a certificate was revoked.
type Revocation struct {
	At     time.Time `json:"at,omitzero"`
	Reason string    `json:"reason,omitempty"` // by its name in RFC 5280 section 5.3.1; "" when it was revoked before by others
}

// Why returns why a certificate is replaced that was revoked.
func (r Revocation) Why() string {
	if r.Reason == "" {
		return "it was revoked"
	}
	return fmt.Sprintf("it was revoked (%s)", r.Reason)
}

// MarkRevoked notes durably that a certificate was revoked, for all that have it, and makes their next look due: a revoked
// certificate that is still configured is replaced. It returns their names.
func MarkRevoked(ctx context.Context, s Store, cert *x509.Certificate, reason string) (names []string, err error) {
	users, err := keyUsers(ctx, s, cert)
	if err != nil {
		return nil, err
	}
	for _, name := range users {
		marked, err := markRevoked(ctx, s, name, cert, Revocation{At: time.Now().UTC().Truncate(time.Second), Reason: reason})
		if err != nil {
			return names, err
		}
		if marked {
			names = append(names, name)
		}
	}
	return names, nil
}

func markRevoked(ctx context.Context, s Store, name string, cert *x509.Certificate, revoked Revocation) (bool, error) {
	lease, err := s.Acquire(ctx, Lock(name))
	if err != nil {
		return false, err
	}
	defer lease.Release()
	c, err := Load(ctx, s, name, nil)
	if err == nil {
		err = c.Faults.Bundle
	}
	if err != nil || c.Bundle == nil || !c.X509.Equal(cert) || !c.Bundle.Revoked.At.IsZero() {
		return false, err // it has another one by now
	}
	c.Bundle.Revoked = revoked
	c.Leaf, c.NextLook = c.Bundle.Describe(c.X509), time.Time{}
	c.RenewAt, c.RenewWhy = revoked.At, revoked.Why()
	return true, SaveIssued(ctx, lease, c)
}
