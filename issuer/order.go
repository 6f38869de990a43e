package issuer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// order is an order in progress. Its steps are find or findOrMake, authorize, publish, validate and finish. Obtain takes all of
// them; a command for orders by hand takes those up to its own, of which the earlier ones find that they are done.
type order struct {
	ca       *Issuer
	req      Request
	solution Solution // that publishes its records; nil for one that a person takes along
	account  acme.Account
	state    acme.Order // as the CA said last
	key      orderKey
	kept     *OpenOrder // as it was kept last
	resumed  bool       // an earlier attempt or process made it
	replaced bool       // the CA took the order as one that replaces a certificate
	pending  []*proof   // the authorizations that aren't valid yet
	early    bool       // the CA has refused to finalize it, since it wasn't ready
	inside   bool       // it holds one of the slots; see enter
	seen     int        // servers that had the records when the CA was asked to look; 0 when none was asked
	counted  bool       // the attempt is counted in kept.Failures
	dropped  bool       // the open order is no longer stored
}

// proof is an authorization that isn't valid yet.
type proof struct {
	acme.Authorization
	challenge acme.Challenge // that is answered
	record    Record         // that answers it
	busy      bool           // the CA says that it is looking already
	verdict   error          // why the CA refuses
}

// begin returns an order that has done nothing yet, and the context that bounds it.
func (i *Issuer) begin(ctx context.Context, req Request) (*order, context.Context) {
	req.Profile = cmp.Or(req.Profile, i.cfg.Profile)
	return &order{ca: i, req: req}, bounded(ctx, len(req.Hostnames))
}

