package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/sync/errgroup"
)

// requestsPerOrder bounds how many requests of one order are under way at a time.
const requestsPerOrder = 8

// authorize fetches the order's authorizations and keeps those that aren't valid yet, each with its dns-01 challenge.
func (o *order) authorize(ctx context.Context) error {
	authorizations, err := o.authorizations(ctx)
	if err != nil {
		return err
	}
	return o.choosePending(ctx, authorizations)
}

func (o *order) authorizations(ctx context.Context) ([]acme.Authorization, error) {
	authorizations := make([]acme.Authorization, len(o.state.Authorizations))
	err := each(ctx, len(authorizations), func(ctx context.Context, n int) (err error) {
		ctx, noted := observe(ctx)
		if authorizations[n], err = o.client.GetAuthorization(ctx, o.account, o.state.Authorizations[n]); err != nil {
			return o.failed("authorization", noted, err)
		}
		return nil
	})
	return authorizations, err
}

// each makes n requests of one order, some of them at a time. It returns the first error, and ends the others then.
func each(ctx context.Context, n int, request func(ctx context.Context, n int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(requestsPerOrder)
	for i := range n {
		group.Go(func() error { return request(ctx, i) })
	}
	return group.Wait()
}

func (o *order) choosePending(ctx context.Context, authorizations []acme.Authorization) error {
	for _, a := range authorizations {
		if a.Status == acme.StatusValid {
			continue
		}
		if a.Status != acme.StatusPending {
			return o.orderFailed(ctx, "authorization", &reply{}, acme.Order{Status: acme.StatusInvalid}, fmt.Errorf("%s: authorization is %s", a.IdentifierValue(), a.Status))
		}
		n := slices.IndexFunc(a.Challenges, func(c acme.Challenge) bool { return c.Type == acme.ChallengeTypeDNS01 && c.Token != "" })
		if n < 0 {
			return &Error{CA: o.cfg.Name, Step: "authorization", Err: fmt.Errorf("the CA offers no dns-01 challenge for %s, only %s", a.IdentifierValue(), offered(a))}
		}
		o.pending, o.accepted = append(o.pending, a), append(o.accepted, a.Challenges[n])
	}
	return nil
}

func offered(a acme.Authorization) string {
	var types []string
	for _, c := range a.Challenges {
		types = append(types, c.Type)
	}
	return strings.Join(types, ", ")
}

// records returns what must be published for the challenges that are still to be met.
func (o *order) records() []Record {
	var records []Record
	for _, c := range o.accepted {
		r := Record{Name: strings.ToLower(c.DNS01TXTRecordName()), Value: c.DNS01KeyAuthorization()}
		if !slices.Contains(records, r) { // a reused authorization may serve twice
			records = append(records, r)
		}
	}
	return records
}

// validate accepts all challenges and waits until every authorization is valid.
func (o *order) validate(ctx context.Context) error {
	if len(o.pending) == 0 {
		return nil
	}
	if err := o.enter(ctx); err != nil {
		return err
	}
	err := each(ctx, len(o.pending), o.accept)
	if err == nil {
		err = o.awaitValidation(ctx)
	}
	if err != nil {
		var refused *refusedError
		if errors.As(err, &refused) && !refused.open { // the order can only become invalid now
			return errors.Join(err, o.drop(ctx))
		}
		return err
	}
	o.state.Status = acme.StatusReady
	o.progress(Step{Name: Validated})
	return nil
}

// refusedError is a failed validation: the CA looked and wasn't convinced.
type refusedError struct {
	err  error
	open bool // the CA looks again when the challenge is accepted again; the order can still be finished
}

func (e *refusedError) Error() string { return fmt.Sprintf("validation failed: %v", e.err) }
func (e *refusedError) Unwrap() error { return e.err }

// FailedValidation reports whether err says that the CA looked for the records and wasn't convinced, which CAs count.
func FailedValidation(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused)
}

// accept tells the CA that the records of the nth pending authorization are there.
func (o *order) accept(ctx context.Context, n int) error {
	a, c := o.pending[n], o.accepted[n]
	if c.Status != acme.StatusPending { // a resumed order may have accepted it before
		return nil
	}
	noting, noted := observe(ctx)
	answer, err := o.client.InitiateChallenge(noting, o.account, c)
	if err != nil && !o.wasAccepted(ctx, a, c) {
		return about(a.IdentifierValue(), o.failed("challenge", noted, err))
	}
	if err == nil && answer.Status == acme.StatusPending && answer.Error != nil { // as step-ca does
		return about(a.IdentifierValue(), o.explain("challenge", &refusedError{err: &problemError{*answer.Error}, open: true}))
	}
	return nil
}

// awaitValidation returns nil when all pending authorizations have become valid.
func (o *order) awaitValidation(ctx context.Context) error {
	left := slices.Clone(o.pending)
	err := o.poll(ctx, func(ctx context.Context) (bool, time.Time, error) {
		wishes := make([]time.Time, len(left)) // of the CA, when to ask again
		err := each(ctx, len(left), func(ctx context.Context, n int) (err error) {
			ctx, noted := observe(ctx)
			left[n], err = o.lookAt(ctx, noted, left[n])
			wishes[n] = noted.retryAfter
			return err
		})
		if err != nil {
			return false, time.Time{}, err
		}
		left = slices.DeleteFunc(left, func(a acme.Authorization) bool { return a.Status == acme.StatusValid })
		return len(left) == 0, slices.MaxFunc(wishes, time.Time.Compare), nil
	})
	if err != nil {
		return about(left[0].IdentifierValue(), o.explain("authorization", err))
	}
	return nil
}

// lookAt asks for a pending authorization, under a context that notes the reply. It is an error when it became something
// else than valid.
func (o *order) lookAt(ctx context.Context, noted *reply, was acme.Authorization) (acme.Authorization, error) {
	a, err := o.client.GetAuthorization(ctx, o.account, was.Location)
	switch {
	case err != nil:
		return was, about(was.IdentifierValue(), o.failed("authorization", noted, err))
	case a.Status == acme.StatusPending || a.Status == acme.StatusValid:
		a.Location = was.Location
		return a, nil
	}
	return a, about(a.IdentifierValue(), o.explain("challenge", &refusedError{err: reason(a)}))
}

// wasAccepted reports whether the CA has accepted a challenge although it refuses to: the reply to an earlier request was
// lost, and the library's next one came too late.
func (o *order) wasAccepted(ctx context.Context, a acme.Authorization, c acme.Challenge) bool {
	now, err := o.client.GetAuthorization(ctx, o.account, a.Location)
	return err == nil && slices.ContainsFunc(now.Challenges, func(other acme.Challenge) bool {
		return other.URL == c.URL && other.Status != acme.StatusPending
	})
}

// reason finds why an authorization isn't valid: the error of its challenge.
func reason(a acme.Authorization) error {
	for _, c := range a.Challenges {
		if c.Error != nil {
			return &problemError{*c.Error}
		}
	}
	return fmt.Errorf("the authorization is %s", a.Status)
}
