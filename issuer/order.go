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
	// InUse is the certificate that services have now, from whichever CA; nil when there is none.
	InUse *x509.Certificate
	// Spare says that another CA stands by: this one isn't asked while it doesn't answer others.
	Spare bool
	// Domains are what CAs count the hostnames under: the domains that were bought. Nil when that isn't known.
	Domains []string
	// Exempt says that the CA counts the order for none of its limits, as the renewal that it suggested.
	Exempt bool
	// Open is the order that an earlier attempt left, nil when there is none.
	Open *OpenOrder
	// Orders remembers the open order.
	Orders OrderKeeper
	// Solver publishes the records; nil is the issuer's.
	Solver Solver
	// Progress is told of each step; nil is fine.
	Progress func(Step)
}

// OrderKeeper remembers the open order of one certificate. Keep returns nil when the order is durable.
type OrderKeeper interface {
	Keep(ctx context.Context, order OpenOrder) error
	Drop(ctx context.Context) error
}

// Voider is an OrderKeeper that wants to know when the CA has given an open order up. Void is called in place of Drop.
type Voider interface {
	Void(ctx context.Context) error
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
	Replaces  bool      `json:"replaces,omitempty"` // the CA took it as the renewal of a certificate (RFC 9773 section 5)

	// ByHand are the records that a person was asked to publish, and Expires is until when that makes sense.
	ByHand  []Record  `json:"by_hand,omitempty"`
	Expires time.Time `json:"expires,omitzero"`

	// Failures counts the attempts at which the CA's side of the order made no sense: an authorization of another name, or
	// a certificate that can't be had or be read.
	Failures int `json:"failures,omitempty"`
	// Waited says that an attempt has waited for the certificate in vain, since the CA was still working on it.
	Waited bool `json:"waited,omitempty"`
}

// mostFailures of an order are its end: a CA may have lost what belongs to it.
const mostFailures = 3

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
	Proven    StepName = "proven" // nothing is to be published: the CA has valid authorizations, or works on the order already
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
	accepted []acme.Challenge     // beside each of pending, its challenge
	busy     []bool               // beside each of pending, whether the CA says that it is looking at it already
	replaced bool                 // the CA took the order as one that replaces a certificate
	early    bool                 // the CA has refused to finalize it, since it wasn't ready
	proofs   []Record             // beside each of pending, what is published for it
	inside   bool                 // is one of those that may talk to the CA; see enter
	seen     int                  // servers that had the records when the CA was asked to look; 0 when none was asked
	counted  bool                 // the attempt is counted in open.Failures
	left     bool                 // the open order is forgotten
}

// Obtain gets a certificate: it resumes req.Open or makes a new order, proves control of the hostnames through the
// Solver, finalizes and downloads. It retries what the protocol says to retry; everything else is the caller's.
//
// On failure the open order is kept when it can be resumed later, and dropped when it can't. On success it is kept:
// the caller drops it when the bundle is durable, since until then the order is where it can be had again.
func (i *Issuer) Obtain(ctx context.Context, req Request) (*Bundle, error) {
	ctx = bounded(ctx, len(req.Hostnames))
	bundle, err := i.obtain(ctx, req)
	if errors.Is(err, errImpasse) { // the order is given up
		req.Open = nil
		bundle, err = i.obtain(ctx, req)
	}
	if err == nil {
		i.answers.well()
	}
	i.answers.note(err, time.Now())
	return bundle, err
}

