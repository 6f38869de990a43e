package issuer

import (
	"context"
	"errors"
	"fmt"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/store"
)

// Account is an account as the CA describes it (RFC 8555 section 7.1.2), and what follows from its key.
type Account struct {
	URL     string   `json:"url"`
	Status  string   `json:"status"` // as the CA says, or StatusForgotten
	Contact []string `json:"contact"`
	Terms   bool     `json:"termsOfServiceAgreed,omitempty"`
	Orders  string   `json:"orders,omitempty"`
	// Thumbprint is that of the key (RFC 7638).
	Thumbprint string `json:"thumbprint"`
	// CAA holds the value of a CAA record for each name that the CA goes by there. With one of them alone, the CA issues
	// to this account only (RFC 8657).
	CAA []string `json:"caa"`
}

// StatusForgotten is the status of an account that the CA doesn't know any more.
const StatusForgotten = "unknown to the CA"

// Account asks the CA for the account that is stored. It never registers one. One that was deactivated here isn't asked
// for.
func (i *Issuer) Account(ctx context.Context) (result Account, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	err = i.exclusively(ctx, func(lease store.Lease) error {
		account, err := i.existing(ctx, lease)
		var deactivated *deactivatedError
		if errors.As(err, &deactivated) {
			result, err = i.describe(ctx, account)
			return err
		}
		if err == nil {
			result, err = i.ask(ctx, account)
		}
		return err
	})
	return result, err
}

// Register makes the account, or finds the one that there is; made says which. In the place of one that was deactivated
// here, or that the CA has forgotten, it makes another. It is the one call that does so for the former.
func (i *Issuer) Register(ctx context.Context) (result Account, made bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	err = i.exclusively(ctx, func(lease store.Lease) error {
		account, err := i.existing(ctx, lease)
		var deactivated *deactivatedError
		switch {
		case errors.As(err, &deactivated):
			// Dying after this leaves the mark, so that it takes another Register to go on.
			account.PrivateKey, err = i.makeKey(ctx, lease, keyFile)
			made = true
		case errors.Is(err, errNoAccount):
			made, err = true, nil
		case err == nil:
			i.tellContact(ctx, lease, account)
			result, err = i.ask(ctx, account)
			made = result.Status == StatusForgotten
		}
		if err != nil || !made {
			return err
		}
		if account, err = i.register(ctx, lease, account.PrivateKey); err == nil {
			result, err = i.describe(ctx, account)
		}
		return err
	})
	return result, made, err
}

// ask lets the CA describe an account.
func (i *Issuer) ask(ctx context.Context, account acme.Account) (Account, error) {
	noting, noted := observe(ctx)
	// The library has no plain request for an account. Looking one up by its key changes nothing either (section 7.3.1).
	found, err := i.client.GetAccount(noting, acme.Account{PrivateKey: account.PrivateKey})
	switch {
	case isProblem(err, acme.ProblemTypeAccountDoesNotExist):
		account.Status = StatusForgotten
	case isProblem(err, acme.ProblemTypeUnauthorized): // what a deactivated account hears (section 7.3.6)
		account.Status = acme.StatusDeactivated
	case err != nil:
		return Account{}, i.failed("account", noted, err)
	default:
		account.Status, account.Contact, account.Orders = found.Status, found.Contact, found.Orders
		account.TermsOfServiceAgreed = found.TermsOfServiceAgreed
	}
	return i.describe(ctx, account)
}

// describe adds to an account what follows from its key and the CA's directory.
func (i *Issuer) describe(ctx context.Context, account acme.Account) (Account, error) {
	result := Account{URL: account.Location, Status: account.Status, Contact: append([]string{}, account.Contact...),
		Terms: account.TermsOfServiceAgreed, Orders: account.Orders, CAA: []string{}}
	var err error
	if result.Thumbprint, err = account.Thumbprint(); err != nil {
		return result, i.explain("account", err)
	}
	dir, err := i.client.GetDirectory(ctx)
	if err != nil {
		return result, i.explain("directory", err)
	}
	if dir.Meta != nil {
		for _, id := range dir.Meta.CAAIdentities {
			result.CAA = append(result.CAA, fmt.Sprintf(`0 issue "%s; accounturi=%s; validationmethods=%s"`, id, account.Location, i.cfg.methods(",")))
		}
	}
	return result, nil
}
