package issuer

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mholt/acmez/v3/acme"
)

// savedAccount is what is kept of an account beside its key.
type savedAccount struct {
	Directory string   `json:"directory"`
	URL       string   `json:"url"`
	Contact   []string `json:"contact,omitempty"`
}

// AccountKey names the account's objects in the storage: accounts/NAME-HASH, where the hash is of the directory URL, so
// that a CA entry that is pointed elsewhere doesn't use, or lose, the old account.
func AccountKey(name, directory string) string {
	sum := sha256.Sum256([]byte(directory))
	return "accounts/" + name + "-" + hex.EncodeToString(sum[:4])
}

// acmeAccount returns the account, registering it when there is none yet.
func (i *Issuer) acmeAccount(ctx context.Context) (acme.Account, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.account != nil {
		return *i.account, nil
	}
	object := AccountKey(i.cfg.Name, i.cfg.Directory)
	unlock, err := i.cfg.Storage.Lock(ctx, strings.ReplaceAll(object, "/", "-")) // no two processes register at once
	if err != nil {
		return acme.Account{}, err
	}
	defer unlock()
	saved, key, err := i.loadAccount(ctx, object)
	if err != nil {
		return acme.Account{}, err
	}
	account := acme.Account{Location: saved.URL, Contact: saved.Contact, PrivateKey: key}
	if saved.URL == "" {
		if account, err = i.register(ctx, object, key); err != nil {
			return acme.Account{}, err
		}
	}
	i.account = &account
	return account, nil
}

// loadAccount reads the account and its key; both are zero when there is no account yet.
func (i *Issuer) loadAccount(ctx context.Context, object string) (saved savedAccount, key crypto.Signer, err error) {
	data, err := i.cfg.Storage.Load(ctx, object+"/account.json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return saved, nil, err
	}
	if err == nil {
		if err := json.Unmarshal(data, &saved); err != nil {
			return saved, nil, fmt.Errorf("%s/account.json: %w", object, err)
		}
	}
	text, err := i.cfg.Storage.Load(ctx, object+"/key.pem")
	switch {
	case errors.Is(err, fs.ErrNotExist) && saved.URL == "":
		return saved, nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return saved, nil, &Error{CA: i.cfg.Name, Step: "account", Err: fmt.Errorf("the account %s is known, but its key %s/key.pem is missing", saved.URL, object),
			Hint: fmt.Sprintf("restore the key from a backup, or remove the folder %s in the state directory to register a new account", object)}
	case err != nil:
		return saved, nil, err
	}
	if key, err = decodeKey(text); err != nil {
		return saved, nil, fmt.Errorf("%s/key.pem: %w", object, err)
	}
	return saved, key, nil
}

// register makes the account at the CA, or finds it there when the key already has one. The key is durable before the
// CA hears of it: dying after that leaves a key whose account is found again by the next call.
func (i *Issuer) register(ctx context.Context, object string, key crypto.Signer) (acme.Account, error) {
	if !i.cfg.AcceptTerms {
		return acme.Account{}, &Error{CA: i.cfg.Name, Step: "account", Err: errors.New("the CA's terms of service aren't accepted"),
			Hint: fmt.Sprintf("write accept_terms = true below [ca.%s]", i.cfg.Name)}
	}
	if key == nil {
		var err error
		if key, err = newKey(ECDSAP256); err != nil {
			return acme.Account{}, err
		}
		text, err := encodeKey(key)
		if err != nil {
			return acme.Account{}, err
		}
		if err := i.cfg.Storage.Save(ctx, object+"/key.pem", text); err != nil {
			return acme.Account{}, err
		}
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if i.cfg.Email != "" {
		account.Contact = []string{"mailto:" + i.cfg.Email}
	}
	ctx, noted := observe(ctx)
	if i.cfg.EAB != nil {
		if err := account.SetExternalAccountBinding(ctx, i.client, acme.EAB{KeyID: i.cfg.EAB.KeyID, MACKey: i.cfg.EAB.HMACKey}); err != nil {
			return acme.Account{}, i.failed("account", noted, err)
		}
	}
	account, err := i.client.NewAccount(ctx, account)
	if err != nil {
		return acme.Account{}, i.failed("account", noted, err)
	}
	data, err := json.Marshal(savedAccount{Directory: i.cfg.Directory, URL: account.Location, Contact: account.Contact})
	if err != nil {
		return acme.Account{}, err
	}
	if err := i.cfg.Storage.Save(ctx, object+"/account.json", data); err != nil {
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
	account, err := i.register(ctx, AccountKey(i.cfg.Name, i.cfg.Directory), old.PrivateKey)
	if err != nil {
		return acme.Account{}, err
	}
	i.account = &account
	return account, nil
}