func (i *Issuer) obtain(ctx context.Context, req Request) (bundle *Bundle, err error) {
	solution := cmp.Or(req.Solver, i.cfg.Solver).Begin()
	defer solution.Remove()
	req.Profile = cmp.Or(req.Profile, i.cfg.Profile)
	o := &order{Issuer: i, req: req}
	defer o.leave()
	defer func() { err = o.settle(ctx, err) }()
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
		seen := func(have, want int) {
			o.seen = have
			o.progress(Step{Seen, have, want})
		}
		if err := solution.Wait(ctx, seen); err != nil {
			return nil, err
		}
	} else {
		solution.Remove() // nothing to publish: nobody need wait for this order
		if len(o.pending) == 0 {
			o.progress(Step{Name: Proven})
		}
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
	account, opened, err := o.knock(ctx)
	defer opened()
	if err != nil {
		return err
	}
	o.account = account
	resumed, err := o.resume(ctx)
	if err != nil {
		return err
	}
	if !resumed {
		err := o.create(ctx)
		o.answers.ordered(o.req, err, time.Now())
		if err != nil {
			return err
		}
		opened()
		o.leave() // while this waits for the disk
		if err := o.keep(ctx); err != nil {
			return err
		}
	}
	opened()
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
	var state acme.Order
	err = o.signed(ctx, noted, func() (err error) {
		state, err = o.client.GetOrder(noting, o.account, acme.Order{Location: open.URL})
		return err
	})
	missing := noted.status == http.StatusNotFound && noted.url == open.URL // and not the directory, which is asked for first
	gone := missing || isProblem(err, acme.ProblemTypeUnauthorized, acme.ProblemTypeAccountDoesNotExist) ||
		isProblem(err, acme.ProblemTypeMalformed) && !(isMalformed(noted, err) && o.keyUnknown(ctx))
	if gone {
		return false, o.drop(ctx)
	}
	if err != nil {
		o.open = open
		return false, o.failed("order", noted, err)
	}
	expired := !state.Expires.IsZero() && time.Now().After(state.Expires) ||
		state.NotAfter != nil && time.Now().After(*state.NotAfter) // of the certificate, where the CA has fixed it
	if state.Status == acme.StatusInvalid {
		if state.Error != nil {
			o.cfg.Logger.Info("the CA gave the open order up; ordering anew", "ca", o.cfg.Name, "order", open.URL, "err", &problemError{*state.Error})
		}
		return false, o.void(ctx)
	}
	if expired || state.Status == acme.StatusProcessing && time.Since(open.Created) > longestWork {
		return false, o.drop(ctx)
	}
	o.state, o.open, o.key = state, open, key
	o.state.Location = open.URL
	o.progress(Step{Name: Resumed})
	return true, nil
}

// longestWork is how long a CA may work on an order before another is made. Most orders say themselves when they expire.
const longestWork = 7 * 24 * time.Hour

// create makes a key and a new order. Dying between the CA's answer and the end of keep leaves an order at the CA that
// nobody knows; it expires by itself.
func (o *order) create(ctx context.Context) (err error) {
	if err := o.checkProfile(ctx, o.req.Profile); err != nil {
		return err
	}
	if o.key, err = o.keyOf(o.req.Key); err != nil {
		return err
	}
	want := newOrder{Profile: o.req.Profile}
	for _, h := range o.req.Hostnames {
		want.Identifiers = append(want.Identifiers, acme.Identifier{Type: "dns", Value: h})
	}
	if o.req.Replaces != nil {
		if want.Replaces, err = acme.ARIUniqueIdentifier(o.req.Replaces); err != nil {
			o.cfg.Logger.Debug("no ARI identifier", "err", err)
		}
	}
	noting, noted := observe(ctx)
	if err = o.sendOrder(noting, noted, want); err != nil {
		return o.failed("order", noted, err)
	}
	return nil
}

// keep remembers the new order, with the key, before anything else happens to it.
func (o *order) keep(ctx context.Context) error {
	o.open = &OpenOrder{URL: o.state.Location, Account: o.account.Location, Hostnames: o.req.Hostnames,
		KeyType: o.req.KeyType, Profile: o.req.Profile, Key: string(o.key.pem), CSR: o.req.CSR, Created: time.Now().UTC(),
		Replaces: o.replaced}
	o.left = false // which the one before may be
	if err := o.req.Orders.Keep(ctx, *o.open); err != nil {
		return err
	}
	o.progress(Step{Name: Ordered})
	return nil
}

// sendOrder sends the order. It is sent once more without "replaces" where the CA takes offence at that (RFC 9773
// section 5), and once more after registering again where the CA has forgotten the account.
func (o *order) sendOrder(ctx context.Context, noted *reply, want newOrder) error {
	send := func() error {
		return o.signed(ctx, noted, func() (err error) {
			o.state, err = o.client.NewOrder(ctx, o.account, want)
			o.replaced = want.Replaces != ""
			return err
		})
	}
	err := send()
	if isProblem(err, acme.ProblemTypeAccountDoesNotExist) {
		if o.account, err = o.registerAgain(ctx, o.account); err != nil {
			return err
		}
		want.Replaces = "" // another account's certificate can't be replaced
		return send()
	}
	if want.Replaces != "" && isProblem(err, acme.ProblemTypeAlreadyReplaced, acme.ProblemTypeMalformed,
		acme.ProblemTypeUnauthorized, acme.ProblemTypeNamespace+"notFound", acme.ProblemTypeServerInternal) {
		o.cfg.Logger.Debug("the CA refuses to take the order as a replacement; ordering without", "ca", o.cfg.Name, "err", err)
		want.Replaces = ""
		return send()
	}
	return err
}

