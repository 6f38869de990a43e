package issuer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/printable"
)

// An order can be driven one step at a time, each by a process of its own, with days in between. Each step begins with
// what the CA says of the order, so that it may be repeated after it died anywhere. Request.Open is what goes from one
// to the next.

// ErrNoOrder says that there is no open order: none was made, or the CA has given it up since.
var ErrNoOrder = errors.New("no order is open")

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
	o, ctx := i.stepwise(ctx, req)
	if err := o.find(ctx); err == nil {
		return o.show(ctx)
	} else if !errors.Is(err, ErrNoOrder) {
		return nil, err
	}
	if err := o.create(ctx); err != nil {
		return nil, err
	}
	if err := o.keep(ctx); err != nil {
		return nil, err
	}
	view, err := o.show(ctx)
	if err != nil {
		return nil, err
	}
	view.Resumed = false
	if len(view.Records) > 0 {
		err = o.awaitHand(ctx, view.Records)
	}
	return view, err
}

// ShowOrder returns the open order, or ErrNoOrder.
func (i *Issuer) ShowOrder(ctx context.Context, req Request) (*OrderView, error) {
	o, ctx := i.stepwise(ctx, req)
	if err := o.find(ctx); err != nil {
		return nil, err
	}
	return o.show(ctx)
}

// ValidateOrder asks the CA to look for the records and waits until it has. An order that is validated already stays as
// it is.
func (i *Issuer) ValidateOrder(ctx context.Context, req Request) (*OrderView, error) {
	o, ctx := i.stepwise(ctx, req)
	if err := o.find(ctx); err != nil {
		return nil, err
	}
	if o.state.Status == acme.StatusPending {
		defer o.leave()
		if err := o.authorize(ctx); err != nil {
			return nil, err
		}
		if err := o.validate(ctx); err != nil {
			return nil, err
		}
		o.state.Status = acme.StatusReady
	}
	if o.state.Status != acme.StatusReady { // what was ordered long ago is shown without what led to it
		return o.view(nil), nil
	}
	return o.showObjects(ctx)
}

// FinishOrder finalizes an order that was validated and downloads the certificate. The order is kept: the caller drops
// it when the bundle is durable.
func (i *Issuer) FinishOrder(ctx context.Context, req Request) (*Bundle, error) {
	o, ctx := i.stepwise(ctx, req)
	if err := o.find(ctx); err != nil {
		return nil, err
	}
	if o.state.Status == acme.StatusPending {
		if err := o.authorize(ctx); err != nil {
			return nil, err
		}
		if len(o.pending) > 0 {
			return nil, ErrNotValidated
		}
	}
	defer o.leave()
	return o.finish(ctx)
}

// GiveUpOrder deactivates what is pending of the open order (RFC 8555 section 7.5.2), since a CA may answer a new order
// with the one that is open, and forgets the order.
func (i *Issuer) GiveUpOrder(ctx context.Context, req Request) error {
	o, ctx := i.stepwise(ctx, req)
	err := o.find(ctx)
	if errors.Is(err, ErrNoOrder) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.state.Status == acme.StatusPending {
		if err := o.authorize(ctx); err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Silent {
				return err
			}
			o.cfg.Logger.Warn("what the CA has of the order makes no sense, and is left to expire", "ca", o.cfg.Name, "order", o.state.Location, "err", err)
			o.pending = nil
		}
	}
	for _, a := range o.pending {
		noting, noted := observe(ctx)
		if _, err := o.client.DeactivateAuthorization(noting, o.account, a.Location); err != nil {
			return o.failed("authorization", noted, err)
		}
	}
	return o.drop(ctx)
}

func (i *Issuer) stepwise(ctx context.Context, req Request) (*order, context.Context) {
	req.Profile = cmp.Or(req.Profile, i.cfg.Profile)
	return &order{Issuer: i, req: req}, bounded(ctx, len(req.Hostnames))
}

