package issuer

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// remember keeps the account in memory for later orders.
func (i *Issuer) remember(ctx context.Context, account acme.Account) error {
	files, err := i.stored.read(ctx)
	i.known.Store(&knownAccount{account, files})
	return err
}

// current returns the account in memory, or nil when the storage has another: a second process may have changed the key, or
// deactivated the account. While a rollover is unfinished the account in memory isn't used. A failure to read the storage
// counts as no change.
func (i *Issuer) current(ctx context.Context) *knownAccount {
	k := i.known.Load()
	if k == nil {
		return nil
	}
	now, err := i.stored.read(ctx)
	if err != nil || now.next == nil && bytes.Equal(now.account, k.files.account) && bytes.Equal(now.key, k.files.key) {
		return k
	}
	return nil
}

// exclusively runs f while nothing else in this process, and no other process, changes the account.
func (i *Issuer) exclusively(ctx context.Context, f func(ctx context.Context, w accountWriter) error) error {
	select {
	case i.changing <- struct{}{}:
		defer func() { <-i.changing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return i.stored.exclusively(ctx, f)
}

// account returns the account, registering it when there is none yet.
func (i *Issuer) account(ctx context.Context) (account acme.Account, err error) {
	if k := i.current(ctx); k != nil {
		return k.account, nil
	}
	err = i.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		if k := i.current(ctx); k != nil { // another order was first
			account = k.account
			return nil
		}
		account, err = i.existing(ctx, w)
		if errors.Is(err, errNoAccount) {
			account, err = i.register(ctx, w, account.PrivateKey)
		} else if err == nil {
			i.tryContact(ctx, w, account)
		}
		if err != nil {
			return err
		}
		return i.remember(ctx, account)
	})
	return account, err
}

// existing returns the account that is stored, with the key that the CA accepts. It never registers one.
func (i *Issuer) existing(ctx context.Context, w accountWriter) (acme.Account, error) {
	account, err := i.stored.account(ctx)
	if err != nil {
		return account, err
	}
	if err := i.finishRollover(ctx, w, &account); err != nil {
		if ctx.Err() != nil {
			return account, ctx.Err()
		}
		i.cfg.Logger.Warn("a key rollover can't be finished now", "ca", i.cfg.Name, "account", account.Location, "err", err)
	}
	return account, nil
}

// register makes the account at the CA, or finds it there when the key already has one. The key is durable before the
// request: dying after it leaves a key whose account is found again by the next call.
func (i *Issuer) register(ctx context.Context, w accountWriter, key crypto.Signer) (account acme.Account, err error) {
	if !i.cfg.AcceptTerms {
		return account, &Error{CA: i.cfg.Name, Step: "account", Err: errors.New("the CA's terms of service aren't accepted"),
			Hint: fmt.Sprintf("write accept_terms = true below [ca.%s]", i.cfg.Name)}
	}
	if key == nil {
		if key, err = w.makeKey(ctx, keyFile); err != nil {
			return account, err
		}
	}
	r, err := i.call(ctx, "account", func(ctx context.Context) (err error) {
		account, err = i.client.NewAccount(ctx, acme.Account{TermsOfServiceAgreed: true, PrivateKey: key, Contact: i.contacts()}, i.cfg.EAB)
		return err
	})
	if err != nil {
		return acme.Account{}, err
	}
	// Remember the contact that we sent, not the one that the CA echoes: some CAs drop it, and every start would then look
	// like a change. An account that was there already isn't changed by this request.
	sent := i.contacts()
	if r.status == http.StatusOK {
		sent = account.Contact
	}
	if err := w.save(ctx, savedAccount{URL: account.Location, Contact: sent}); err != nil {
		return acme.Account{}, err
	}
	i.cfg.Logger.Info("account registered", "ca", i.cfg.Name, "account", account.Location)
	return account, nil
}