// Times of a change of the account's key: the CA may answer by what it knew before for some seconds.
const (
	newKeyFirst = 250 * time.Millisecond
	newKeyMost  = 10 * time.Second // all pauses together
)

// signed makes a request that the account's key signs. A CA that was told of a new key a moment ago may take the signature
// for that of another key, and says "malformed". Whether it is that, the account tells: its own URL is refused in the same
// way then. The request is made again until the CA knows the key, for some seconds, and once more when it does.
func (o *order) signed(ctx context.Context, noted *reply, request func() error) error {
	err := request()
	for pauses, wait := time.Duration(0), newKeyFirst; isMalformed(noted, err) && pauses < newKeyMost; pauses, wait = pauses+wait, 2*wait {
		unknown := o.keyUnknown(ctx)
		if unknown {
			if err := pause(ctx, wait); err != nil {
				return err
			}
			if account, err := o.acmeAccount(ctx); err == nil { // another process may have changed the key meanwhile
				o.account = account
			}
		}
		if err = request(); !unknown {
			return err
		}
	}
	return err
}

// isMalformed reports whether the CA found fault with a request. A 404 of this type means what it says.
func isMalformed(noted *reply, err error) bool {
	return noted.status == http.StatusBadRequest && isProblem(err, acme.ProblemTypeMalformed)
}

// keyUnknown reports whether the CA doesn't take the account's signatures: for malformed, when it is asked for the account.
func (o *order) keyUnknown(ctx context.Context) bool {
	asking, answered := observe(ctx)
	_, err := o.client.getStatus(asking, o.account, acme.Order{Location: o.account.Location}) // a POST-as-GET to any URL
	return isMalformed(answered, err)
}

// void forgets the open order: the CA gave it up.
func (o *order) void(ctx context.Context) error {
	if keeper, ok := o.req.Orders.(Voider); ok {
		o.left = true
		return keeper.Void(context.WithoutCancel(ctx))
	}
	return o.drop(ctx)
}

// drop forgets the open order: it can't be resumed.
func (o *order) drop(ctx context.Context) error {
	o.left = true
	return o.req.Orders.Drop(context.WithoutCancel(ctx))
}

// finish finalizes the order, unless that was done before, waits for the certificate and downloads it.
func (o *order) finish(ctx context.Context) (*Bundle, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	csr, err := o.key.request(o.req.Hostnames)
	if err != nil {
		return nil, err
	}
	var again time.Time
	step := func(ctx context.Context) (decided bool, _ time.Time, err error) {
		again, err = o.advance(ctx, csr)
		return o.state.Status == acme.StatusValid, again, err
	}
	decided, _, err := step(ctx)
	if err == nil && !decided {
		err = o.poll(ctx, step)
	}
	if errors.Is(err, errNoResult) && o.state.Status != acme.StatusProcessing && o.open.Waited && time.Since(o.open.Created) >= impasseAge {
		return nil, o.orderFailed(ctx, "finalize", &reply{}, acme.Order{Status: acme.StatusInvalid},
			fmt.Errorf("the CA calls the order %s, and hasn't taken it for %s", o.state.Status, time.Since(o.open.Created).Round(time.Minute)))
	}
	if errors.Is(err, errNoResult) {
		working := &WorkingError{CA: o.cfg.Name, Order: o.state.Location, Again: again}
		if o.open.Waited {
			return nil, working
		}
		open := *o.open
		open.Waited, o.open = true, &open
		if err := o.req.Orders.Keep(ctx, open); err != nil {
			return nil, errors.Join(working, err)
		}
		return nil, working
	}
	if err != nil {
		return nil, err
	}
	bundle, err := o.download(ctx)
	if err == nil {
		o.progress(Step{Name: Issued})
	}
	return bundle, err
}

