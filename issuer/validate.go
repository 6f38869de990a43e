package issuer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/sync/errgroup"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/printable"
)

// requestsPerOrder bounds how many requests of one order are under way at a time.
const requestsPerOrder = 8

// authorize fetches the authorizations of an order that is pending.
func (o *order) authorize(ctx context.Context) error {
	if o.state.Status != acme.StatusPending {
		return nil
	}
	if err := o.enter(ctx); err != nil {
		return err
	}
	_, err := o.fetch(ctx)
	return err
}

// fetch fetches the order's authorizations and keeps those that aren't valid yet. There is at most one for each hostname, and
// each is for one of them: nothing is published for a name that wasn't ordered.
func (o *order) fetch(ctx context.Context) ([]acme.Authorization, error) {
	urls := o.state.Authorizations
	if len(urls) > len(o.req.Hostnames) {
		return nil, o.spoiled(ctx, "order", fmt.Errorf("the CA wants %d authorizations for %d hostnames", len(urls), len(o.req.Hostnames)))
	}
	used := urls
	if o.state.Finalize != "" { // some CAs send it only when the order is ready
		used = append(slices.Clone(urls), o.state.Finalize)
	}
	for _, url := range used {
		if err := o.ca.client.leads(url); err != nil {
			return nil, o.spoiled(ctx, "order", err)
		}
	}
	authorizations := make([]acme.Authorization, len(urls))
	err := each(ctx, urls, func(ctx context.Context, n int, url string) (err error) {
		authorizations[n], _, err = o.authorization(ctx, url)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := assign(authorizations, o.req.Hostnames); err != nil {
		return nil, o.spoiled(ctx, "authorization", err)
	}
	return authorizations, o.choose(ctx, authorizations)
}

// authorization fetches one authorization.
func (o *order) authorization(ctx context.Context, url string) (a acme.Authorization, r reply, err error) {
	r, err = o.ca.call(ctx, "authorization", func(ctx context.Context) (err error) {
		a, err = o.ca.client.GetAuthorization(ctx, o.account, url)
		return err
	})
	return a, r, err
}

// deactivate gives an authorization up.
func (o *order) deactivate(ctx context.Context, p *proof) error {
	_, err := o.ca.call(ctx, "authorization", func(ctx context.Context) error {
		return o.ca.client.DeactivateAuthorization(ctx, o.account, p.Location)
	})
	return about(p.IdentifierValue(), err)
}

// each makes requests of one order in parallel, a few at a time. The first error ends the others and is returned.
func each[T any](ctx context.Context, list []T, request func(ctx context.Context, n int, one T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(requestsPerOrder)
	for n, one := range list {
		group.Go(func() error { return request(ctx, n, one) })
	}
	return group.Wait()
}

// assign finds the hostname of each authorization, and writes it in our spelling. A hostname has at most one. That of *.x is
// for x, with a mark (RFC 8555 section 7.1.4) that some CAs leave out.
func assign(authorizations []acme.Authorization, hostnames []string) error {
	left := slices.Clone(hostnames)
	for n := range authorizations {
		a := &authorizations[n]
		name := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(a.Identifier.Value)), ".")
		candidates := []string{name, "*." + name}
		if a.Wildcard {
			candidates = []string{"*." + strings.TrimPrefix(name, "*.")}
		}
		at := -1
		for _, candidate := range candidates {
			if at = slices.Index(left, candidate); at >= 0 {
				break
			}
		}
		if at < 0 || a.Identifier.Type != "dns" {
			why := "which wasn't ordered"
			if slices.Contains(hostnames, candidates[0]) && a.Identifier.Type == "dns" {
				why = "a second time"
			}
			kind := ""
			if a.Identifier.Type != "dns" {
				kind = fmt.Sprintf(" of type %q", printable.Short(a.Identifier.Type, 50))
			}
			return fmt.Errorf("the CA wants an authorization for %q%s, %s", printable.Short(a.IdentifierValue(), 260), kind, why)
		}
		a.Identifier.Value, a.Wildcard = strings.CutPrefix(left[at], "*.")
		left = slices.Delete(left, at, at+1)
	}
	return nil
}

// choose keeps the authorizations that aren't valid yet, each with the challenge to answer and its record.
func (o *order) choose(ctx context.Context, authorizations []acme.Authorization) error {
	o.pending = nil
	refused := &refusedError{} // since the last attempt
	for _, a := range authorizations {
		if a.Status == acme.StatusInvalid {
			refused.hostnames, refused.reasons = append(refused.hostnames, a.IdentifierValue()), append(refused.reasons, reason(a))
		}
	}
	if len(refused.hostnames) > 0 {
		return about(refused.only(), o.end(ctx, "authorization", refused))
	}
	for _, a := range authorizations {
		if a.Status == acme.StatusValid {
			continue
		}
		if !undecided(a) {
			return about(a.IdentifierValue(), o.end(ctx, "authorization", reason(a)))
		}
		c, answer := o.challengeOf(a)
		if c == nil {
			wanted := o.ca.cfg.methods(" or ")
			err := fmt.Errorf("the CA offers no %s challenge for %s, only %s", wanted, a.IdentifierValue(), offered(a))
			if len(a.Challenges) == 0 {
				err = fmt.Errorf("the CA offers no challenge for %s", a.IdentifierValue())
			}
			return &Error{CA: o.ca.cfg.Name, Step: "authorization", Err: err, Hint: "have the CA allow " + wanted + " for this account and hostname"}
		}
		record, err := o.record(answer, c.Token)
		if err == nil {
			err = o.ca.client.leads(c.URL)
		}
		if err != nil {
			return about(a.IdentifierValue(), o.spoiled(ctx, "challenge", err))
		}
		o.pending = append(o.pending, &proof{Authorization: a, challenge: *c, record: record})
	}
	return nil
}

// challengeOf returns the challenge of an authorization to answer, and the answer: the one that the CA is validating already,
// else the first of the configured types that it offers; nil when there is none.
func (o *order) challengeOf(a acme.Authorization) (c *acme.Challenge, answer dnschallenge.Challenge) {
	possible, _ := dnschallenge.Possible(o.ca.cfg.Challenges, a.Identifier.Value, o.account.Location)
	for _, p := range possible {
		n := slices.IndexFunc(a.Challenges, func(c acme.Challenge) bool { return c.Type == string(p.Type) })
		if n >= 0 && (c == nil || a.Challenges[n].Status == acme.StatusProcessing) {
			c, answer = &a.Challenges[n], p
		}
	}
	return c, answer
}

// record makes the record for a challenge, from the hostname that was ordered, the token and the key of our account (RFC 8555
// section 8.1). No CA can have another value published.
func (o *order) record(answer dnschallenge.Challenge, token string) (Record, error) {
	base64url := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if token == "" {
		return Record{}, errors.New("the CA's challenge has no token")
	}
	if len(token) > longestToken || strings.ContainsFunc(token, func(r rune) bool { return !base64url(r) }) {
		return Record{}, fmt.Errorf("the CA's token isn't one: it must be base64url and have at most %d characters", longestToken)
	}
	thumbprint, err := o.account.Thumbprint()
	if err != nil {
		return Record{}, err
	}
	answer.KeyAuthorization = token + "." + thumbprint
	return Record{Name: answer.Name(), Value: answer.Value()}, nil
}

func offered(a acme.Authorization) string {
	var types []string
	for _, c := range a.Challenges {
		types = append(types, c.Type)
	}
	return strings.Join(types, ", ")
}

// undecided reports whether the validation hasn't ended. Some CAs use the status "processing", which is for challenges (RFC 8555
// section 7.1.6).
func undecided(a acme.Authorization) bool {
	return a.Status == acme.StatusPending || a.Status == acme.StatusProcessing
}

// records returns the records for the pending authorizations, each once.
func (o *order) records() []Record {
	var records []Record
	for _, p := range o.pending {
		if !slices.Contains(records, p.record) { // a reused authorization may serve twice
			records = append(records, p.record)
		}
	}
	return records
}

// validate accepts all challenges and waits until every authorization is valid.
//
// A failure of one doesn't end the others: the CA looks for the records of each, and counts each that it doesn't find. So the
// records stay until the CA has decided about all of them, and the error names each that failed.
func (o *order) validate(ctx context.Context) error {
	if len(o.pending) == 0 {
		return nil
	}
	if err := o.enter(ctx); err != nil {
		return err
	}
	_ = each(ctx, o.pending, func(ctx context.Context, _ int, p *proof) error {
		o.accept(ctx, p)
		return nil
	})
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := o.awaitValidation(ctx); err != nil {
		return err
	}
	if err := o.verdict(); err != nil {
		var refused *refusedError
		var lapsed *lapsedError
		if errors.As(err, &refused) && !refused.open || errors.As(err, &lapsed) { // the order can only become invalid
			return errors.Join(err, o.drop(ctx))
		}
		return err
	}
	o.state.Status = acme.StatusReady
	o.progress(Step{Name: Validated})
	return nil
}

// refusedError is a failed validation: the CA looked for the record and didn't find it, or found another.
type refusedError struct {
	hostnames []string
	reasons   []error // beside each of hostnames
	open      bool    // the challenges can be accepted again, so the order can still be finished
}

// shownReasons bounds how many hostnames are named with the reason; the others are named without.
const shownReasons = 5

func (e *refusedError) Error() string {
	if len(e.reasons) == 1 {
		return fmt.Sprintf("validation failed: %v", e.reasons[0])
	}
	text := fmt.Sprintf("validation failed of %d hostnames", len(e.hostnames))
	for n, hostname := range e.hostnames {
		switch {
		case n < shownReasons:
			text += fmt.Sprintf("; %s: %v", hostname, e.reasons[n])
		case n == shownReasons:
			text += "; and " + strings.Join(e.hostnames[n:], ", ")
		}
	}
	return text
}

func (e *refusedError) Unwrap() []error { return e.reasons }

// only returns the hostname if it is the only one, else "".
func (e *refusedError) only() string {
	if len(e.hostnames) == 1 {
		return e.hostnames[0]
	}
	return ""
}

// FailedValidation reports whether err is a failed validation, which CAs count.
func FailedValidation(err error) bool { return len(FailedHostnames(err)) > 0 }

// FailedHostnames returns the hostnames whose validation failed. CAs count each of them.
func FailedHostnames(err error) []string {
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return refused.hostnames
	}
	return nil
}