// registerAgain serves a CA that has forgotten the account (accountDoesNotExist): the same key is registered again.
func (i *Issuer) registerAgain(ctx context.Context, old acme.Account) (account acme.Account, err error) {
	err = i.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		if k := i.known.Load(); k != nil && k.account.Location != old.Location { // another order was first
			account = k.account
			return nil
		}
		i.cfg.Logger.Warn("the CA doesn't know the account any more; registering its key again", "ca", i.cfg.Name, "account", old.Location)
		if account, err = i.register(ctx, w, old.PrivateKey); err != nil {
			return err
		}
		return i.remember(ctx, account)
	})
	return account, err
}

// contacts returns the account's contact URLs (RFC 8555 section 7.3), or nil if none is configured.
func (i *Issuer) contacts() []string {
	if i.cfg.Email == "" {
		return nil
	}
	return []string{"mailto:" + i.cfg.Email}
}

// UpdateContact sends the CA the configured contact when another was sent last (RFC 8555 section 7.3.2). Without an
// account there is nothing to do, and without a configured contact the CA keeps the last one. It tries once; many callers
// may have the same reason to call it.
func (i *Issuer) UpdateContact(ctx context.Context) error {
	if i.cfg.Email == "" || i.informed.Swap(true) {
		return nil
	}
	return i.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		account, err := i.existing(ctx, w)
		if noAccount(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return i.sendContact(ctx, w, account)
	})
}

// tryContact is sendContact for orders: a contact that the CA doesn't take must not keep certificates from being issued.
func (i *Issuer) tryContact(ctx context.Context, w accountWriter, account acme.Account) {
	if err := i.sendContact(ctx, w, account); err != nil && ctx.Err() == nil {
		i.cfg.Logger.Warn("the CA doesn't take the account's contact", "ca", i.cfg.Name, "account", account.Location, "err", err)
	}
}

// sendContact sends the contact, unless it is the one that was sent last. Dying after it leaves the old contact in the
// storage, so that the request is repeated, which does no harm.
func (i *Issuer) sendContact(ctx context.Context, w accountWriter, account acme.Account) error {
	want := i.contacts()
	if want == nil || slices.Equal(account.Contact, want) {
		return nil
	}
	_, err := i.call(ctx, "contact", func(ctx context.Context) error {
		return i.client.UpdateAccount(ctx, account, map[string]any{"contact": want})
	})
	if err != nil {
		return err
	}
	if err := w.save(ctx, savedAccount{URL: account.Location, Contact: want}); err != nil {
		return err
	}
	i.cfg.Logger.Info("account contact updated", "ca", i.cfg.Name, "account", account.Location, "contact", want[0])
	return nil
}

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

// ask returns an account as the CA has it now.
func (i *Issuer) ask(ctx context.Context, account acme.Account) (acme.Account, error) {
	var found acme.Account
	_, err := i.call(ctx, "account", func(ctx context.Context) (err error) {
		found, err = i.client.GetAccount(ctx, account)
		return err
	})
	switch {
	case isProblem(err, acme.ProblemTypeAccountDoesNotExist):
		account.Status = StatusForgotten
	case isProblem(err, acme.ProblemTypeUnauthorized): // the answer to a deactivated account (section 7.3.6)
		account.Status = acme.StatusDeactivated
	case err != nil:
		return account, err
	default:
		found.Location, found.PrivateKey = account.Location, account.PrivateKey
		return found, nil
	}
	return account, nil
}

// describe adds to an account what follows from its key and the CA's directory.
func (i *Issuer) describe(ctx context.Context, account acme.Account) (Account, error) {
	result := Account{
		URL:     account.Location,
		Status:  account.Status,
		Contact: append([]string{}, account.Contact...),
		Terms:   account.TermsOfServiceAgreed,
		Orders:  account.Orders,
		CAA:     []string{},
	}
	var err error
	if result.Thumbprint, err = account.Thumbprint(); err != nil {
		return result, i.cfg.explain("account", err)
	}
	dir, err := i.Directory(ctx)
	if err != nil {
		return result, err
	}
	if dir.Meta != nil {
		for _, id := range dir.Meta.CAAIdentities {
			result.CAA = append(result.CAA, fmt.Sprintf(`0 issue "%s; accounturi=%s; validationmethods=%s"`, id, account.Location, i.cfg.methods(",")))
		}
	}
	return result, nil
}

