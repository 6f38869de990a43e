package issuer

import (
	"context"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/store"
)

// deactivatedError says that the account was deactivated here. No order registers another one by itself.
type deactivatedError struct {
	url string
	at  time.Time
}

func (e *deactivatedError) Error() string {
	return fmt.Sprintf("the account %s was deactivated on %s", e.url, e.at.Format(time.DateOnly))
}

// Deactivate ends the account for good (RFC 8555 section 7.3.6): the CA takes nothing from it any more. That is noted, so
// that nothing registers another one until Register is called. Dying before the note leaves an account of which the CA
// takes no orders; the next Deactivate notes it.
func (i *Issuer) Deactivate(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exclusively(ctx, func(lease store.Lease) error {
		account, err := i.existing(ctx, lease)
		if err != nil {
			return err
		}
		noting, noted := observe(ctx)
		_, err = i.client.UpdateAccount(noting, acme.Account{Location: account.Location, PrivateKey: account.PrivateKey, Status: acme.StatusDeactivated})
		if err != nil && !isProblem(err, acme.ProblemTypeUnauthorized) { // what an account hears that is deactivated already
			return i.failed("account", noted, err)
		}
		i.cfg.Logger.Info("account deactivated", "ca", i.cfg.Name, "account", account.Location)
		return i.saveAccount(ctx, lease, savedAccount{Directory: i.cfg.Directory, URL: account.Location, Contact: account.Contact, Deactivated: time.Now().UTC().Truncate(time.Second)})
	})
}
