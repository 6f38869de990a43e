package issuer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

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
	if errors.Is(err, errNoResult) && o.state.Status != acme.StatusProcessing && o.kept.Waited && time.Since(o.kept.Created) >= impasseAge {
		return nil, o.end(ctx, "finalize",
			fmt.Errorf("the CA calls the order %s, and hasn't taken it for %s", o.state.Status, time.Since(o.kept.Created).Round(time.Minute)))
	}
	if errors.Is(err, errNoResult) {
		working := &WorkingError{CA: o.ca.cfg.Name, Order: o.state.Location, Again: again}
		if o.kept.Waited {
			return nil, working
		}
		open := *o.kept
		open.Waited, o.kept = true, &open
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

// advance makes the request that the order's state calls for (RFC 8555 section 7.4): it finalizes an order that is ready,
// and fetches one that the CA is working on. again is when the CA wants to be asked again. A failed order is dropped, and
// the error has the CA's reason.
func (o *order) advance(ctx context.Context, csr []byte) (again time.Time, err error) {
	var r reply
	switch s := o.state.Status; {
	case s == acme.StatusValid:
		return time.Time{}, nil
	case s == acme.StatusInvalid: // from the beginning
	case s == acme.StatusReady, s == acme.StatusPending && !o.early: // its authorizations have become valid since it was fetched
		r, err = o.signed(ctx, "finalize", func(ctx context.Context) error {
			state, err := o.ca.client.FinalizeOrder(ctx, o.account, o.state, csr)
			if err == nil {
				o.state = state
			}
			return err
		})
		if err != nil {
			r, err = o.refused(ctx, r, err)
		}
	default:
		r, err = o.signed(ctx, "finalize", o.refresh)
	}
	switch dead := isProblem(err, acme.ProblemTypeBadCSR, acme.ProblemTypeBadPublicKey, acme.ProblemTypeUnauthorized, acme.ProblemTypeRejectedIdentifier); {
	case err != nil && (dead || o.state.Status == acme.StatusInvalid):
		return r.retryAfter, o.forget(ctx, err)
	case err != nil:
		return r.retryAfter, err
	case o.state.Status == acme.StatusInvalid:
		err := errors.New("the CA gave the order up")
		if o.state.Error != nil {
			err = &problemError{*o.state.Error}
		}
		return r.retryAfter, o.forget(ctx, o.ca.cfg.failed("finalize", r, err))
	}
	return r.retryAfter, nil
}

// refused fetches the order after the CA refused to finalize it: the reply to an earlier request may have been lost, the CA may
// have given the order up for a reason that the order has, or the order isn't ready yet. None of these is an error here.
func (o *order) refused(ctx context.Context, r reply, err error) (reply, error) {
	now, askErr := o.ca.call(ctx, "finalize", o.refresh)
	if askErr != nil {
		return r, cmp.Or(context.Cause(ctx), err)
	}
	switch s := o.state; {
	case s.Status == acme.StatusProcessing, s.Status == acme.StatusValid, s.Status == acme.StatusInvalid && s.Error != nil:
		return r, nil
	}
	if isProblem(err, acme.ProblemTypeOrderNotReady) {
		o.early = true
		return now, nil
	}
	return r, err
}

// refresh asks for the state of the order.
func (o *order) refresh(ctx context.Context) error {
	state, err := o.ca.client.GetOrder(ctx, o.account, o.state.Location)
	if err == nil {
		o.state = state
	}
	return err
}

// download fetches the certificate of a valid order and checks it against the request.
func (o *order) download(ctx context.Context) (*Bundle, error) {
	if o.state.Certificate == "" {
		return nil, o.spoiled(ctx, "certificate", errors.New("the CA calls the order valid, and doesn't say where its certificate is"))
	}
	var chains []acme.Certificate
	r, err := o.ca.call(ctx, "certificate", func(ctx context.Context) (err error) {
		chains, err = o.ca.client.GetCertificateChain(ctx, o.account, o.state.Certificate, o.ca.cfg.PreferredChain != "")
		return err
	})
	switch {
	case err != nil && (ctx.Err() != nil || r.status == http.StatusTooManyRequests):
		return nil, err
	case err != nil:
		return nil, o.spoiled(ctx, "certificate", err) // the CA has just said that it is there, so that it isn't down
	}
	bundle, err := o.ca.cfg.usable(chains, o.req, o.key.public)
	if err != nil { // the same order gives the same certificate again
		return nil, o.end(ctx, "certificate", err)
	}
	bundle.Key, bundle.Account, bundle.Order = o.key.pem, o.account.Location, o.state.Location
	return bundle, nil
}
