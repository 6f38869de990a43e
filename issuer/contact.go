package issuer

import (
	"context"
	"errors"
	"slices"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/store"
)

// contact is what the CA is to know of whom to write to (RFC 8555 section 7.3); nil when the configuration doesn't say.
func (i *Issuer) contact() []string {
	if i.cfg.Email == "" {
		return nil
	}
	return []string{"mailto:" + i.cfg.Email}
}

// UpdateContact tells the CA the configured contact when it was last told another (RFC 8555 section 7.3.2). Without an
// account there is nothing to do, and without a configured contact the CA keeps the last one. It tries once; many callers
// may have the same reason to call it.
func (i *Issuer) UpdateContact(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.told || i.cfg.Email == "" {
		return nil
	}
	i.told = true
	return i.exclusively(ctx, func(lease store.Lease) error {
		account, err := i.existing(ctx, lease)
		if err != nil {
			return ignoreMissing(err)
		}
		return i.sendContact(ctx, lease, account)
	})
}

// ignoreMissing takes away the errors of an account that isn't there, or not any more.
func ignoreMissing(err error) error {
	var deactivated *deactivatedError
	if errors.Is(err, errNoAccount) || errors.As(err, &deactivated) {
		return nil
	}
	return err
}

// tellContact is for orders: a contact that the CA doesn't take must not keep certificates from being issued.
func (i *Issuer) tellContact(ctx context.Context, lease store.Lease, account acme.Account) {
	if err := i.sendContact(ctx, lease, account); err != nil && ctx.Err() == nil {
		i.cfg.Logger.Warn("the CA doesn't take the account's contact", "ca", i.cfg.Name, "account", account.Location, "err", err)
	}
}

// sendContact makes the request, unless nothing has changed. Dying after it leaves the old contact noted, so that the
// request is repeated, which does no harm.
func (i *Issuer) sendContact(ctx context.Context, lease store.Lease, account acme.Account) error {
	want := i.contact()
	if want == nil || slices.Equal(account.Contact, want) {
		return nil
	}
	noting, noted := observe(ctx)
	_, err := i.client.UpdateAccount(noting, acme.Account{Location: account.Location, PrivateKey: account.PrivateKey, Contact: want})
	if err != nil {
		return i.failed("contact", noted, err)
	}
	if err := i.saveAccount(ctx, lease, savedAccount{Directory: i.cfg.Directory, URL: account.Location, Contact: want}); err != nil {
		return err
	}
	i.cfg.Logger.Info("account contact updated", "ca", i.cfg.Name, "account", account.Location, "contact", want[0])
	return nil
}