// take takes steps until one fails.
func (o *order) take(ctx context.Context, steps ...func(ctx context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// enter waits until the order is one of those that may talk to the CA at a time, unless it is.
func (o *order) enter(ctx context.Context) error {
	if o.inside {
		return nil
	}
	select {
	case o.ca.slots <- struct{}{}:
		o.inside = true
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave lets another order talk to the CA, while this one waits for something else.
func (o *order) leave() {
	if o.inside {
		<-o.ca.slots
		o.inside = false
	}
}

func (o *order) progress(s Step) {
	if o.req.Progress != nil {
		o.req.Progress(s)
	}
}

// The pace of polling an authorization or an order: fast at first, then slower, and never before the CA's Retry-After (RFC 8555
// sections 7.5.1 and 7.4).
const (
	pollFirst   = 10 * time.Millisecond
	pollFactor  = 2
	pollSlowest = 5 * time.Second
)

// errNoResult says that the CA has decided nothing within Config.Patience.
var errNoResult = errors.New("no result yet")

// poll calls look until it is done or fails, or until Config.Patience is over, which is errNoResult. The order's slot is free
// between two calls. again is when the CA wants to be asked again, zero when it doesn't say.
func (o *order) poll(ctx context.Context, look func(ctx context.Context) (done bool, again time.Time, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.ca.cfg.Patience, errNoResult)
	defer cancel()
	for delay := pollFirst; ; delay = min(delay*pollFactor, pollSlowest) {
		o.leave()
		if err := pause(ctx, delay); err != nil {
			return err
		}
		if err := o.enter(ctx); err != nil {
			return err
		}
		done, again, err := look(ctx)
		if done || err != nil {
			return err
		}
		if wait := time.Until(again); wait > delay {
			delay = min(wait, o.ca.cfg.Patience) / pollFactor // the loop multiplies it again
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Times after a change of the account's key: for some seconds the CA may still expect the old one.
const (
	newKeyFirst = 250 * time.Millisecond
	newKeyMost  = 10 * time.Second // all pauses together
)

// signed is Issuer.call for a request that the account's key signs. A CA that got a new key a moment ago may still expect the
// old one, and answer "malformed"; it then answers the same to a request for the account. The request is repeated until the
// CA knows the key, for some seconds, and once more when it does.
func (o *order) signed(ctx context.Context, step string, request func(ctx context.Context) error) (reply, error) {
	r, err := o.ca.call(ctx, step, request)
	for pauses, wait := time.Duration(0), newKeyFirst; isMalformed(r, err) && pauses < newKeyMost; pauses, wait = pauses+wait, 2*wait {
		unknown := o.keyUnknown(ctx)
		if unknown {
			if err := pause(ctx, wait); err != nil {
				return r, err
			}
			if account, err := o.ca.account(ctx); err == nil { // another process may have changed the key meanwhile
				o.account = account
			}
		}
		if r, err = o.ca.call(ctx, step, request); !unknown {
			return r, err
		}
	}
	return r, err
}

// isMalformed reports whether the CA found a request malformed. A 404 of this type means that the object isn't there.
func isMalformed(r reply, err error) bool {
	return r.status == http.StatusBadRequest && isProblem(err, acme.ProblemTypeMalformed)
}

// keyUnknown reports whether the CA finds a request for the account malformed too, since it doesn't know its key.
func (o *order) keyUnknown(ctx context.Context) bool {
	r, err := o.ca.call(ctx, "account", func(ctx context.Context) error {
		_, err := o.ca.client.GetAccount(ctx, o.account)
		return err
	})
	return isMalformed(r, err)
}

// void drops the open order: the CA gave it up.
func (o *order) void(ctx context.Context) error {
	if keeper, ok := o.req.Orders.(Voider); ok {
		o.dropped = true
		return keeper.Void(context.WithoutCancel(ctx))
	}
	return o.drop(ctx)
}

// drop removes the open order from the storage: it can't be resumed.
func (o *order) drop(ctx context.Context) error {
	o.dropped = true
	return o.req.Orders.Drop(context.WithoutCancel(ctx))
}

// spoiled counts a failure that is the CA's fault, and drops the order after mostFailures.
func (o *order) spoiled(ctx context.Context, step string, err error) error {
	return o.count(ctx, o.ca.cfg.explain(step, err))
}

func (o *order) count(ctx context.Context, err error) error {
	open := *o.kept
	open.Failures++
	o.kept, o.counted = &open, true
	if open.Failures >= mostFailures {
		return o.forget(ctx, err)
	}
	if keepErr := o.req.Orders.Keep(context.WithoutCancel(ctx), open); keepErr != nil {
		return errors.Join(err, keepErr)
	}
	return err
}

// end drops a failed order, and returns the explained error.
func (o *order) end(ctx context.Context, step string, err error) error {
	return o.forget(ctx, o.ca.cfg.explain(step, err))
}

// forget drops the order because of an error, and returns that.
func (o *order) forget(ctx context.Context, err error) error {
	if dropErr := o.drop(ctx); dropErr != nil {
		return fmt.Errorf("%w (and the open order can't be forgotten: %w)", err, dropErr)
	}
	return err
}

// firstContact returns the account, which takes the first requests to the CA. It lets one order at a time make them, so that orders
// with a fallback CA don't all wait for a dead one. While it isn't known whether the CA accepts orders, the next order waits
// until done is called. Every caller must call done.
func (i *Issuer) firstContact(ctx context.Context, req Request) (account acme.Account, done func(), err error) {
	select {
	case i.contact <- struct{}{}:
	case <-ctx.Done():
		return account, func() {}, ctx.Err()
	}
	done = sync.OnceFunc(func() { <-i.contact })
	if err := i.health.refusal(req, time.Now()); err != nil {
		return account, done, err
	}
	if until, why := i.health.silentUntil(time.Now()); why != nil && req.HasFallback {
		return account, done, &Error{CA: i.cfg.Name, Step: "order", Silent: true,
			Err: fmt.Errorf("not asked before %s, since it didn't answer others: %w", until.Format(time.TimeOnly), why)}
	}
	account, err = i.account(ctx)
	i.health.failed(err, time.Now())
	if err != nil {
		i.health.ordered(req, err, time.Now())
	} else if !i.health.unproven() {
		done()
	}
	return account, done, err
}

// ErrNoOrder says that there is no open order: none was made, or the CA gave it up.
var ErrNoOrder = errors.New("no order is open")

// find resumes the open order, else it returns ErrNoOrder.
func (o *order) find(ctx context.Context) error { return o.open(ctx, false) }

// findOrMake resumes the open order, or makes one.
func (o *order) findOrMake(ctx context.Context) error { return o.open(ctx, true) }

func (o *order) open(ctx context.Context, create bool) error {
	if err := o.enter(ctx); err != nil {
		return err
	}
	account, done, err := o.ca.firstContact(ctx, o.req)
	defer done()
	if err != nil {
		return err
	}
	o.account = account
	resumed, err := o.resume(ctx)
	switch {
	case err != nil || resumed:
		return err
	case !create:
		return ErrNoOrder
	}
	err = o.create(ctx)
	o.ca.health.ordered(o.req, err, time.Now())
	if err != nil {
		return err
	}
	done()
	o.leave() // while this waits for the disk
	return o.keep(ctx)
}

// resume fetches the order of an earlier attempt. It reports false when there is none, or none that can go on.
func (o *order) resume(ctx context.Context) (bool, error) {
	open := o.req.Open
	if open == nil {
		return false, nil
	}
	if !open.fits(o.req, o.account.Location) {
		return false, o.drop(ctx)
	}
	key, err := o.req.keyOf([]byte(open.Key))
	if err != nil {
		o.ca.cfg.Logger.Warn("open order has no usable key; ordering anew", "ca", o.ca.cfg.Name, "order", open.URL)
		return false, o.drop(ctx)
	}
	var state acme.Order
	r, err := o.signed(ctx, "order", func(ctx context.Context) (err error) {
		state, err = o.ca.client.GetOrder(ctx, o.account, open.URL)
		return err
	})
	missing := r.status == http.StatusNotFound && r.url == open.URL // not the directory, which may be fetched first
	gone := missing || isProblem(err, acme.ProblemTypeUnauthorized, acme.ProblemTypeAccountDoesNotExist) ||
		isProblem(err, acme.ProblemTypeMalformed) && !(isMalformed(r, err) && o.keyUnknown(ctx))
	if gone {
		return false, o.drop(ctx)
	}
	if err != nil {
		o.kept = open
		return false, err
	}
	expired := !state.Expires.IsZero() && time.Now().After(state.Expires) ||
		state.NotAfter != nil && time.Now().After(*state.NotAfter) // of the certificate, if the CA has set it
	if state.Status == acme.StatusInvalid {
		if state.Error != nil {
			o.ca.cfg.Logger.Info("the CA gave the open order up; ordering anew", "ca", o.ca.cfg.Name, "order", open.URL, "err", &problemError{*state.Error})
		}
		return false, o.void(ctx)
	}
	if expired || state.Status == acme.StatusProcessing && time.Since(open.Created) > longestWork {
		return false, o.drop(ctx)
	}
	o.state, o.kept, o.key, o.resumed = state, open, key, true
	o.progress(Step{Name: Resumed})
	return true, nil
}

// longestWork is how long a CA may work on an order before another is made. Most orders expire earlier.
const longestWork = 7 * 24 * time.Hour

// create makes a key and a new order. Dying between the CA's answer and the end of keep leaves an order at the CA that is
// stored nowhere; it expires.
func (o *order) create(ctx context.Context) (err error) {
	if err := o.ca.checkProfile(ctx, o.req.Profile); err != nil {
		return err
	}
	if o.key, err = o.req.keyOf(o.req.Key); err != nil {
		return err
	}
	want := newOrder{Profile: o.req.Profile}
	for _, h := range o.req.Hostnames {
		want.Identifiers = append(want.Identifiers, acme.Identifier{Type: "dns", Value: h})
	}
	if o.req.Replaces != nil {
		if want.Replaces, err = acme.ARIUniqueIdentifier(o.req.Replaces); err != nil {
			o.ca.cfg.Logger.Debug("no ARI identifier", "err", err)
		}
	}
	return o.sendOrder(ctx, want)
}

// keep stores the new order, with the key, before its next step.
func (o *order) keep(ctx context.Context) error {
	o.kept = &OpenOrder{
		URL:       o.state.Location,
		Account:   o.account.Location,
		Hostnames: o.req.Hostnames,
		KeyType:   o.req.KeyType,
		Profile:   o.req.Profile,
		Key:       string(o.key.pem),
		CSR:       o.req.CSR,
		Created:   time.Now().UTC(),
		Replaces:  o.replaced,
	}
	o.dropped = false // as the order before may be
	if err := o.req.Orders.Keep(ctx, *o.kept); err != nil {
		return err
	}
	o.progress(Step{Name: Ordered})
	return nil
}

// sendOrder sends the order. It repeats it without "replaces" if the CA refuses that (RFC 9773 section 5), and after registering
// again if the CA has forgotten the account.
func (o *order) sendOrder(ctx context.Context, want newOrder) error {
	send := func() error {
		_, err := o.signed(ctx, "order", func(ctx context.Context) (err error) {
			o.state, err = o.ca.client.NewOrder(ctx, o.account, want)
			o.replaced = want.Replaces != ""
			return err
		})
		return err
	}
	err := send()
	if isProblem(err, acme.ProblemTypeAccountDoesNotExist) {
		if o.account, err = o.ca.registerAgain(ctx, o.account); err != nil {
			return err
		}
		want.Replaces = "" // the certificate is another account's
		return send()
	}
	if want.Replaces != "" && isProblem(err, acme.ProblemTypeAlreadyReplaced, acme.ProblemTypeMalformed,
		acme.ProblemTypeUnauthorized, acme.ProblemTypeNamespace+"notFound", acme.ProblemTypeServerInternal) {
		o.ca.cfg.Logger.Debug("the CA refuses to take the order as a replacement; ordering without", "ca", o.ca.cfg.Name, "err", err)
		want.Replaces = ""
		return send()
	}
	return err
}