// sightHint returns the cure when the CA doesn't find a record that our servers have; "" when the cause may be another.
func (o *order) sightHint(reason error) string {
	if o.seen == 0 || !isProblem(reason, acme.ProblemTypeDNS, acme.ProblemTypeUnauthorized, acme.ProblemTypeIncorrectResponse) {
		return ""
	}
	servers := "the server that was asked had the record"
	if o.seen > 1 {
		servers = fmt.Sprintf("%d servers that were asked had the record", o.seen)
	}
	return servers + ", so the CA sees another view of the zone (split horizon), or asks a server that nameservers or min_nameservers leave out, or its resolver still remembers what was there before; " +
		"to see which: autocertd check --live, with a resolver that sees what the CA sees in [resolvers] public"
}

// verdict returns one error for all failed validations, else the first other error, nil when all authorizations are valid.
func (o *order) verdict() error {
	all := &refusedError{open: true}
	var first error
	for _, p := range o.pending {
		var refused *refusedError
		switch {
		case errors.As(p.verdict, &refused):
			all.hostnames = append(all.hostnames, p.IdentifierValue())
			all.reasons = append(all.reasons, refused.reasons...)
			all.open = all.open && refused.open
		case first == nil:
			first = p.verdict
		}
	}
	if len(all.hostnames) == 0 {
		return first
	}
	err := o.ca.cfg.explain("challenge", all)
	if e, ok := errors.AsType[*Error](err); ok && e.Hint == "" {
		e.Hint = o.sightHint(all.reasons[0])
	}
	return about(all.only(), err)
}

