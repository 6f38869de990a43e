package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/store"
)

// savedAccount is what is kept of an account beside its key.
type savedAccount struct {
	Directory   string    `json:"directory"`
	URL         string    `json:"url"`
	Contact     []string  `json:"contact,omitempty"`    // as the CA was last told
	Deactivated time.Time `json:"deactivated,omitzero"` // when we did that; nothing registers by itself from then on
}

// AccountKey names the account's objects in the storage: accounts/NAME-HASH, where the hash is of the directory URL, so
// that a CA entry that is pointed elsewhere doesn't use, or lose, the old account.
func AccountKey(name, directory string) string {
	sum := sha256.Sum256([]byte(directory))
	return "accounts/" + name + "-" + hex.EncodeToString(sum[:4])
}

func (i *Issuer) accountObject() string { return AccountKey(i.cfg.Name, i.cfg.Directory) }

// The objects of an account, below its folder.
const (
	accountFile = "/account.json"
	keyFile     = "/key.pem"
	nextFile    = "/key-next.pem" // of a rollover that isn't finished
)

// accountFiles are the objects of an account as they are in the storage; nil stands for one that isn't there.
type accountFiles struct{ account, key, next []byte }

func (i *Issuer) readAccount(ctx context.Context, object string) (files accountFiles, err error) {
	into := map[string]*[]byte{object + accountFile: &files.account, object + keyFile: &files.key, object + nextFile: &files.next}
	for o, err := range i.cfg.Storage.Scan(ctx, slices.Collect(maps.Keys(into))...) {
		if err := errors.Join(err, o.Err); err != nil {
			return files, err
		}
		*into[o.Key] = o.Data
	}
	return files, nil
}

