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

// authorize fetches the order's authorizations and keeps those that aren't valid yet, each with the challenge to answer.
func (o *order) authorize(ctx context.Context) error {
	authorizations, err := o.authorizations(ctx)
	if err != nil {
		return err
	}
	return o.choosePending(ctx, authorizations)
}

// authorizations fetches the order's authorizations. There is one for each hostname at most, and each is for one of them:
// nothing is published for a name that wasn't ordered.
func (o *order) authorizations(ctx context.Context) ([]acme.Authorization, error) {
	urls := o.state.Authorizations
	if len(urls) > len(o.req.Hostnames) {
		return nil, o.spoiled(ctx, "order", &reply{}, fmt.Errorf("the CA wants %d authorizations for %d hostnames", len(urls), len(o.req.Hostnames)))
	}
	used := urls
	if o.state.Finalize != "" { // which some say when the order is ready
		used = append(slices.Clone(urls), o.state.Finalize)
	}
	for _, url := range used {
		if err := o.client.leads(url); err != nil {
			return nil, o.spoiled(ctx, "order", &reply{}, err)
		}
	}
	authorizations := make([]acme.Authorization, len(urls))
	err := each(ctx, len(authorizations), func(ctx context.Context, n int) (err error) {
		ctx, noted := observe(ctx)
		if authorizations[n], err = o.client.GetAuthorization(ctx, o.account, urls[n]); err != nil {
			return o.failed("authorization", noted, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := assign(authorizations, o.req.Hostnames); err != nil {
		return nil, o.spoiled(ctx, "authorization", &reply{}, err)
	}
	return authorizations, nil
}

// assign finds the hostname that each authorization is for, and writes it as we do. A hostname has one at most. That of
// *.x is for x, with a mark (RFC 8555 section 7.1.4) that some CAs forget.
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
	refused := &refusedError{} // while an earlier process was dead
	for _, a := range authorizations {
		if a.Status == acme.StatusInvalid {
			refused.hostnames, refused.reasons = append(refused.hostnames, a.IdentifierValue()), append(refused.reasons, reason(a))
		}
	}
	if n := len(refused.hostnames); n > 0 {
		err := o.orderFailed(ctx, "authorization", &reply{}, acme.Order{Status: acme.StatusInvalid}, refused)
		if n == 1 {
			return about(refused.hostnames[0], err)
		}
		return err
	}
	for _, a := range authorizations {
		if a.Status == acme.StatusValid {
			continue
		}
		if !undecided(a) {
			return about(a.IdentifierValue(), o.orderFailed(ctx, "authorization", &reply{}, acme.Order{Status: acme.StatusInvalid}, reason(a)))
		}
		c, proof := o.challengeOf(a)
		if c == nil {
			err := fmt.Errorf("the CA offers no %s challenge for %s, only %s", o.cfg.methods(" or "), a.IdentifierValue(), offered(a))
			if len(a.Challenges) == 0 {
				err = fmt.Errorf("the CA offers no challenge for %s", a.IdentifierValue())
			}
			return &Error{CA: o.cfg.Name, Step: "authorization", Err: err, Hint: "have the CA allow " + o.cfg.methods(" or ") + " for this account and hostname"}
		}
		record, err := o.record(proof, c.Token)
		if err == nil {
			err = o.client.leads(c.URL)
		}
		if err != nil {
			return about(a.IdentifierValue(), o.spoiled(ctx, "challenge", &reply{}, err))
		}
		o.pending, o.accepted, o.proofs = append(o.pending, a), append(o.accepted, *c), append(o.proofs, record)
	}
	return nil
}

// longestToken is more than any CA needs. They must have 22 characters (RFC 8555 section 11.3).
const longestToken = 512

// record makes what must be published for a challenge: of the hostname that was ordered, and of the token and the key of
// our account (RFC 8555 section 8.1). No CA can have another value published.
func (o *order) record(proof dnschallenge.Challenge, token string) (Record, error) {
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
	proof.KeyAuthorization = token + "." + thumbprint
	return Record{Name: proof.Name(), Value: proof.Value()}, nil
}

func offered(a acme.Authorization) string {
	var types []string
	for _, c := range a.Challenges {
		types = append(types, c.Type)
	}
	return strings.Join(types, ", ")
}

// challengeOf returns the challenge of an authorization that is answered, and what answers it: the one that the CA looks at
// already, else the first of the configured types that it offers; nil when there is none.
func (o *order) challengeOf(a acme.Authorization) (c *acme.Challenge, proof dnschallenge.Challenge) {
	possible, _ := dnschallenge.Possible(o.cfg.Challenges, a.Identifier.Value, o.account.Location)
	for _, p := range possible {
		n := slices.IndexFunc(a.Challenges, func(c acme.Challenge) bool { return c.Type == string(p.Type) })
		if n >= 0 && (c == nil || a.Challenges[n].Status == acme.StatusProcessing) {
			c, proof = &a.Challenges[n], p
		}
	}
	return c, proof
}

// undecided reports whether the CA has still to look, or looks. Some say so of an authorization in the word that is meant for
// challenges (RFC 8555 section 7.1.6).
func undecided(a acme.Authorization) bool {
	return a.Status == acme.StatusPending || a.Status == acme.StatusProcessing
}

// records returns what must be published for the challenges that are still to be met.
func (o *order) records() []Record {
	var records []Record
	for _, r := range o.proofs {
		if !slices.Contains(records, r) { // a reused authorization may serve twice
			records = append(records, r)
		}
	}
	return records
}

// validate accepts all challenges and waits until every authorization is valid.
//
// What one of them fails by ends none of the others: the CA looks for the records of each, and counts each that it doesn't
// find. So the records stay until it has decided about all that it was told to look at, and each that failed is named.
func (o *order) validate(ctx context.Context) error {
	if len(o.pending) == 0 {
		return nil
	}
	if err := o.enter(ctx); err != nil {
		return err
	}
	verdicts := make([]error, len(o.pending))
	o.busy = make([]bool, len(o.pending))
	_ = each(ctx, len(o.pending), func(ctx context.Context, n int) error {
		o.busy[n], verdicts[n] = o.accept(ctx, n)
		return nil
	})
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := o.awaitValidation(ctx, verdicts); err != nil {
		return err
	}
	if err := o.joinVerdicts(verdicts); err != nil {
		var refused *refusedError
		var lapsed *lapsedError
		if errors.As(err, &refused) && !refused.open || errors.As(err, &lapsed) { // the order can only become invalid now
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
	hostnames []string
	reasons   []error // beside each of hostnames
	open      bool    // the CA looks again when the challenges are accepted again; the order can still be finished
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

// FailedValidation reports whether err says that the CA looked for the records and wasn't convinced, which CAs count.
func FailedValidation(err error) bool { return len(FailedHostnames(err)) > 0 }

// FailedHostnames returns the hostnames whose records the CA looked for and wasn't convinced by. CAs count each of them.
func FailedHostnames(err error) []string {
	var refused *refusedError
	if errors.As(err, &refused) {
		return refused.hostnames
	}
	return nil
}

// sightHint is the cure when the CA doesn't find what our servers had: "" when it may be something else.
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

// joinVerdicts makes one error of what became of the authorizations, nil when all are valid: of all that the CA refused,
// else the first.
func (o *order) joinVerdicts(verdicts []error) error {
	all := &refusedError{open: true}
	var first error
	for n, err := range verdicts {
		var refused *refusedError
		switch {
		case errors.As(err, &refused):
			all.hostnames = append(all.hostnames, o.pending[n].IdentifierValue())
			all.reasons = append(all.reasons, refused.reasons...)
			all.open = all.open && refused.open
		case err != nil && first == nil:
			first = err
		}
	}
	if len(all.hostnames) == 0 {
		return first
	}
	err := o.explain("challenge", all)
	if e, ok := errors.AsType[*Error](err); ok && e.Hint == "" {
		e.Hint = o.sightHint(all.reasons[0])
	}
	if len(all.hostnames) == 1 {
		return about(all.hostnames[0], err)
	}
	return err
}

// accept tells the CA that the records of the nth pending authorization are there. It reports whether the CA says that it
// is looking already, as after an earlier attempt, or when the reply to an earlier request of the library was lost.
func (o *order) accept(ctx context.Context, n int) (busy bool, err error) {
	a, c := o.pending[n], o.accepted[n]
	if c.Status != acme.StatusPending { // a resumed order may have accepted it before
		return false, nil
	}
	noting, noted := observe(ctx)
	answer, err := o.client.InitiateChallenge(noting, o.account, c)
	switch {
	case noted.status == http.StatusConflict || isProblem(err, acme.ProblemTypeNamespace+"conflict"):
		return true, nil // the challenge looks as if nobody had accepted it, and is being validated
	case err != nil && o.wasAccepted(ctx, a, c):
		return false, nil
	case err != nil:
		return false, about(a.IdentifierValue(), o.failed("challenge", noted, err))
	case answer.Status == acme.StatusPending && answer.Error != nil: // as step-ca does
		return false, &refusedError{hostnames: []string{a.IdentifierValue()}, reasons: []error{&problemError{*answer.Error}}, open: true}
	}
	return false, nil
}

// Times of validations.
const (
	verdictsWithin = 30 * time.Second // the other verdicts, once the CA has refused the first hostname
	impasseAge     = time.Hour        // of an order whose validation never ends, though the CA was asked for long
)

// errImpasse says that a validation didn't end, and that the order was given up for another.
var errImpasse = errors.New("the CA's validation doesn't end")

// awaitValidation waits for the verdicts about the pending authorizations that have none yet: nil for one that has become
// valid. An error ends all of them.
func (o *order) awaitValidation(ctx context.Context, verdicts []error) error {
	var left []int
	for n := range o.pending {
		if verdicts[n] == nil {
			left = append(left, n)
		}
	}
	if len(left) == 0 {
		return nil
	}
	var again, refused, troubled time.Time // when the CA wants to be asked again, when it refused the first, and since when it can't be asked
	var trouble error
	grace := min(verdictsWithin, o.cfg.Patience)
	begin := time.Now()
	err := o.poll(ctx, func(ctx context.Context) (bool, time.Time, error) {
		decided := make([]bool, len(left))
		wishes, troubles := make([]time.Time, len(left)), make([]error, len(left))
		err := each(ctx, len(left), func(ctx context.Context, n int) (err error) {
			ctx, noted := observe(ctx)
			decided[n], verdicts[left[n]], err = o.lookAt(ctx, noted, left[n])
			wishes[n] = noted.retryAfter
			if ctx.Err() == nil && passing(err) {
				troubles[n], err = err, nil
			}
			return err
		})
		if err != nil {
			return false, time.Time{}, err
		}
		// While nobody can be asked the CA looks all the same, and counts it when the records are gone.
		if trouble = cmp.Or(troubles...); trouble == nil {
			troubled = time.Time{}
		} else if troubled.IsZero() {
			troubled = time.Now()
		}
		if end := troubled.Add(grace); trouble != nil && slices.MaxFunc(wishes, time.Time.Compare).After(end) {
			o.leave()
			if err := pause(ctx, time.Until(end)); err != nil {
				return false, time.Time{}, err
			}
		}
		if trouble != nil && time.Since(troubled) >= grace {
			return false, time.Time{}, trouble
		}
		var open []int
		for n, index := range left {
			switch {
			case !decided[n] && o.busy[index] && time.Since(begin) >= o.cfg.Impasse:
				return false, time.Time{}, errImpasse
			case !decided[n]:
				open = append(open, index)
			case verdicts[index] != nil && refused.IsZero():
				refused = time.Now()
			}
		}
		again = slices.MaxFunc(wishes, time.Time.Compare)
		left = open
		done := len(left) == 0 || !refused.IsZero() && time.Since(refused) >= verdictsWithin
		return done, again, nil
	})
	switch {
	case errors.Is(err, errNoResult) && trouble != nil:
		return trouble
	case errors.Is(err, errNoResult) && time.Since(o.open.Created) >= impasseAge, errors.Is(err, errImpasse):
		return o.giveUp(ctx, left)
	case errors.Is(err, errNoResult):
		return &WorkingError{CA: o.cfg.Name, Hostname: o.pending[left[0]].IdentifierValue(), Order: o.state.Location, Again: again}
	case err != nil:
		return about(o.pending[left[0]].IdentifierValue(), o.explain("authorization", err))
	}
	return nil
}

// passing reports whether a CA that couldn't be asked may answer soon: it was silent, has trouble of its own, or wants to be
// asked later.
func passing(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Silent || e.RetryAfter.After(time.Now()) || isProblem(err, acme.ProblemTypeRateLimited))
}

// giveUp deactivates authorizations whose validation doesn't end, since the CA would answer a new order with them, and
// drops the order. It returns errImpasse.
func (o *order) giveUp(ctx context.Context, stuck []int) error {
	o.cfg.Logger.Warn("a validation doesn't end; ordering anew", "ca", o.cfg.Name, "order", o.state.Location,
		"hostname", o.pending[stuck[0]].IdentifierValue())
	for _, n := range stuck {
		noting, noted := observe(ctx)
		if _, err := o.client.DeactivateAuthorization(noting, o.account, o.pending[n].Location); err != nil {
			return about(o.pending[n].IdentifierValue(), o.failed("authorization", noted, err))
		}
	}
	if err := o.drop(ctx); err != nil {
		return err
	}
	return errImpasse
}

// lookAt asks for the nth pending authorization, under a context that notes the reply. It reports whether the CA has
// decided, and why it refuses.
func (o *order) lookAt(ctx context.Context, noted *reply, n int) (decided bool, verdict, err error) {
	was := o.pending[n]
	a, err := o.client.GetAuthorization(ctx, o.account, was.Location)
	switch {
	case err != nil:
		return false, nil, about(was.IdentifierValue(), o.failed("authorization", noted, err))
	case a.Status == acme.StatusValid:
		return true, nil, nil
	case undecided(a):
		if !slices.ContainsFunc(a.Challenges, func(c acme.Challenge) bool { return c.URL == o.accepted[n].URL && c.Status == acme.StatusInvalid }) {
			return false, nil, nil
		}
	case a.Status != acme.StatusInvalid: // deactivated, expired, revoked: nothing that a record is to blame for, or that is counted
		return true, about(was.IdentifierValue(), o.explain("authorization", reason(a))), nil
	}
	return true, &refusedError{hostnames: []string{was.IdentifierValue()}, reasons: []error{reason(a)}}, nil
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
	return &lapsedError{a.Status}
}

// lapsedError is an authorization that is neither valid nor can become so, for a reason that the CA doesn't say.
type lapsedError struct{ status string }

func (e *lapsedError) Error() string { return "the authorization is " + e.status }