// accept has the CA look for the record of a proof. It sets busy if the CA is validating already, as after an earlier attempt,
// or when the reply to an earlier request of the library was lost.
func (o *order) accept(ctx context.Context, p *proof) {
	if p.challenge.Status != acme.StatusPending { // a resumed order may have accepted it before
		return
	}
	var answer acme.Challenge
	r, err := o.ca.call(ctx, "challenge", func(ctx context.Context) (err error) {
		answer, err = o.ca.client.InitiateChallenge(ctx, o.account, p.challenge.URL)
		return err
	})
	switch {
	case r.status == http.StatusConflict || isProblem(err, acme.ProblemTypeNamespace+"conflict"):
		p.busy = true // its status is pending, but it is being validated
	case err != nil && !o.wasAccepted(ctx, p):
		p.verdict = about(p.IdentifierValue(), err)
	case err == nil && answer.Status == acme.StatusPending && answer.Error != nil: // as step-ca does
		p.refuse(&problemError{*answer.Error})
		p.verdict.(*refusedError).open = true
	}
}

// refuse sets the verdict to a failed validation.
func (p *proof) refuse(reason error) {
	p.verdict = &refusedError{hostnames: []string{p.IdentifierValue()}, reasons: []error{reason}}
}

// wasAccepted reports whether the CA has accepted a challenge after all: the reply to the library's first request was lost, and
// the CA refused the second.
func (o *order) wasAccepted(ctx context.Context, p *proof) bool {
	now, _, err := o.authorization(ctx, p.Location)
	return err == nil && slices.ContainsFunc(now.Challenges, func(c acme.Challenge) bool {
		return c.URL == p.challenge.URL && c.Status != acme.StatusPending
	})
}

// Times of validations.
const (
	verdictsWithin = 30 * time.Second // the other verdicts, once the CA has refused the first hostname
	impasseAge     = time.Hour        // of an order whose validation never ends, though the CA was asked for long
)

// errImpasse says that a validation didn't end, and that the order was given up for another.
var errImpasse = errors.New("the CA's validation doesn't end")

