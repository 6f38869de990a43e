package lifecycle

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
	"strings"
	"time"

	"autocertd/internal/store"
)

// compromisedWhy is why a certificate is replaced whose key was marked.
const compromisedWhy = "its key is compromised"

// compromisedKey is the note of a key that others may have. It is an object of its own, since a state may be lost.
type compromisedKey struct {
	Serial string    `json:"serial"` // of the certificate for which it was noted
	Noted  time.Time `json:"noted"`
	Why    string    `json:"why,omitempty"` // "" when a person said that others may have it
}

// blockedWhy is the Why of a key that a CA takes for no certificate any more.
const blockedWhy = "blocked by the CA"

// markKey saves the note of a key, for its SubjectPublicKeyInfo.
func markKey(ctx context.Context, store store.Store, spki []byte, note compromisedKey) error {
	note.Noted = time.Now().UTC().Truncate(time.Second)
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return store.Save(ctx, compromisedObject(spki), data)
}

// compromisedObject names the note by the hash of the public key (SubjectPublicKeyInfo).
func compromisedObject(spki []byte) string {
	sum := sha256.Sum256(spki)
	return "compromised/" + hex.EncodeToString(sum[:]) + ".json"
}

// MarkCompromised notes durably that others may have the key of a certificate: no certificate is ordered for it again, and
// those that have it are replaced at their next look, which is due at once. It returns their names. Dying on the way
// leaves the note, which every look finds by itself.
func MarkCompromised(ctx context.Context, store Storage, cert *x509.Certificate) (names []string, err error) {
	if err := markKey(ctx, store, cert.RawSubjectPublicKeyInfo, compromisedKey{Serial: hex.EncodeToString(cert.SerialNumber.Bytes())}); err != nil {
		return nil, err
	}
	if names, err = keyUsers(ctx, store, cert); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := lookSoon(ctx, store, name); err != nil {
			return names, err
		}
	}
	return names, nil
}

// Revocation says that we had a CA revoke a certificate.
type Revocation struct {
	At     time.Time `json:"at,omitzero"`
	Reason string    `json:"reason,omitempty"` // by its name in RFC 5280 section 5.3.1; "" when it was revoked before by others
}

// MarkRevoked notes durably that a certificate was revoked, for all that have it, and makes their next look due: a revoked
// certificate that is still configured is replaced. It returns their names.
func MarkRevoked(ctx context.Context, store Storage, cert *x509.Certificate, reason string) (names []string, err error) {
	users, err := keyUsers(ctx, store, cert)
	if err != nil {
		return nil, err
	}
	for _, name := range users {
		marked, err := markRevoked(ctx, store, name, cert, Revocation{At: time.Now().UTC().Truncate(time.Second), Reason: reason})
		if err != nil {
			return names, err
		}
		if marked {
			names = append(names, name)
		}
	}
	return names, nil
}

// markRevoked notes it in the bundle, which is durable, and in the state, which is what status reads. Dying between the two
// leaves what the next look finds in the bundle.
func markRevoked(ctx context.Context, store Storage, name string, cert *x509.Certificate, revoked Revocation) (bool, error) {
	unlock, err := store.Lock(ctx, lockName(name))
	if err != nil {
		return false, err
	}
	defer unlock()
	m := New(Config{Storage: store})
	bundle, leaf, err := m.loadBundle(ctx, name)
	if err != nil || bundle == nil || !leaf.Equal(cert) || !bundle.Revoked.At.IsZero() {
		return false, err // it has another one by now
	}
	bundle.Revoked = revoked
	data, err := json.Marshal(bundle)
	if err != nil {
		return false, err
	}
	if err := store.Save(ctx, bundleObject(name), data); err != nil {
		return false, err
	}
	state, err := loadState(ctx, store, name)
	if err != nil {
		return true, err
	}
	state.Leaf, state.NextLook = describe(leaf, bundle), time.Time{}
	state.RenewAt, state.RenewWhy = revoked.At, revoked.why()
	return true, m.saveState(ctx, state)
}

// revoked reports whether the certificate that is on disk is to be replaced since we had it revoked.
func (s *State) revoked() bool { return !s.Leaf.Revoked.At.IsZero() }

// why is why a certificate is replaced that was revoked.
func (r Revocation) why() string {
	if r.Reason == "" {
		return "it was revoked"
	}
	return fmt.Sprintf("it was revoked (%s)", r.Reason)
}

// keyUsers returns the names of the certificates that were issued for the key of a certificate.
func keyUsers(ctx context.Context, store Storage, cert *x509.Certificate) (names []string, err error) {
	objects, err := store.List(ctx, "bundles")
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		name := strings.TrimSuffix(strings.TrimPrefix(object, "bundles/"), ".json")
		_, leaf, err := LoadBundle(ctx, store, name)
		if err == nil && leaf != nil && string(leaf.RawSubjectPublicKeyInfo) == string(cert.RawSubjectPublicKeyInfo) {
			names = append(names, name) // one that can't be read isn't known to have the key; its next look says more
		}
	}
	return names, nil
}

// lookSoon makes the next look at a certificate due. Whoever works on it now is waited for.
func lookSoon(ctx context.Context, store Storage, name string) error {
	unlock, err := store.Lock(ctx, lockName(name))
	if err != nil {
		return err
	}
	defer unlock()
	state, err := loadState(ctx, store, name)
	if err != nil {
		return err
	}
	state.Compromised, state.NextLook = state.Leaf.Fingerprint, time.Time{}
	return New(Config{Storage: store}).saveState(ctx, state)
}

// LoadBundle returns what was issued for a certificate and its leaf, nil when there is nothing.
func LoadBundle(ctx context.Context, store Storage, name string) (*Bundle, *x509.Certificate, error) {
	return New(Config{Storage: store}).loadBundle(ctx, name)
}

// isCompromised reports whether a public key was marked. A note that can't be read is one: it was made for a reason.
func (j *job) isCompromised(ctx context.Context, spki []byte) bool {
	_, err := j.cfg.Storage.Load(ctx, compromisedObject(spki))
	if err != nil && !errors.Is(err, store.ErrNotExist) && ctx.Err() == nil {
		j.cfg.Logger.Warn("whether the key is compromised can't be found out", "certificate", j.cert.Name, "err", err)
	}
	return err == nil
}

// noteCompromised finds out whether the key of the bundle was marked, and forgets the open orders for such keys.
func (j *job) noteCompromised(ctx context.Context) {
	if j.leaf == nil || !j.isCompromised(ctx, j.leaf.RawSubjectPublicKeyInfo) {
		j.state.Compromised = ""
		return
	}
	j.state.Compromised = j.state.Leaf.Fingerprint
	for _, ca := range j.cert.CAs {
		keep := keeper{j.cfg.Storage, orderObject(ca, j.cert.Name)}
		open, err := keep.load(ctx)
		if err == nil && open != nil && j.isCompromised(ctx, publicKey(open.Key)) {
			err = keep.Drop(ctx)
		}
		if err != nil {
			j.cfg.Logger.Warn("open order can't be forgotten", "certificate", j.cert.Name, "ca", ca, "err", err)
		}
	}
}

// compromised reports whether the certificate that is on disk is to be replaced since others may have its key.
func (s *State) compromised() bool {
	return s.Compromised != "" && s.Compromised == s.Leaf.Fingerprint
}

// publicKey returns the SubjectPublicKeyInfo of a private key in PKCS #8 PEM, nil when there is none.
func publicKey(key string) []byte {
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