// find finds the account and the open order.
func (o *order) find(ctx context.Context) (err error) {
	if o.account, err = o.acmeAccount(ctx); err != nil {
		return err
	}
	resumed, err := o.resume(ctx)
	if err == nil && !resumed {
		return ErrNoOrder
	}
	return err
}

// show fetches what belongs to the order.
func (o *order) show(ctx context.Context) (*OrderView, error) {
	if o.state.Status != acme.StatusPending && o.state.Status != acme.StatusReady {
		return o.view(nil), nil
	}
	authorizations, err := o.authorizations(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.choosePending(ctx, authorizations); err != nil {
		return nil, err
	}
	return o.view(authorizations), nil
}

// showObjects is show after a validation, with each authorization as the CA sent it.
func (o *order) showObjects(ctx context.Context) (*OrderView, error) {
	view := o.view(nil)
	for _, url := range o.state.Authorizations {
		noting, noted := observe(ctx)
		noting, body := keepBody(noting)
		a, err := o.client.GetAuthorization(noting, o.account, url)
		if err != nil {
			return nil, o.failed("authorization", noted, err)
		}
		if len(*body) == 0 { // no Tracer listens
			if *body, err = json.Marshal(a); err != nil {
				return nil, err
			}
		}
		shown := viewOf(a)
		shown.Object = pretty(*body)
		view.Authorizations = append(view.Authorizations, shown)
	}
	view.Records = nil
	return view, nil
}

func (o *order) view(authorizations []acme.Authorization) *OrderView {
	view := &OrderView{Account: o.account.Location, URL: o.state.Location, Status: printable.Line(o.state.Status), Expires: o.state.Expires, Records: o.records(), Resumed: true}
	for _, a := range authorizations {
		view.Authorizations = append(view.Authorizations, viewOf(a))
	}
	return view
}

func viewOf(a acme.Authorization) AuthorizationView {
	a.Challenges = slices.SortedFunc(slices.Values(a.Challenges), func(x, y acme.Challenge) int { return strings.Compare(x.Type, y.Type) })
	return AuthorizationView{Hostname: printable.Line(a.IdentifierValue()), Status: printable.Line(a.Status), Expires: a.Expires, Offered: printable.Line(offered(a))}
}

// ZoneLine is the record as a line of a zone file.
func (r Record) ZoneLine() string {
	return fmt.Sprintf("%s.\t%d\tIN\tTXT\t%q", r.Name, HandTTL, r.Value)
}

// HandTTL is the TTL in seconds of records that a person publishes.
const HandTTL = 300

// ByHandError says that an order waits for a person to publish records. It is no failure: the order stays open, and goes
// on when the records are there.
type ByHandError struct {
	Records []Record // all that a person publishes
	Missing []string // what is missing where, a sentence for each server
}

func (e *ByHandError) Error() string {
	var lines []string
	for _, r := range e.Records {
		lines = append(lines, r.ZoneLine())
	}
	text := "a person must add to the zone: " + strings.ReplaceAll(strings.Join(lines, "; "), "\t", " ")
	if len(e.Missing) > 0 {
		text += " (" + strings.Join(e.Missing, "; ") + ")"
	}
	return text
}

// Looker is a Solution that can tell whether records are there that a person publishes.
type Looker interface {
	// Look returns a *ByHandError while one of the records is missing that only a person can publish.
	Look(ctx context.Context, records []Record) error
}

// look keeps an order whose records a person publishes from asking the CA at every attempt, for days: it is left alone
// until the records are there, or until it has expired.
func (o *order) look(ctx context.Context, solution Solution) error {
	looker, ok := solution.(Looker)
	open := o.req.Open
	if !ok || open == nil || len(open.ByHand) == 0 || !open.fits(o.req, open.Account) || !time.Now().Before(open.Expires) {
		return nil
	}
	return looker.Look(ctx, open.ByHand)
}

// awaitHand remembers for which records of a person an order waits.
func (o *order) awaitHand(ctx context.Context, records []Record) error {
	open, expires := *o.open, o.state.Expires
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
