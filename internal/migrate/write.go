package migrate

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// A Result is what became of one account or certificate.
type Result struct {
	What    string // "account https://… of CA letsencrypt", "certificate www.example.com (…)"
	Changed bool   // it was written; without an error, it was there already otherwise
	Err     error  // it wasn't, and why: what wraps fs.ErrExist is kept from before
}

// Write saves the accounts and then the certificates, each for itself. What exists and is different is kept, unless
// overwrite is set. A certificate whose account isn't known isn't saved: it couldn't be renewed as what it is.
func (t *Tree) Write(ctx context.Context, store state.Store, overwrite bool) (results []Result) {
	for _, a := range t.Accounts {
		r := Result{What: fmt.Sprintf("account %s of CA %s", a.describe(), a.CA)}
		r.Changed, r.Err = issuer.Adopt(ctx, store, a.foreign(), overwrite)
		results = append(results, r)
	}
	for _, c := range t.Certificates {
		if c.Account == nil {
			continue
		}
		r := Result{What: fmt.Sprintf("certificate %s (expires %s)", c.Name, c.Leaf().NotAfter.UTC().Format(time.DateOnly))}
		bundle, err := c.bundle()
		if err == nil {
			r.Changed, err = state.Adopt(ctx, store, bundle, overwrite)
		}
		r.Err = err
		results = append(results, r)
	}
	return results
}

// describe is the URL of an account, or what is known instead.
func (a *Account) describe() string {
	if a.URL == "" {
		return "(whose URL the CA tells at the first order)"
	}
	return a.URL
}

func (a *Account) foreign() issuer.ForeignAccount {
	f := issuer.ForeignAccount{CA: a.CA, Directory: a.Directory, URL: a.URL, Key: a.Key}
	if a.Email != "" {
		f.Contact = []string{"mailto:" + a.Email}
	}
	return f
}

// bundle is the certificate as it is kept here.
func (c *Certificate) bundle() (*state.Bundle, error) {
	key, err := encodeKey(c.Key)
	if err != nil {
		return nil, err
	}
	return &state.Bundle{
		Name:      c.Name,
		Hostnames: c.Hostnames,
		KeyType:   c.KeyType,
		Profile:   c.Profile,
		CA:        c.Account.CA,
		Directory: c.Account.Directory,
		Account:   c.Account.URL,
		Issued:    c.Leaf().NotBefore.UTC(),
		Key:       string(key),
		Leaf:      encode(c.Chain[:1]),
		Chain:     encode(c.Chain[1:]),
	}, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encode(chain []*x509.Certificate) string {
	var b bytes.Buffer
	for _, c := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// DryRun is a storage that is only looked at: what is saved is lost, and every lease is free.
type DryRun struct{ store.Reader }

// Save implements store.Writer.
func (DryRun) Save(context.Context, string, []byte) error { return nil }

// SaveLazily implements store.Writer.
func (DryRun) SaveLazily(context.Context, string, []byte) error { return nil }

// Delete implements store.Writer.
func (DryRun) Delete(context.Context, string) error { return nil }

// Acquire implements store.Leaser.
func (d DryRun) Acquire(context.Context, string) (store.Lease, error) { return freeLease{d}, nil }

// Try implements store.Leaser.
func (d DryRun) Try(context.Context, string) (store.Lease, error) { return freeLease{d}, nil }

// Holder implements store.Leaser.
func (DryRun) Holder(context.Context, string) (*store.Holder, error) { return nil, nil }

// freeLease is a lease of a [DryRun], which is never lost.
type freeLease struct{ DryRun }

// Context implements store.Lease.
func (freeLease) Context() context.Context { return context.Background() }

// Release implements store.Lease.
func (freeLease) Release() {}
