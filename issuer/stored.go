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
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/store"
)

// savedAccount is account.json: the account but for its key.
type savedAccount struct {
	Directory   string    `json:"directory"`
	URL         string    `json:"url"`
	Contact     []string  `json:"contact,omitempty"`    // as it was last sent to the CA
	Deactivated time.Time `json:"deactivated,omitzero"` // when we did that; nothing registers by itself from then on
}

// AccountKey names the account's objects in the storage: accounts/NAME-HASH, where the hash is of the directory URL, so
// that a CA entry that is pointed elsewhere doesn't use, or lose, the old account.
func AccountKey(name, directory string) string {
	sum := sha256.Sum256([]byte(directory))
	return "accounts/" + name + "-" + hex.EncodeToString(sum[:4])
}

// The objects of an account, below its folder.
const (
	accountFile = "/account.json"
	keyFile     = "/key.pem"
	nextFile    = "/key-next.pem" // of a rollover that isn't finished
)

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

// accountStore is where the account of a CA is kept.
type accountStore struct{ cfg Config }

func (s accountStore) object() string { return AccountKey(s.cfg.Name, s.cfg.Directory) }

// accountWriter is an accountStore under the lease of the account.
type accountWriter struct {
	accountStore
	lease store.Lease
}

// exclusively runs f under the lease of the account: no other process changes that meanwhile. The context ends with the lease.
func (s accountStore) exclusively(ctx context.Context, f func(ctx context.Context, w accountWriter) error) error {
	lease, err := s.cfg.Storage.Acquire(ctx, strings.ReplaceAll(s.object(), "/", "-"))
	if err != nil {
		return err
	}
	defer lease.Release()
	ctx, cancel := store.Within(ctx, lease)
	defer cancel()
	return f(ctx, accountWriter{s, lease})
}

// accountFiles are the objects of an account as they are in the storage; nil stands for one that isn't there.
type accountFiles struct{ account, key, next []byte }

func (s accountStore) read(ctx context.Context) (files accountFiles, err error) {
	into := map[string]*[]byte{s.object() + accountFile: &files.account, s.object() + keyFile: &files.key, s.object() + nextFile: &files.next}
	for o, err := range s.cfg.Storage.Scan(ctx, slices.Collect(maps.Keys(into))...) {
		if err := errors.Join(err, o.Err); err != nil {
			return files, err
		}
		*into[o.Key] = o.Data
	}
	return files, nil
}

func (s accountStore) fault(err error, cure string) error {
	return &Error{CA: s.cfg.Name, Step: "account", Err: err, Hint: cure}
}

// damaged is the error for a file that can't be what was saved.
func (s accountStore) damaged(file string, err error, cure string) error {
	return s.fault(fmt.Errorf("%s%s in the state directory is damaged: %w", s.object(), file, err), cure)
}

// errNoAccount says that no account is registered yet. There may be a key already.
var errNoAccount = errors.New("no account is registered")

// deactivatedError says that the account was deactivated here. No order registers another one by itself.
type deactivatedError struct {
	url string
	at  time.Time
}

func (e *deactivatedError) Error() string {
	return fmt.Sprintf("the account %s was deactivated on %s", e.url, e.at.Format(time.DateOnly))
}

// noAccount reports whether an error says that there is no account, or not any more.
func noAccount(err error) bool {
	var deactivated *deactivatedError
	return errors.Is(err, errNoAccount) || errors.As(err, &deactivated)
}

// account returns the stored account with its key. It is an error when none is registered, or not any more; a key that is there
// is returned even then.
func (s accountStore) account(ctx context.Context) (account acme.Account, err error) {
	files, err := s.read(ctx)
	if err != nil {
		return account, err
	}
	var saved savedAccount
	if files.account != nil {
		if err := json.Unmarshal(files.account, &saved); err != nil {
			cure := "restore it from a backup"
			if files.key != nil {
				cure += ", or remove it: the account is found again by its key"
			}
			return account, s.damaged(accountFile, err, cure)
		}
	}
	switch {
	case files.key != nil:
		if account.PrivateKey, err = decodeKey(files.key); err != nil {
			return account, s.damaged(keyFile, err, fmt.Sprintf("restore it from a backup, or remove the folder %s to register a new account", s.object()))
		}
	case saved.URL != "":
		return account, s.fault(fmt.Errorf("the account %s is known, but its key %s%s is missing", saved.URL, s.object(), keyFile),
			fmt.Sprintf("restore the key from a backup, or remove the folder %s in the state directory to register a new account", s.object()))
	}
	account.Location, account.Contact = saved.URL, saved.Contact
	switch {
	case !saved.Deactivated.IsZero():
		account.Status = acme.StatusDeactivated
		err = &deactivatedError{saved.URL, saved.Deactivated}
	case saved.URL == "":
		err = errNoAccount
	default:
		return account, nil
	}
	return account, s.fault(err, "to register a new one: autocertd account register "+s.cfg.argument())
}