// awaitValidation waits until the CA has decided about all proofs without a verdict. An error ends the wait for all.
func (o *order) awaitValidation(ctx context.Context) error {
	left := slices.DeleteFunc(slices.Clone(o.pending), func(p *proof) bool { return p.verdict != nil })
	if len(left) == 0 {
		return nil
	}
	var again, refused, troubled time.Time // when the CA wants to be asked again, when it refused the first, and since when it can't be asked
	var trouble error
	grace := min(verdictsWithin, o.ca.cfg.Patience)
	begin := time.Now()
	err := o.poll(ctx, func(ctx context.Context) (bool, time.Time, error) {
		decided, retries, troubles := make([]bool, len(left)), make([]time.Time, len(left)), make([]error, len(left))
		err := each(ctx, left, func(ctx context.Context, n int, p *proof) (err error) {
			decided[n], retries[n], err = o.lookAt(ctx, p)
			if ctx.Err() == nil && passing(err) {
				troubles[n], err = err, nil
			}
			return err
		})
		if err != nil {
			return false, time.Time{}, err
		}
		again = slices.MaxFunc(retries, time.Time.Compare)
		// While the CA can't be asked it goes on validating, and counts a failure if the records are gone. So wait a little.
		if trouble = cmp.Or(troubles...); trouble == nil {
			troubled = time.Time{}
		} else if troubled.IsZero() {
			troubled = time.Now()
		}
		if end := troubled.Add(grace); trouble != nil && again.After(end) {
			o.leave()
			if err := pause(ctx, time.Until(end)); err != nil {
				return false, time.Time{}, err
			}
		}
		if trouble != nil && time.Since(troubled) >= grace {
			return false, time.Time{}, trouble
		}
		var open []*proof
		for n, p := range left {
			switch {
			case !decided[n] && p.busy && time.Since(begin) >= o.ca.cfg.Impasse:
				return false, time.Time{}, errImpasse
			case !decided[n]:
				open = append(open, p)
			case p.verdict != nil && refused.IsZero():
				refused = time.Now()
			}
		}
		left = open
		done := len(left) == 0 || !refused.IsZero() && time.Since(refused) >= verdictsWithin
		return done, again, nil
	})
	switch {
	case errors.Is(err, errNoResult) && trouble != nil:
		return trouble
	case errors.Is(err, errNoResult) && time.Since(o.kept.Created) >= impasseAge, errors.Is(err, errImpasse):
		return o.giveUp(ctx, left)
	case errors.Is(err, errNoResult):
		return &WorkingError{CA: o.ca.cfg.Name, Hostname: left[0].IdentifierValue(), Order: o.state.Location, Again: again}
	case err != nil:
		return about(left[0].IdentifierValue(), o.ca.cfg.explain("authorization", err))
	}
	return nil
}

// passing reports whether an error is probably temporary: the CA didn't answer, has an error of its own, or wants to be asked
// later.
func passing(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Silent || e.RetryAfter.After(time.Now()) || isProblem(err, acme.ProblemTypeRateLimited))
}

// giveUp deactivates authorizations whose validation doesn't end, since the CA would reuse them for a new order, and drops the
// order. It returns errImpasse.
func (o *order) giveUp(ctx context.Context, stuck []*proof) error {
	o.ca.cfg.Logger.Warn("a validation doesn't end; ordering anew", "ca", o.ca.cfg.Name, "order", o.state.Location,
		"hostname", stuck[0].IdentifierValue())
	for _, p := range stuck {
		if err := o.deactivate(ctx, p); err != nil {
			return err
		}
	}
	if err := o.drop(ctx); err != nil {
		return err
	}
	return errImpasse
}

// lookAt fetches the authorization of a proof, and sets the verdict if the validation failed. It returns whether the CA has
// decided, and when it wants to be asked again.
func (o *order) lookAt(ctx context.Context, p *proof) (decided bool, again time.Time, err error) {
	a, r, err := o.authorization(ctx, p.Location)
	failed := func(c acme.Challenge) bool { return c.URL == p.challenge.URL && c.Status == acme.StatusInvalid }
	switch {
	case err != nil:
		return false, r.retryAfter, about(p.IdentifierValue(), err)
	case a.Status == acme.StatusValid:
	case undecided(a) && !slices.ContainsFunc(a.Challenges, failed):
		return false, r.retryAfter, nil
	case undecided(a), a.Status == acme.StatusInvalid:
		p.refuse(reason(a))
	default: // deactivated, expired, revoked: no failed validation
		p.verdict = about(p.IdentifierValue(), o.ca.cfg.explain("authorization", reason(a)))
	}
	return true, r.retryAfter, nil
}

// reason returns why an authorization isn't valid: the error of its challenge.
func reason(a acme.Authorization) error {
	for _, c := range a.Challenges {
		if c.Error != nil {
			return &problemError{*c.Error}
		}
	}
	return &lapsedError{a.Status}
}

// lapsedError is the error for an authorization that can't become valid, for an unknown reason.
type lapsedError struct{ status string }

func (e *lapsedError) Error() string { return "the authorization is " + e.status }
