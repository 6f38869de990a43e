package issuer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/store"
)

// Rollover gives the account a new key (RFC 8555 section 7.3.5). The new key is durable, as key-next.pem, before the CA is
// told, and becomes key.pem afterwards. Dying at any moment leaves the key that the CA accepts in one of the two; the next
// order, or the next Rollover, finds out which and finishes it. A Rollover that finds one unfinished makes no further key.
func (i *Issuer) Rollover(ctx context.Context) (Account, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var result Account
	err := i.exclusively(ctx, func(lease store.Lease) error {
		account, err := i.recorded(ctx)
		if err != nil {
			return err
		}
		if err := i.begin(ctx, lease, account.PrivateKey); err != nil {
			return err
		}
		if err := i.settle(ctx, lease, &account); err != nil {
			return err
		}
		i.cfg.Logger.Info("account key changed", "ca", i.cfg.Name, "account", account.Location)
		result, err = i.ask(ctx, account)
		return err
	})
	return result, err
}

// begin makes the next key, unless there is one already.
func (i *Issuer) begin(ctx context.Context, lease store.Lease, key crypto.Signer) error {
	next, err := i.nextKey(ctx)
	if err != nil || next != nil && !sameKey(next, key) {
		return err
	}
	dir, err := i.client.GetDirectory(ctx)
	if err == nil && dir.KeyChange == "" {
		err = errors.New("this CA offers no change of account keys")
	}
	if err != nil {
		return i.explain("rollover", err)
	}
	_, err = i.makeKey(ctx, lease, nextFile)
	return err
}

// nextKey returns the key of a rollover that isn't finished, nil when there is none.
func (i *Issuer) nextKey(ctx context.Context) (crypto.Signer, error) {
	text, err := i.cfg.Storage.Load(ctx, i.accountObject()+nextFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	next, err := decodeKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", i.accountObject(), nextFile, err)
	}
	return next, nil
}

// settle finishes a rollover that was begun, if one was: the account has the key afterwards that the CA accepts, as far as
// that could be found out. An error says that the rollover isn't finished.
func (i *Issuer) settle(ctx context.Context, lease store.Lease, account *acme.Account) error {
	next, err := i.nextKey(ctx)
	if err != nil || next == nil {
		return err
	}
	if !sameKey(next, account.PrivateKey) {
		if err := i.changeKey(ctx, lease, *account, next); err != nil {
			return err
		}
		account.PrivateKey = next
		text, err := encodeKey(next)
		if err != nil {
			return err
		}
		// Dying before this leaves both keys, and the CA says which of them counts.
		if err := lease.Save(ctx, i.accountObject()+keyFile, text); err != nil {
			return err
		}
	}
	// Dying before this leaves the same key twice, which sameKey sees without asking the CA.
	return lease.Delete(ctx, i.accountObject()+nextFile)
}

// changeKey tells the CA, unless it has heard already. Returned nil means that the next key counts.
func (i *Issuer) changeKey(ctx context.Context, lease store.Lease, account acme.Account, next crypto.Signer) error {
	if holds, err := i.holds(ctx, account.Location, next); err != nil || holds {
		return err
	}
	noting, noted := observe(ctx)
	_, err := i.client.AccountKeyRollover(noting, account, next)
	if err == nil {
		return nil
	}
	// The reply may be lost, or the library has sent once more what had served.
	holds, askErr := i.holds(ctx, account.Location, next)
	if askErr == nil && holds {
		return nil
	}
	err = i.failed("rollover", noted, err)
	// step-ca names the URL and does nothing there. A key that the CA will never take is of no use.
	if askErr == nil && noted.status == http.StatusNotImplemented {
		return errors.Join(err, lease.Delete(ctx, i.accountObject()+nextFile))
	}
	var e *Error
	if errors.As(err, &e) && e.Hint == "" {
		e.Hint = fmt.Sprintf("the next rollover goes on with the same new key; while the CA refuses it, the old one counts. To give it up, remove %s%s from the state directory", i.accountObject(), nextFile)
	}
	return err
}

// holds asks the CA whether a key is that of the account (RFC 8555 section 7.3.1).
func (i *Issuer) holds(ctx context.Context, url string, key crypto.Signer) (bool, error) {
	noting, noted := observe(ctx)
	found, err := i.client.GetAccount(noting, acme.Account{PrivateKey: key})
	switch {
	case isProblem(err, acme.ProblemTypeAccountDoesNotExist):
		return false, nil
	case err != nil:
		return false, i.failed("account", noted, err)
	case found.Location != url:
		return false, i.explain("rollover", fmt.Errorf("the new key belongs to another account, %s", found.Location))
	}
	return true, nil
}
