package issuer

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"autocertd/internal/store"
)

// ForeignAccount is an account that another client registered.
type ForeignAccount struct {
	CA        string // what the configuration calls the CA
	Directory string
	URL       string // "" when it isn't known: the CA tells it for the key, before the first order
	Contact   []string
	Key       crypto.Signer
}

// Adopt makes a foreign account the one of its CA, and reports whether that changed anything. Another account is kept,
// which is an error that wraps fs.ErrExist, unless overwrite is set.
func Adopt(ctx context.Context, storage Storage, f ForeignAccount, overwrite bool) (changed bool, err error) {
	i := &Issuer{cfg: Config{Name: f.CA, Directory: f.Directory, Storage: storage}}
	err = i.exclusively(ctx, func(lease store.Lease) error {
		changed, err = i.adopt(ctx, lease, f, overwrite)
		return err
	})
	return changed, err
}

func (i *Issuer) adopt(ctx context.Context, lease store.Lease, f ForeignAccount, overwrite bool) (changed bool, err error) {
	if next, err := i.nextKey(ctx); next != nil || err != nil {
		return false, errors.Join(errors.New("a rollover of the account's key isn't finished"), err)
	}
	saved, key, err := i.loadAccount(ctx, i.accountObject())
	if err != nil && !overwrite {
		return false, err
	}
	same := err == nil && key != nil && sameKey(key, f.Key)
	switch {
	case same && saved.Deactivated.IsZero() && (saved.URL == f.URL || f.URL == ""):
		return false, nil
	case saved.URL != "" && !overwrite:
		return false, fmt.Errorf("the CA has the account %s there: %w", saved.URL, fs.ErrExist)
	case key != nil && !same && !overwrite:
		return false, fmt.Errorf("the CA has a key there: %w", fs.ErrExist)
	}
	return true, i.replace(ctx, lease, f)
}

// replace saves the account so that never a key stands beside the URL of another's account: dying on the way leaves a key
// alone, whose account the CA tells.
func (i *Issuer) replace(ctx context.Context, lease store.Lease, f ForeignAccount) error {
	text, err := encodeKey(f.Key)
	if err != nil {
		return err
	}
	if err := i.saveAccount(ctx, lease, savedAccount{Directory: f.Directory}); err != nil {
		return err
	}
	if err := lease.Save(ctx, i.accountObject()+keyFile, text); err != nil {
		return err
	}
	return i.saveAccount(ctx, lease, savedAccount{Directory: f.Directory, URL: f.URL, Contact: f.Contact})
}

func sameKey(a, b crypto.Signer) bool {
	public, ok := a.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b.Public())
}

// saveAccount makes what is known of an account durable.
func (i *Issuer) saveAccount(ctx context.Context, lease store.Lease, account savedAccount) error {
	data, err := json.Marshal(account)
	if err != nil {
		return err
	}
	return lease.Save(ctx, i.accountObject()+accountFile, data)
}

// accountLock names the lock of an account: no two processes register, or adopt, at once.
func accountLock(object string) string { return strings.ReplaceAll(object, "/", "-") }