// advance makes the request that the order's state asks for (RFC 8555 section 7.4): it finalizes an order that is ready,
// and asks for the state of one that the CA works on. again is when the CA wants to be asked again. An order that came to
// nothing is an error, with the CA's reason, and is dropped.
func (o *order) advance(ctx context.Context, csr []byte) (again time.Time, err error) {
	noting, noted := observe(ctx)
	switch s := o.state.Status; {
	case s == acme.StatusValid:
		return time.Time{}, nil
	case s == acme.StatusInvalid: // from the beginning
	case s == acme.StatusReady, s == acme.StatusPending && !o.early: // what is pending has been validated since it was looked at
		err = o.signed(ctx, noted, func() error { return o.finalize(noting, noted, csr) })
	default:
		err = o.signed(ctx, noted, func() error { return o.refresh(noting) })
	}
	again = noted.retryAfter
	if err != nil {
		return again, o.orderFailed(ctx, "finalize", noted, o.state, err)
	}
	if o.state.Status == acme.StatusInvalid {
		err := errors.New("the CA gave the order up")
		if o.state.Error != nil {
			err = &problemError{*o.state.Error}
		}
		return again, o.orderFailed(ctx, "finalize", noted, o.state, err)
	}
	return again, nil
}

// finalize sends the CSR. When the CA refuses it, the order says what that means: its reply to an earlier request may be
// lost, it may have given the order up for a reason of its own, or it isn't ready yet after all; the last is no error.
func (o *order) finalize(ctx context.Context, noted *reply, csr []byte) error {
	state, err := o.client.FinalizeOrder(ctx, o.account, o.state, csr)
	if err == nil {
		o.take(state)
		return nil
	}
	asking, answered := observe(ctx)
	if o.refresh(asking) != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	switch s := o.state; {
	case s.Status == acme.StatusProcessing, s.Status == acme.StatusValid, s.Status == acme.StatusInvalid && s.Error != nil:
		return nil
	}
	if isProblem(err, acme.ProblemTypeOrderNotReady) {
		o.early, *noted = true, *answered
		return nil
	}
	return err
}

// refresh asks for the state of the order.
func (o *order) refresh(ctx context.Context) error {
	state, err := o.client.GetOrder(ctx, o.account, acme.Order{Location: o.state.Location})
	if err == nil {
		o.take(state)
	}
	return err
}

// take makes what the CA said of the order its state. Where it is doesn't change.
func (o *order) take(state acme.Order) {
	state.Location = o.state.Location
	o.state = state
}

// spoiled counts a failure of the order that isn't ours, and drops the order after some of them.
func (o *order) spoiled(ctx context.Context, step string, noted *reply, err error) error {
	return o.count(ctx, o.failed(step, noted, err))
}

func (o *order) count(ctx context.Context, err error) error {
	open := *o.open
	open.Failures++
	o.open, o.counted = &open, true
	if open.Failures >= mostFailures {
		return o.forget(ctx, err)
	}
	if keepErr := o.req.Orders.Keep(context.WithoutCancel(ctx), open); keepErr != nil {
		return errors.Join(err, keepErr)
	}
	return err
}

// silentAge is how old an order may be that a CA answers by errors of its own (HTTP 5xx) alone: it outlasts an outage, and
// not what the CA has lost.
const silentAge = 24 * time.Hour

// settle counts an attempt that ended by an answer that the CA would give again: an object of the order that it has lost, or
// that makes no sense. Without that, such an order is asked about until it expires.
func (o *order) settle(ctx context.Context, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || ctx.Err() != nil || o.open == nil || o.left || o.counted {
		return err
	}
	if _, working := errors.AsType[*WorkingError](err); working || FailedValidation(err) || e.Step == "account" {
		return err
	}
	switch {
	case isProblem(err, acme.ProblemTypeAccountDoesNotExist): // and so can't have orders
		return o.forget(ctx, err)
	case e.Silent && time.Since(o.open.Created) < silentAge, e.RetryAfter.After(time.Now()),
		isProblem(err, acme.ProblemTypeRateLimited, acme.ProblemTypeBadNonce):
		return err
	}
	return o.count(ctx, err)
}

// orderFailed drops an order that came to nothing and explains why.
func (o *order) orderFailed(ctx context.Context, step string, noted *reply, state acme.Order, err error) error {
	dead := state.Status == acme.StatusInvalid || isProblem(err, acme.ProblemTypeBadCSR, acme.ProblemTypeBadPublicKey,
		acme.ProblemTypeUnauthorized, acme.ProblemTypeRejectedIdentifier)
	err = o.failed(step, noted, err)
	if !dead {
		return err
	}
	return o.forget(ctx, err)
}

// forget drops the order on account of an error, and returns that.
func (o *order) forget(ctx context.Context, err error) error {
	if dropErr := o.drop(ctx); dropErr != nil {
		return fmt.Errorf("%w (and the open order can't be forgotten: %w)", err, dropErr)
	}
	return err
}
