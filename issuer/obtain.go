package issuer

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/printable"
)

// Obtain gets a certificate: it resumes req.Open or makes a new order, proves control of the hostnames through the
// Solver, finalizes and downloads. It retries where the protocol says so; all other retries are the caller's.
//
// On failure the open order is kept when it can be resumed later, and dropped when it can't. On success it is kept too, since
// the bundle can be downloaded again by it: the caller drops it when the bundle is durable.
func (i *Issuer) Obtain(ctx context.Context, req Request) (*Bundle, error) {
	ctx = bounded(ctx, len(req.Hostnames))
	bundle, err := i.obtain(ctx, req)
	if errors.Is(err, errImpasse) { // the order is given up
		req.Open = nil
		bundle, err = i.obtain(ctx, req)
	}
	if err == nil {
		i.health.succeeded()
	}
	i.health.failed(err, time.Now())
	return bundle, err
}

func (i *Issuer) obtain(ctx context.Context, req Request) (bundle *Bundle, err error) {
	solution := cmp.Or(req.Solver, i.cfg.Solver).Begin()
	defer solution.Remove()
	o, ctx := i.begin(ctx, req)
	o.solution = solution
	defer o.leave()
	defer func() { err = o.settle(ctx, err) }()
	if err := o.take(ctx, o.lookByHand, o.findOrMake, o.authorize, o.publish, o.validate); err != nil {
		return nil, err
	}
	solution.Remove() // the CA has seen the records; they need not wait for the rest
	return o.finish(ctx)
}

// silentAge is how long an order is kept that the CA answers with its own errors (HTTP 5xx) only: longer than an outage, but
// an order that the CA has lost isn't kept until it expires.
const silentAge = 24 * time.Hour

// settle counts an attempt that failed by an answer that the CA would repeat: an object of the order is lost, or makes no
// sense. Without the count such an order would be resumed until it expires.
func (o *order) settle(ctx context.Context, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || ctx.Err() != nil || o.kept == nil || o.dropped || o.counted {
		return err
	}
	if _, working := errors.AsType[*WorkingError](err); working || FailedValidation(err) || e.Step == "account" {
		return err
	}
	switch {
	case isProblem(err, acme.ProblemTypeAccountDoesNotExist): // and so can't have orders
		return o.forget(ctx, err)
	case e.Silent && time.Since(o.kept.Created) < silentAge, e.RetryAfter.After(time.Now()),
		isProblem(err, acme.ProblemTypeRateLimited, acme.ProblemTypeBadNonce):
		return err
	}
	return o.count(ctx, err)
}

// publish publishes the records, and waits until all servers have them.
func (o *order) publish(ctx context.Context) error {
	records := o.records()
	if len(records) == 0 {
		o.solution.Remove() // so that no other order waits for this one
		if len(o.pending) == 0 {
			o.progress(Step{Name: Proven})
		}
		return nil
	}
	o.leave() // others prepare their records meanwhile, and all go into one update
	if err := o.solution.Publish(ctx, records); err != nil {
		if waiting, ok := errors.AsType[*ByHandError](err); ok {
			err = errors.Join(err, o.keepByHand(ctx, waiting.Records))
		}
		return err
	}
	o.progress(Step{Name: Published})
	return o.solution.Wait(ctx, func(have, want int) {
		o.seen = have
		o.progress(Step{Seen, have, want})
	})
}

// lookByHand ends the attempt at an order whose records a person publishes, until the records are there or the order has
// expired. So the CA isn't asked at every attempt, for days.
func (o *order) lookByHand(ctx context.Context) error {
	looker, ok := o.solution.(Looker)
	open := o.req.Open
	if !ok || open == nil || len(open.ByHand) == 0 || !open.fits(o.req, open.Account) || !time.Now().Before(open.Expires) {
		return nil
	}
	return looker.Look(ctx, open.ByHand)
}

// keepByHand stores the records that a person is to publish for the order.
func (o *order) keepByHand(ctx context.Context, records []Record) error {
	open, expires := *o.kept, o.state.Expires
	for _, a := range o.pending { // some CAs let authorizations end before their order
		if !a.Expires.IsZero() && a.Expires.Before(expires) {
			expires = a.Expires
		}
	}
	if open.Expires.Equal(expires) && slices.Equal(open.ByHand, records) {
		return nil
	}
	open.ByHand, open.Expires = records, expires
	return o.req.Orders.Keep(ctx, open)
}

// An order can be driven one step at a time, each by a process of its own, with days in between. Each step begins by
// fetching the order, so every step is safe to repeat after a crash. Request.Open is passed from one to the next.

// ErrNotValidated says that an order can't be finished yet: the CA hasn't seen the records of all its hostnames.
var ErrNotValidated = errors.New("the CA hasn't validated all hostnames")

// OrderView is an order as the CA shows it (RFC 8555 section 7.1.3).
type OrderView struct {
	Account        string // its URL
	URL            string
	Status         string
	Expires        time.Time
	Authorizations []AuthorizationView // of an order that is pending or ready
	Records        []Record            // to be published before the CA is asked to look
	Resumed        bool                // it was open already
}