// nextKey returns the key of a rollover that isn't finished, nil when there is none.
func (s accountStore) nextKey(ctx context.Context) (crypto.Signer, error) {
	files, err := s.read(ctx)
	if err != nil || files.next == nil {
		return nil, err
	}
	next, err := decodeKey(files.next)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", s.object(), nextFile, err)
	}
	return next, nil
}

// save makes account.json durable.
func (w accountWriter) save(ctx context.Context, account savedAccount) error {
	account.Directory = w.cfg.Directory
	data, err := json.Marshal(account)
	if err != nil {
		return err
	}
	return w.lease.Save(ctx, w.object()+accountFile, data)
}

// saveKey makes a key of the account durable, under the name of a file.
func (w accountWriter) saveKey(ctx context.Context, file string, key crypto.Signer) error {
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	return w.lease.Save(ctx, w.object()+file, text)
}

// makeKey makes a key for the account and keeps it durably, under the name of a file.
func (w accountWriter) makeKey(ctx context.Context, file string) (crypto.Signer, error) {
	key, err := newKey(ECDSAP256)
	if err != nil {
		return nil, err
	}
	return key, w.saveKey(ctx, file, key)
}

// dropNext removes the key of a rollover.
func (w accountWriter) dropNext(ctx context.Context) error {
	return w.lease.Delete(ctx, w.object()+nextFile)
}

// ForeignAccount is an account that another client registered.
type ForeignAccount struct {
	CA        string // its name in the configuration
	Directory string
	URL       string // "" when it isn't known: the CA names it for the key, before the first order
	Contact   []string
	Key       crypto.Signer
}

// Adopt makes a foreign account the one of its CA, and reports whether that changed anything. Another account is kept,
// which is an error that wraps fs.ErrExist, unless overwrite is set.
func Adopt(ctx context.Context, storage Storage, f ForeignAccount, overwrite bool) (changed bool, err error) {
	s := accountStore{Config{Name: f.CA, Directory: f.Directory, Storage: storage}}
	err = s.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		changed, err = w.adopt(ctx, f, overwrite)
		return err
	})
	return changed, err
}

func (w accountWriter) adopt(ctx context.Context, f ForeignAccount, overwrite bool) (changed bool, err error) {
	if next, err := w.nextKey(ctx); next != nil || err != nil {
		return false, errors.Join(errors.New("a rollover of the account's key isn't finished"), err)
	}
	there, err := w.account(ctx)
	if err != nil && !noAccount(err) && !overwrite {
		return false, err
	}
	same := there.PrivateKey != nil && sameKey(there.PrivateKey, f.Key)
	switch {
	case same && there.Status != acme.StatusDeactivated && (there.Location == f.URL || f.URL == ""):
		return false, nil
	case there.Location != "" && !overwrite:
		return false, fmt.Errorf("the CA has the account %s there: %w", there.Location, fs.ErrExist)
	case there.PrivateKey != nil && !same && !overwrite:
		return false, fmt.Errorf("the CA has a key there: %w", fs.ErrExist)
	}
	text, err := encodeKey(f.Key)
	if err != nil {
		return false, err
	}
	// Never does a key stand beside the URL of another's account: dying on the way leaves a key alone, whose account the CA
	// names.
	if err := w.save(ctx, savedAccount{}); err != nil {
		return true, err
	}
	if err := w.lease.Save(ctx, w.object()+keyFile, text); err != nil {
		return true, err
	}
	return true, w.save(ctx, savedAccount{URL: f.URL, Contact: f.Contact})
}

// knownAccount is the account in memory, and the objects that it was read from.
type knownAccount struct {
	account acme.Account
	files   accountFiles
}
