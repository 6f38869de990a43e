package lifecycle

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/printable"
	"autocertd/internal/store"
)

// Bundle is what was issued for a certificate, in one object, so that a key and a chain that don't belong together can't
// exist.
type Bundle struct {
	Name      string    `json:"name"`
	Hostnames []string  `json:"hostnames"`
	KeyType   string    `json:"key_type"`
	Profile   string    `json:"profile,omitempty"` // that the CA was asked for
	CA        string    `json:"ca"`
	Directory string    `json:"directory"`
	Account   string    `json:"account"`
	Order     string    `json:"order,omitempty"` // URL of the order that it came from
	Issued    time.Time `json:"issued"`
	Key       string    `json:"key,omitempty"` // "" when it is elsewhere, and CSR is what it signed
	CSR       []byte    `json:"csr,omitempty"`
	Leaf      string    `json:"leaf"`
	Chain     string    `json:"chain"`

	Revoked Revocation `json:"revoked,omitzero"` // when we had it revoked

	mark string // of the object that it was read from or written to
}

// markOf is a mark of a bundle's object: another one has another.
func markOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func bundleObject(name string) string { return "bundles/" + name + ".json" }

// damagedError is a bundle that was read and is of no use.
type damagedError struct {
	data []byte
	err  error
}

func (e *damagedError) Error() string { return fmt.Sprintf("the bundle is damaged: %v", e.err) }
func (e *damagedError) Unwrap() error { return e.err }

// Damaged reports whether an error of [LoadBundle] says that a bundle was read and is of no use.
func Damaged(err error) bool {
	_, damaged := errors.AsType[*damagedError](err)
	return damaged
}

// loadBundle returns the bundle of a certificate and its leaf, nil when there is none. One that can be read and is of no
// use is a *damagedError.
func (m *Manager) loadBundle(ctx context.Context, name string) (*Bundle, *x509.Certificate, error) {
	data, err := m.cfg.Storage.Load(ctx, bundleObject(name))
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	b := new(Bundle)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, nil, &damagedError{data, err}
	}
	leaf, err := b.parse()
	if err != nil {
		return nil, nil, &damagedError{data, err}
	}
	b.mark = markOf(data)
	return b, leaf, nil
}

// parse returns the leaf, if it belongs to the key, or to the CSR whose key is elsewhere.
func (b *Bundle) parse() (*x509.Certificate, error) {
	if b.CSR == nil {
		pair, err := tls.X509KeyPair([]byte(b.Leaf), []byte(b.Key))
		return pair.Leaf, err
	}
	csr, err := x509.ParseCertificateRequest(b.CSR)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(b.Leaf))
	if block == nil {
		return nil, errors.New("it has no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err == nil && !bytes.Equal(leaf.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
		err = errors.New("the certificate is for another key than the CSR")
	}
	return leaf, err
}

// setAside keeps a damaged bundle for a person to look at, since the next one takes its place. The name is made of the
// content: dying on the way, or failing to get another bundle, leaves one copy of it and not many.
func (j *job) setAside(ctx context.Context, damaged *damagedError) error {
	sum := sha256.Sum256(damaged.data)
	object := "damaged/" + j.cert.Name + "-" + hex.EncodeToString(sum[:4]) + ".json"
	if err := j.cfg.Storage.Save(context.WithoutCancel(ctx), object, damaged.data); err != nil {
		return errors.Join(damaged, err)
	}
	j.cfg.Logger.Error("bundle set aside, a new certificate is needed", "certificate", j.cert.Name, "kept_as", object, "err", damaged)
	return nil
}

// fits reports whether the bundle is what the configuration asks for now, and if not, what is different.
func (b *Bundle) fits(cert config.Certificate, s *Snapshot) (differs string) {
	have, want := slices.Sorted(slices.Values(b.Hostnames)), slices.Sorted(slices.Values(cert.Hostnames))
	ca := s.Issuers[b.CA]
	switch {
	case !slices.Equal(have, want):
		return "the hostnames changed"
	case !bytes.Equal(b.CSR, cert.CSR):
		return "the CSR changed"
	case cert.CSR == nil && b.KeyType != cert.KeyType:
		return "the key type changed"
	case !slices.Contains(cert.CAs, b.CA), ca == nil, ca.DirectoryURL() != b.Directory:
		return "the CA changed"
	case b.Profile != s.profile(cert, b.CA):
		return "the profile changed"
	}
	return ""
}

// profile is what a CA is asked for: what the certificate names, else what the CA's table does.
func (s *Snapshot) profile(cert config.Certificate, ca string) string {
	return cmp.Or(cert.Profile, s.CAs[ca].Profile)
}

// describe is what a state says about a bundle.
func describe(cert *x509.Certificate, b *Bundle) Leaf {
	sum := sha256.Sum256(cert.Raw)
	return Leaf{Hostnames: b.Hostnames, NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
		Serial: hex.EncodeToString(cert.SerialNumber.Bytes()), Fingerprint: hex.EncodeToString(sum[:]),
		Issuer: printable.Short(cert.Issuer.CommonName, 200), CA: b.CA, Revoked: b.Revoked}
}