// AccountURL returns the URL of the account that is stored for a CA, "" when none is.
func AccountURL(ctx context.Context, storage store.Reader, name, directory string) (string, error) {
	data, err := storage.Load(ctx, AccountKey(name, directory)+accountFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var saved savedAccount
	if err == nil {
		err = json.Unmarshal(data, &saved)
	}
	return saved.URL, err
}

// acmeAccount returns the account, registering it when there is none yet.
func (i *Issuer) acmeAccount(ctx context.Context) (acme.Account, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.account != nil && i.unchanged(ctx) {
		return *i.account, nil
	}
	err := i.exclusively(ctx, func(lease store.Lease) error {
		account, err := i.existing(ctx, lease)
		if errors.Is(err, errNoAccount) {
			account, err = i.register(ctx, lease, account.PrivateKey)
		} else if err == nil {
			i.tellContact(ctx, lease, account)
		}
		if err != nil {
			return err
		}
		i.account = &account
		i.stored, err = i.readAccount(ctx, i.accountObject())
		return err
	})
	if err != nil {
		return acme.Account{}, err
	}
	return *i.account, nil
}

// unchanged reports whether the account in memory is what the storage has: another process may have given it a new key,
// or deactivated it. While a rollover isn't finished nothing is sure. A storage that can't be read changes nothing.
func (i *Issuer) unchanged(ctx context.Context) bool {
	now, err := i.readAccount(ctx, i.accountObject())
	return err != nil || now.next == nil && bytes.Equal(now.account, i.stored.account) && bytes.Equal(now.key, i.stored.key)
}

// exclusively runs f while no other process changes the account.
func (i *Issuer) exclusively(ctx context.Context, f func(lease store.Lease) error) error {
	lease, err := i.cfg.Storage.Acquire(ctx, accountLock(i.accountObject()))
	if err != nil {
		return err
	}
	defer lease.Release()
	return f(lease)
}

// errNoAccount says that no account is registered yet. A key may be there already.
var errNoAccount = errors.New("no account is registered")

// existing returns the account that is stored, with the key that the CA accepts. It never registers one.
func (i *Issuer) existing(ctx context.Context, lease store.Lease) (acme.Account, error) {
	account, err := i.recorded(ctx)
	if err != nil {
		return account, err
	}
	if err := i.settle(ctx, lease, &account); err != nil {
		if ctx.Err() != nil {
			return account, ctx.Err()
		}
		i.cfg.Logger.Warn("a key rollover can't be finished now", "ca", i.cfg.Name, "account", account.Location, "err", err)
	}
	return account, nil
}

// recorded is existing without asking anybody. With an error it returns what there is, too.
func (i *Issuer) recorded(ctx context.Context) (acme.Account, error) {
	saved, key, err := i.loadAccount(ctx, i.accountObject())
	account := acme.Account{Location: saved.URL, Contact: saved.Contact, PrivateKey: key}
	switch {
	case err != nil:
	case !saved.Deactivated.IsZero():
		account.Status = acme.StatusDeactivated
		err = i.unregistered(&deactivatedError{saved.URL, saved.Deactivated})
	case saved.URL == "":
		err = i.unregistered(errNoAccount)
	}
	return account, err
}

// unregistered says how to get an account.
func (i *Issuer) unregistered(err error) error {
	return &Error{CA: i.cfg.Name, Step: "account", Err: err, Hint: "to register a new one: autocertd account register " + i.cfg.argument()}
}

// loadAccount reads the account and its key; both are zero when there is no account yet.
func (i *Issuer) loadAccount(ctx context.Context, object string) (saved savedAccount, key crypto.Signer, err error) {
	files, err := i.readAccount(ctx, object)
	if err != nil {
		return saved, nil, err
	}
	if files.account != nil {
		if err := json.Unmarshal(files.account, &saved); err != nil {
			cure := "restore it from a backup"
			if files.key != nil {
				cure += ", or remove it: the account is found again by its key"
			}
			return saved, nil, i.damaged(object+accountFile, err, cure)
		}
	}
	switch {
	case files.key == nil && saved.URL == "":
		return saved, nil, nil
	case files.key == nil:
		return saved, nil, &Error{CA: i.cfg.Name, Step: "account", Err: fmt.Errorf("the account %s is known, but its key %s/key.pem is missing", saved.URL, object),
			Hint: fmt.Sprintf("restore the key from a backup, or remove the folder %s in the state directory to register a new account", object)}
	}
	if key, err = decodeKey(files.key); err != nil {
		return saved, nil, i.damaged(object+keyFile, err, fmt.Sprintf("restore it from a backup, or remove the folder %s to register a new account", object))
	}
	return saved, key, nil
}

// damaged is for a file of the account that can't be what was saved.
func (i *Issuer) damaged(file string, err error, cure string) error {
	return &Error{CA: i.cfg.Name, Step: "account", Err: fmt.Errorf("%s in the state directory is damaged: %w", file, err), Hint: cure}
}

// makeKey makes a key for the account and keeps it durably under a name.
func (i *Issuer) makeKey(ctx context.Context, lease store.Lease, file string) (crypto.Signer, error) {
	key, err := newKey(ECDSAP256)
	if err != nil {
		return nil, err
	}
	text, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, lease.Save(ctx, i.accountObject()+file, text)
}

// register makes the account at the CA, or finds it there when the key already has one. The key is durable before the
// CA hears of it: dying after that leaves a key whose account is found again by the next call.
func (i *Issuer) register(ctx context.Context, lease store.Lease, key crypto.Signer) (acme.Account, error) {
	if !i.cfg.AcceptTerms {
		return acme.Account{}, &Error{CA: i.cfg.Name, Step: "account", Err: errors.New("the CA's terms of service aren't accepted"),
			Hint: fmt.Sprintf("write accept_terms = true below [ca.%s]", i.cfg.Name)}
	}
	if key == nil {
		var err error
		if key, err = i.makeKey(ctx, lease, keyFile); err != nil {
			return acme.Account{}, err
		}
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key, Contact: i.contact()}
	ctx, noted := observe(ctx)
	if i.cfg.EAB != nil {
		if err := i.client.bind(ctx, &account, *i.cfg.EAB); err != nil {
			return acme.Account{}, i.failed("account", noted, err)
		}
	}
	account, err := i.client.NewAccount(ctx, account)
	if err != nil {
		return acme.Account{}, i.failed("account", noted, err)
	}
	// What the CA answers of the contact may be less than it was told; what it was told is what the next change is seen by.
	// An account that was there already isn't changed by this request.
	told := i.contact()
	if noted.status == http.StatusOK {
		told = account.Contact
	}
	if err := i.saveAccount(ctx, lease, savedAccount{Directory: i.cfg.Directory, URL: account.Location, Contact: told}); err != nil {
		return acme.Account{}, err
	}
	i.cfg.Logger.Info("account registered", "ca", i.cfg.Name, "account", account.Location)
	return account, nil
}

// registerAgain serves a CA that has forgotten the account (accountDoesNotExist): the same key is registered anew.
func (i *Issuer) registerAgain(ctx context.Context, old acme.Account) (acme.Account, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.account != nil && i.account.Location != old.Location { // another order was first
		return *i.account, nil
	}
	i.cfg.Logger.Warn("the CA doesn't know the account any more; registering its key again", "ca", i.cfg.Name, "account", old.Location)
	err := i.exclusively(ctx, func(lease store.Lease) error {
		account, err := i.register(ctx, lease, old.PrivateKey)
		if err == nil {
			i.account = &account
		}
		return err
	})
	if err != nil {
		return acme.Account{}, err
	}
	return *i.account, nil
}