// Validated reports whether nothing is left to prove.
func (v *OrderView) Validated() bool {
	return v.Status != acme.StatusPending || len(v.Authorizations) > 0 && len(v.Records) == 0
}

// AuthorizationView is an authorization as the CA shows it (RFC 8555 section 7.1.4).
type AuthorizationView struct {
	Hostname string
	Status   string
	Expires  time.Time
	Offered  string // the types of its challenges
	Object   []byte // as the CA sent it, without tokens; of ValidateOrder alone
}

// OpenStep makes the order that the request asks for, or finds the one that is open.
func (i *Issuer) OpenStep(ctx context.Context, req Request) (*OrderView, error) {
	o, ctx := i.begin(ctx, req)
	defer o.leave()
	if err := o.findOrMake(ctx); err != nil {
		return nil, err
	}
	view, err := o.show(ctx)
	if err == nil && !o.resumed && len(view.Records) > 0 {
		err = o.keepByHand(ctx, view.Records)
	}
	return view, err
}

// ShowOrder returns the open order, or ErrNoOrder.
func (i *Issuer) ShowOrder(ctx context.Context, req Request) (*OrderView, error) {
	o, ctx := i.begin(ctx, req)
	defer o.leave()
	if err := o.find(ctx); err != nil {
		return nil, err
	}
	return o.show(ctx)
}

// ValidateOrder asks the CA to look for the records and waits until it has. An order that is validated already stays as
// it is.
func (i *Issuer) ValidateOrder(ctx context.Context, req Request) (*OrderView, error) {
	o, ctx := i.begin(ctx, req)
	defer o.leave()
	if err := o.take(ctx, o.find, o.authorize, o.validate); err != nil {
		return nil, err
	}
	view := o.view()
	if view.Status == acme.StatusPending {
		view.Status = acme.StatusReady
	}
	view.Records = nil
	if view.Status != acme.StatusReady { // an old order is shown without its authorizations
		return view, nil
	}
	for _, url := range o.state.Authorizations {
		a, r, err := o.authorization(ctx, url)
		if err != nil {
			return nil, err
		}
		shown := viewOf(a)
		shown.Object = pretty(r.body)
		view.Authorizations = append(view.Authorizations, shown)
	}
	return view, nil
}

// FinishOrder finalizes an order that was validated and downloads the certificate. The order is kept: the caller drops
// it when the bundle is durable.
func (i *Issuer) FinishOrder(ctx context.Context, req Request) (*Bundle, error) {
	o, ctx := i.begin(ctx, req)
	defer o.leave()
	if err := o.take(ctx, o.find, o.authorize); err != nil {
		return nil, err
	}
	if len(o.pending) > 0 {
		return nil, ErrNotValidated
	}
	return o.finish(ctx)
}

// GiveUpOrder deactivates the pending authorizations of the open order (RFC 8555 section 7.5.2), and drops the order. Without
// that a CA may answer a new order with the open one.
func (i *Issuer) GiveUpOrder(ctx context.Context, req Request) error {
	o, ctx := i.begin(ctx, req)
	defer o.leave()
	err := o.find(ctx)
	if errors.Is(err, ErrNoOrder) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := o.authorize(ctx); err != nil {
		if e, ok := errors.AsType[*Error](err); !ok || e.Silent {
			return err
		}
		i.cfg.Logger.Warn("what the CA has of the order makes no sense, and is left to expire", "ca", i.cfg.Name, "order", o.state.Location, "err", err)
		o.pending = nil
	}
	for _, p := range o.pending {
		if err := o.deactivate(ctx, p); err != nil {
			return err
		}
	}
	return o.drop(ctx)
}

// show returns the order with its authorizations, of one that is pending or ready.
func (o *order) show(ctx context.Context) (*OrderView, error) {
	var authorizations []acme.Authorization
	if o.state.Status == acme.StatusPending || o.state.Status == acme.StatusReady {
		var err error
		if authorizations, err = o.fetch(ctx); err != nil {
			return nil, err
		}
	}
	view := o.view()
	for _, a := range authorizations {
		view.Authorizations = append(view.Authorizations, viewOf(a))
	}
	return view, nil
}

func (o *order) view() *OrderView {
	return &OrderView{
		Account: o.account.Location,
		URL:     o.state.Location,
		Status:  printable.Line(o.state.Status),
		Expires: o.state.Expires,
		Records: o.records(),
		Resumed: o.resumed,
	}
}

func viewOf(a acme.Authorization) AuthorizationView {
	a.Challenges = slices.SortedFunc(slices.Values(a.Challenges), func(x, y acme.Challenge) int { return strings.Compare(x.Type, y.Type) })
	return AuthorizationView{Hostname: printable.Line(a.IdentifierValue()), Status: printable.Line(a.Status), Expires: a.Expires, Offered: printable.Line(offered(a))}
}
