package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"autocertd/internal/printable"
	"autocertd/internal/store"
)

// Bundle is what was issued for a certificate, in one object, so that a key and a chain that don't belong together can't
// exist. It is durable.
type Bundle struct {
	Name      string    `json:"name"`
	Hostnames []string  `json:"hostnames"`
	KeyType   string    `json:"key_type"`
	Profile   string    `json:"profile,omitempty"` // that the CA was asked for
	CA        string    `json:"ca"`
	Directory string    `json:"directory"`
	Account   string    `json:"account"`         // URL
	Order     string    `json:"order,omitempty"` // URL of the order that it came from
	Issued    time.Time `json:"issued"`
	Key       string    `json:"key,omitempty"` // PKCS #8 PEM; "" when it is elsewhere, and CSR is what it signed
	CSR       []byte    `json:"csr,omitempty"` // DER
	Leaf      string    `json:"leaf"`          // PEM
	Chain     string    `json:"chain"`         // PEM, without the leaf

	Revoked Revocation `json:"revoked,omitzero"` // zero unless it is known to be revoked

	// State are the facts that were saved with it; see [SaveIssued].
	State *Certificate `json:"state,omitempty"`

	mark string // of the object that it was read from or written to
}

// Mark returns a hash of the object: another content has another. It is "" for a bundle that was neither loaded nor saved.
func (b *Bundle) Mark() string { return b.mark }

func markOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// DamagedError is a bundle that was read and is of no use.
type DamagedError struct {
	data []byte
	err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("the bundle is damaged: %v", e.err) }
func (e *DamagedError) Unwrap() error { return e.err }

// LoadBundle returns what was issued for a certificate and its leaf, nil when there is nothing. One that can be read and is
// of no use is a *DamagedError.
func LoadBundle(ctx context.Context, r store.Reader, name string) (*Bundle, *x509.Certificate, error) {
	data, err := r.Load(ctx, bundleKey(name))
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return open(data)
}

// open returns the bundle of an object and its leaf, if they are of one piece; else a *DamagedError.
func open(data []byte) (*Bundle, *x509.Certificate, error) {
	b := new(Bundle)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, nil, &DamagedError{data, err}
	}
	leaf, err := b.Parse()
	if err != nil {
		return nil, nil, &DamagedError{data, err}
	}
	b.mark, b.State = markOf(data), nil
	return b, leaf, nil
}

// SaveBundle makes a bundle durable. Dying after it leaves an order that has served and files of the old certificate; the
// next look sees to both.
func SaveBundle(ctx context.Context, w store.Writer, b *Bundle) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := w.Save(ctx, bundleKey(b.Name), data); err != nil {
		return err
	}
	b.mark = markOf(data)
	return nil
}

// Parse returns the leaf, if it belongs to the key, or to the CSR whose key is elsewhere.
func (b *Bundle) Parse() (*x509.Certificate, error) {
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

// Describe returns what is known of the bundle without its key.
func (b *Bundle) Describe(cert *x509.Certificate) Leaf {
	sum := sha256.Sum256(cert.Raw)
	return Leaf{
		Hostnames:   b.Hostnames,
		NotBefore:   cert.NotBefore.UTC(),
		NotAfter:    cert.NotAfter.UTC(),
		Serial:      hex.EncodeToString(cert.SerialNumber.Bytes()),
		Fingerprint: hex.EncodeToString(sum[:]),
		Issuer:      printable.Short(cert.Issuer.CommonName, 200),
		CA:          b.CA,
		Revoked:     b.Revoked,
	}
}

// SetAside keeps a damaged bundle for a person to look at, since the next one takes its place, and returns the key of the
// copy. It is made of the content: dying on the way, or failing to get another bundle, leaves one copy and not many.
func SetAside(ctx context.Context, w store.Writer, name string, bundle *DamagedError) (key string, err error) {
	key = damaged + "/" + name + "-" + short(string(bundle.data)) + extension
	return key, w.Save(ctx, key, bundle.data)
}

// Adopt saves a bundle that another client got, as if it had been issued here, and reports whether that changed
// anything. Another bundle is kept, which is an error that wraps fs.ErrExist, unless overwrite is set. A certificate that
// another process works on is a *store.HeldError.
func Adopt(ctx context.Context, s Store, b *Bundle, overwrite bool) (changed bool, err error) {
	if _, err := tls.X509KeyPair([]byte(b.Leaf), []byte(b.Key)); err != nil {
		return false, err
	}
	lease, err := s.Try(ctx, Lock(b.Name))
	if err != nil {
		return false, err
	}
	defer lease.Release()
	old, leaf, err := LoadBundle(ctx, s, b.Name)
	switch {
	case err != nil && !overwrite:
		return false, err
	case old == nil:
	case old.Leaf == b.Leaf && old.CA == b.CA && old.Directory == b.Directory:
		return false, nil
	case !overwrite:
		return false, fmt.Errorf("there is one with the serial number %x: %w", leaf.SerialNumber, fs.ErrExist)
	}
	return true, SaveBundle(ctx, lease, b)
}

// Issued is what a bundle says of its order.
type Issued struct {
	Hostnames []string  `json:"hostnames"`
	Directory string    `json:"directory"`
	Issued    time.Time `json:"issued"`
}

// AllIssued returns what was issued last for each certificate. Bundles that can't be read are left out.
func AllIssued(ctx context.Context, s store.Store) (list []Issued, err error) {
	for o, err := range s.Scan(ctx, bundles) {
		if err != nil {
			return nil, err
		}
		var i Issued
		if o.Err == nil && json.Unmarshal(o.Data, &i) == nil {
			list = append(list, i)
		}
	}
	return list, nil
}