// Account asks the CA for the stored account. It never registers one. For an account that was deactivated here it doesn't
// ask.
func (i *Issuer) Account(ctx context.Context) (result Account, err error) {
	err = i.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		account, err := i.existing(ctx, w)
		if err == nil {
			account, err = i.ask(ctx, account)
		}
		if _, deactivated := errors.AsType[*deactivatedError](err); err != nil && !deactivated {
			return err
		}
		result, err = i.describe(ctx, account)
		return err
	})
	return result, err
}

// AccountState is the status of our account at the CA.
type AccountState struct {
	URL     string // "" when none is registered
	Status  string // as the CA says (RFC 8555 section 7.1.6): "valid", "deactivated", "revoked"
	Unknown bool   // the CA has forgotten the account; the next order registers its key again
}

// AccountState asks the CA for our account, as it is stored. It changes nothing, neither there nor in the storage.
func (i *Issuer) AccountState(ctx context.Context) (AccountState, error) {
	account, err := i.stored.account(ctx)
	if err != nil && !noAccount(err) {
		return AccountState{}, err
	}
	if account.Location == "" {
		return AccountState{}, nil
	}
	state := AccountState{URL: account.Location}
	if account, err = i.ask(ctx, account); err != nil {
		return state, err
	}
	if state.Unknown = account.Status == StatusForgotten; !state.Unknown {
		state.Status = account.Status
	}
	return state, nil
}

// Register makes the account, or finds the existing one; made says which. It replaces an account that was deactivated
// here, or that the CA has forgotten. Nothing else replaces a deactivated one.
func (i *Issuer) Register(ctx context.Context) (result Account, made bool, err error) {
	err = i.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		account, err := i.existing(ctx, w)
		var deactivated *deactivatedError
		switch {
		case errors.As(err, &deactivated):
			// Dying after this leaves the mark, so that it takes another Register to go on.
			account.PrivateKey, err = w.makeKey(ctx, keyFile)
			made = true
		case errors.Is(err, errNoAccount):
			made, err = true, nil
		case err == nil:
			i.tryContact(ctx, w, account)
			account, err = i.ask(ctx, account)
			made = account.Status == StatusForgotten
		}
		if err == nil && made {
			account, err = i.register(ctx, w, account.PrivateKey)
		}
		if err == nil {
			result, err = i.describe(ctx, account)
		}
		return err
	})
	return result, made, err
}

// Deactivate ends the account permanently (RFC 8555 section 7.3.6): the CA refuses all its requests from then on. A stored mark
// keeps orders from registering another account until Register is called. Dying before the mark is stored leaves an account
// whose orders the CA refuses; the next Deactivate stores it.
func (i *Issuer) Deactivate(ctx context.Context) error {
	return i.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		account, err := i.existing(ctx, w)
		if err != nil {
			return err
		}
		_, err = i.call(ctx, "account", func(ctx context.Context) error {
			return i.client.UpdateAccount(ctx, account, map[string]any{"status": acme.StatusDeactivated})
		})
		if err != nil && !isProblem(err, acme.ProblemTypeUnauthorized) { // the answer to an account that is deactivated already
			return err
		}
		i.cfg.Logger.Info("account deactivated", "ca", i.cfg.Name, "account", account.Location)
		return w.save(ctx, savedAccount{URL: account.Location, Contact: account.Contact, Deactivated: time.Now().UTC().Truncate(time.Second)})
	})
}

