package issuer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Request is a wish for one certificate.
type Request struct {
	Hostnames []string // normalised: lower case, ASCII, no duplicates
	KeyType   KeyType
	Profile   string // "" for the issuer's
	// Key is the key to use once more, PKCS #8 PEM; nil for a new one.
	Key []byte
	// CSR is a certificate signing request (PKCS #10, DER) for a key that stays elsewhere. The bundle has no key then.
	CSR []byte
	// Replaces is the certificate that this one renews, issued by this CA to this account; nil at the first time.
	Replaces *x509.Certificate
	// Spare says that another CA stands by: this one isn't asked while it doesn't answer others.
	Spare bool
	// Open is the order that an earlier attempt left, nil when there is none.
	Open *OpenOrder
	// Orders remembers the open order.
	Orders OrderKeeper
	// Progress is told of each step; nil is fine.
	Progress func(Step)
}

// OrderKeeper remembers the open order of one certificate. Keep returns nil when the order is durable.
type OrderKeeper interface {
	Keep(ctx context.Context, order OpenOrder) error
	Drop(ctx context.Context) error
}

// OpenOrder is what must survive so that an order can go on after a crash. It holds the certificate's private key.
type OpenOrder struct {
	URL       string    `json:"url"`
	Account   string    `json:"account"` // account URL
	Hostnames []string  `json:"hostnames"`
	KeyType   KeyType   `json:"key_type"`
	Profile   string    `json:"profile,omitempty"`
	Key       string    `json:"key"` // PKCS #8 PEM; "" with a CSR
	CSR       []byte    `json:"csr,omitempty"`
	Created   time.Time `json:"created"`

	// ByHand are the records that a person was asked to publish, and Expires is until when that makes sense.
	ByHand  []Record  `json:"by_hand,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// fits reports whether the order is for what is wanted now.
func (o *OpenOrder) fits(req Request, account string) bool {
	return o.Account == account && o.KeyType == req.KeyType && o.Profile == req.Profile &&
		bytes.Equal(o.CSR, req.CSR) && (req.Key == nil || o.Key == string(req.Key)) &&
		slices.Equal(slices.Sorted(slices.Values(o.Hostnames)), slices.Sorted(slices.Values(req.Hostnames)))
}

// Step is what just happened to an order. Have and Want count servers, for the step Seen.
type Step struct {
	Name       StepName
	Have, Want int
}

// StepName names a step of an issuance.
type StepName string

// The steps, in the order in which they happen. An order that is resumed, or whose authorizations are still valid,
// skips some.
const (
	Resumed   StepName = "resumed"
	Ordered   StepName = "ordered"
	Published StepName = "published"
	Seen      StepName = "seen"
	Validated StepName = "validated"
	Issued    StepName = "issued"
)

// Bundle is what was issued: a key and its certificate with the chain.
type Bundle struct {
	Key     []byte // PKCS #8 PEM; nil for a CSR
	Leaf    []byte // PEM
	Chain   []byte // PEM, the certificates above the leaf
	Account string // URL of the account that ordered it
	Order   string // URL of the order
	Cert    *x509.Certificate
}

// order is an order in progress.
type order struct {
	*Issuer
	req      Request
	account  acme.Account
	state    acme.Order
	key      orderKey
	open     *OpenOrder           // as it was kept
	pending  []acme.Authorization // those that still need their challenge
	accepted []acme.Challenge     // beside each of pending, its dns-01 challenge
	inside   bool                 // is one of those that may talk to the CA; see enter
}

// Obtain gets a certificate: it resumes req.Open or makes a new order, proves control of the hostnames through the
// Solver, finalizes and downloads. It retries what the protocol says to retry; everything else is the caller's.
//
// On failure the open order is kept when it can be resumed later, and dropped when it can't. On success it is kept:
// the caller drops it when the bundle is durable, since until then the order is where it can be had again.
func (i *Issuer) Obtain(ctx context.Context, req Request) (*Bundle, error) {
	bundle, err := i.obtain(ctx, req)
	if err == nil {
		i.answers.well()
	}
	i.answers.note(err, time.Now())
	return bundle, err
}

func (i *Issuer) obtain(ctx context.Context, req Request) (*Bundle, error) {
	solution := i.cfg.Solver.Begin()
	defer solution.Remove()
	req.Profile = cmp.Or(req.Profile, i.cfg.Profile)
	o := &order{Issuer: i, req: req}
	defer o.leave()
	if err := o.look(ctx, solution); err != nil {
		return nil, err
	}
	if err := o.begin(ctx); err != nil {
		return nil, err
	}
	if records := o.records(); len(records) > 0 {
		o.leave() // others prepare their records meanwhile, and all go into one update
		if err := solution.Publish(ctx, records); err != nil {
			if waiting, ok := errors.AsType[*ByHandError](err); ok {
				err = errors.Join(err, o.awaitHand(ctx, waiting.Records))
			}
			return nil, err
		}
		o.progress(Step{Name: Published})
		if err := solution.Wait(ctx, func(have, want int) { o.progress(Step{Seen, have, want}) }); err != nil {
			return nil, err
		}
	} else {
		solution.Remove() // nothing to publish: nobody need wait for this order
	}
	if err := o.validate(ctx); err != nil {
		return nil, err
	}
	solution.Remove() // the CA has seen the records; they need not wait for the rest
	return o.finish(ctx)
}

// enter waits until the order is one of those that may talk to the CA at a time, unless it is.
func (o *order) enter(ctx context.Context) error {
	if o.inside {
		return nil
	}
	select {
	case o.slots <- struct{}{}:
		o.inside = true
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave lets another order talk to the CA, while this one waits for something else.
func (o *order) leave() {
	if o.inside {
		<-o.slots
		o.inside = false
	}
}

func (o *order) progress(s Step) {
	if o.req.Progress != nil {
		o.req.Progress(s)
	}
}

// begin resumes or makes the order and fetches its authorizations.
func (o *order) begin(ctx context.Context) error {
	err := o.enter(ctx)
	if err != nil {
		return err
	}
	if o.account, err = o.knock(ctx); err != nil {
		return err
	}
	resumed, err := o.resume(ctx)
	if err != nil {
		return err
	}
	if !resumed {
		if err := o.create(ctx); err != nil {
			return err
		}
		o.leave() // while this waits for the disk
		if err := o.keep(ctx); err != nil {
			return err
		}
	}
	if o.state.Status != acme.StatusPending {
		return nil
	}
	if err := o.enter(ctx); err != nil {
		return err
	}
	return o.authorize(ctx)
}

// resume goes on with the order of an earlier attempt. It reports false when there is none, or none of use any more.
func (o *order) resume(ctx context.Context) (bool, error) {
	open := o.req.Open
	if open == nil {
		return false, nil
	}
	if !open.fits(o.req, o.account.Location) {
		return false, o.drop(ctx)
	}
	key, err := o.keyOf([]byte(open.Key))
	if err != nil {
		o.cfg.Logger.Warn("open order has no usable key; ordering anew", "ca", o.cfg.Name, "order", open.URL)
		return false, o.drop(ctx)
	}
	noting, noted := observe(ctx)
	state, err := o.client.GetOrder(noting, o.account, acme.Order{Location: open.URL})
	missing := noted.status == http.StatusNotFound && noted.url == open.URL // and not the directory, which is asked for first
	if gone := missing || isProblem(err, acme.ProblemTypeMalformed, acme.ProblemTypeUnauthorized, acme.ProblemTypeAccountDoesNotExist); gone {
		return false, o.drop(ctx)
	}
	if err != nil {
		return false, o.failed("order", noted, err)
	}
	expired := !state.Expires.IsZero() && time.Now().After(state.Expires) ||
		state.NotAfter != nil && time.Now().After(*state.NotAfter) // of the certificate, where the CA has fixed it
	if expired || state.Status == acme.StatusInvalid {
		return false, o.drop(ctx)
	}
	o.state, o.open, o.key = state, open, key
	o.state.Location = open.URL
	o.progress(Step{Name: Resumed})
	return true, nil
}

// create makes a key and a new order. Dying between the CA's answer and the end of keep leaves an order at the CA that
// nobody knows; it expires by itself.
func (o *order) create(ctx context.Context) (err error) {
	if err := o.checkProfile(ctx, o.req.Profile); err != nil {
		return err
	}
	if o.key, err = o.keyOf(o.req.Key); err != nil {
		return err
	}
	want := acme.Order{Profile: o.req.Profile}
	for _, h := range o.req.Hostnames {
		want.Identifiers = append(want.Identifiers, acme.Identifier{Type: "dns", Value: h})
	}
	if o.req.Replaces != nil {
		if want.Replaces, err = acme.ARIUniqueIdentifier(o.req.Replaces); err != nil {
			o.cfg.Logger.Debug("no ARI identifier", "err", err)
		}
	}
	noting, noted := observe(ctx)
	if o.state, err = o.newOrder(noting, want); err != nil {
		return o.failed("order", noted, err)
	}
	return nil
}

// keep remembers the new order, with the key, before anything else happens to it.
func (o *order) keep(ctx context.Context) error {
	o.open = &OpenOrder{URL: o.state.Location, Account: o.account.Location, Hostnames: o.req.Hostnames,
		KeyType: o.req.KeyType, Profile: o.req.Profile, Key: string(o.key.pem), CSR: o.req.CSR, Created: time.Now().UTC()}
	if err := o.req.Orders.Keep(ctx, *o.open); err != nil {
		return err
	}
	o.progress(Step{Name: Ordered})
	return nil
}

// newOrder sends the order. It is sent once more without "replaces" where the CA takes offence at that (RFC 9773
// section 5), and once more after registering again where the CA has forgotten the account.
func (o *order) newOrder(ctx context.Context, want acme.Order) (acme.Order, error) {
	state, err := o.client.NewOrder(ctx, o.account, want)
	if isProblem(err, acme.ProblemTypeAccountDoesNotExist) {
		if o.account, err = o.registerAgain(ctx, o.account); err != nil {
			return state, err
		}
		want.Replaces = "" // another account's certificate can't be replaced
		return o.client.NewOrder(ctx, o.account, want)
	}
	if want.Replaces != "" && isProblem(err, acme.ProblemTypeAlreadyReplaced, acme.ProblemTypeMalformed,
		acme.ProblemTypeUnauthorized, acme.ProblemTypeNamespace+"notFound", acme.ProblemTypeServerInternal) {
		o.cfg.Logger.Debug("the CA refuses to take the order as a replacement; ordering without", "ca", o.cfg.Name, "err", err)
		want.Replaces = ""
		return o.client.NewOrder(ctx, o.account, want)
	}
	return state, err
}

// drop forgets the open order: it can't be resumed.
func (o *order) drop(ctx context.Context) error {
	return o.req.Orders.Drop(context.WithoutCancel(ctx))
}

// finish finalizes the order, unless that was done before, waits for the certificate and downloads it.
func (o *order) finish(ctx context.Context) (*Bundle, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	noting, noted := observe(ctx)
	if o.state.Status == acme.StatusPending || o.state.Status == acme.StatusReady {
		csr, err := o.key.request(o.req.Hostnames)
		if err != nil {
			return nil, err
		}
		state, err := o.client.FinalizeOrder(noting, o.account, o.state, csr)
		state.Location = o.state.Location
		if err != nil && state.Status != acme.StatusProcessing && !o.wasFinalized(ctx, &state) {
			return nil, o.orderFailed(ctx, "finalize", noted, state, err)
		}
		o.state = state
	}
	if o.state.Status != acme.StatusValid {
		err := o.poll(ctx, func(ctx context.Context) (bool, time.Time, error) {
			noting, noted = observe(ctx)
			state, err := o.client.GetOrder(noting, o.account, acme.Order{Location: o.state.Location})
			if err != nil {
				return false, time.Time{}, err
			}
			state.Location, o.state = o.state.Location, state
			return state.Status == acme.StatusValid || state.Status == acme.StatusInvalid, noted.retryAfter, nil
		})
		if err == nil && o.state.Status == acme.StatusInvalid {
			err = errors.New("the CA gave the order up")
			if o.state.Error != nil {
				err = *o.state.Error
			}
		}
		if err != nil {
			return nil, o.orderFailed(ctx, "finalize", noted, o.state, err)
		}
	}
	bundle, err := o.download(ctx)
	if err == nil {
		o.progress(Step{Name: Issued})
	}
	return bundle, err
}

// wasFinalized reports whether the CA works on the order although it refuses to finalize it, and gives its state then: the
// reply to an earlier request was lost, and the library's next one came too late.
func (o *order) wasFinalized(ctx context.Context, state *acme.Order) bool {
	now, err := o.client.GetOrder(ctx, o.account, acme.Order{Location: o.state.Location})
	if err != nil || now.Status != acme.StatusProcessing && now.Status != acme.StatusValid {
		return false
	}
	now.Location, *state = o.state.Location, now
	return true
}

// orderFailed drops an order that came to nothing and explains why.
func (o *order) orderFailed(ctx context.Context, step string, noted *reply, state acme.Order, err error) error {
	dead := state.Status == acme.StatusInvalid || isProblem(err, acme.ProblemTypeBadCSR, acme.ProblemTypeUnauthorized, acme.ProblemTypeRejectedIdentifier)
	err = o.failed(step, noted, err)
	if !dead {
		return err
	}
	if dropErr := o.drop(ctx); dropErr != nil {
		return fmt.Errorf("%w (and the open order can't be forgotten: %w)", err, dropErr)
	}
	return err
}