// Rollover gives the account a new key (RFC 8555 section 7.3.5). The new key is durable, as key-next.pem, before it is
// sent to the CA, and becomes key.pem afterwards. Dying at any moment leaves the key that the CA accepts in one of the two files;
// the next order, or the next Rollover, finds out which, and finishes. A Rollover that finds one unfinished makes no new key.
func (i *Issuer) Rollover(ctx context.Context) (result Account, err error) {
	err = i.exclusively(ctx, func(ctx context.Context, w accountWriter) error {
		account, err := i.stored.account(ctx)
		if err != nil {
			return err
		}
		if err := i.beginRollover(ctx, w, account.PrivateKey); err != nil {
			return err
		}
		if err := i.finishRollover(ctx, w, &account); err != nil {
			return err
		}
		i.cfg.Logger.Info("account key changed", "ca", i.cfg.Name, "account", account.Location)
		if account, err = i.ask(ctx, account); err == nil {
			result, err = i.describe(ctx, account)
		}
		return err
	})
	return result, err
}

// beginRollover makes the next key, unless there is one already.
func (i *Issuer) beginRollover(ctx context.Context, w accountWriter, key crypto.Signer) error {
	next, err := i.stored.nextKey(ctx)
	if err != nil || next != nil && !sameKey(next, key) {
		return err
	}
	dir, err := i.Directory(ctx)
	if err == nil && dir.KeyChange == "" {
		err = i.cfg.explain("rollover", errors.New("this CA offers no change of account keys"))
	}
	if err != nil {
		return err
	}
	_, err = w.makeKey(ctx, nextFile)
	return err
}

// finishRollover finishes an unfinished rollover, if there is one. It sets the account's key to the one that the CA accepts, as
// far as the CA says. After an error the rollover is still unfinished.
func (i *Issuer) finishRollover(ctx context.Context, w accountWriter, account *acme.Account) error {
	next, err := i.stored.nextKey(ctx)
	if err != nil || next == nil {
		return err
	}
	if !sameKey(next, account.PrivateKey) {
		if err := i.changeKey(ctx, w, *account, next); err != nil {
			return err
		}
		account.PrivateKey = next
		// Dying before this leaves both keys, and the CA says which of them counts.
		if err := w.saveKey(ctx, keyFile, next); err != nil {
			return err
		}
	}
	// Dying before this leaves the same key twice, which sameKey sees without asking the CA.
	return w.dropNext(ctx)
}

// changeKey has the CA take the next key, unless it has already. Returned nil means that the next key counts.
func (i *Issuer) changeKey(ctx context.Context, w accountWriter, account acme.Account, next crypto.Signer) error {
	if holds, err := i.holds(ctx, account.Location, next); err != nil || holds {
		return err
	}
	r, err := i.call(ctx, "rollover", func(ctx context.Context) error {
		return i.client.AccountKeyRollover(ctx, account, next)
	})
	if err == nil {
		return nil
	}
	// The reply may be lost, or the library has repeated a request that had succeeded.
	holds, askErr := i.holds(ctx, account.Location, next)
	if askErr == nil && holds {
		return nil
	}
	// step-ca names the URL and does nothing there. A key that the CA will never take is of no use.
	if askErr == nil && r.status == http.StatusNotImplemented {
		return errors.Join(err, w.dropNext(ctx))
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Hint == "" {
		e.Hint = fmt.Sprintf("the next rollover goes on with the same new key; while the CA refuses it, the old one counts. To give it up, remove %s%s from the state directory", i.stored.object(), nextFile)
	}
	return err
}

// holds asks the CA whether a key is that of the account (RFC 8555 section 7.3.1).
func (i *Issuer) holds(ctx context.Context, url string, key crypto.Signer) (bool, error) {
	var found acme.Account
	_, err := i.call(ctx, "account", func(ctx context.Context) (err error) {
		found, err = i.client.FindAccount(ctx, key)
		return err
	})
	switch {
	case isProblem(err, acme.ProblemTypeAccountDoesNotExist):
		return false, nil
	case err != nil:
		return false, err
	case found.Location != url:
		return false, i.cfg.explain("rollover", fmt.Errorf("the new key belongs to another account, %s", found.Location))
	}
	return true, nil
}
