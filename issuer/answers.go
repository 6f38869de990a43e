package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// How long a CA that doesn't answer is left alone by orders that another CA can serve, and one that refuses the account by
// all orders: twice as long each time.
const (
	restFirst    = 5 * time.Second
	refusalFirst = time.Minute
	restMost     = 15 * time.Minute
)

// answers is what is known of whether a CA answers, and whether it takes orders of the account.
type answers struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
	last     error

	served   bool      // the last order was taken, so that orders need not go one by one
	refusals int       // of the account, in a row
	closed   []closure // to whom the CA takes no orders
	suspect  *suspect
}

// closure is a refusal that would meet other orders as well.
type closure struct {
	domain string // of the orders that it meets, "" for all of the account
	limit  bool   // it is one of the CA's rate limits, of which some renewals are free
	until  time.Time
	why    *Error
}

// suspect is the last order that met a limit. Whether that was the account's, the next order tells.
type suspect struct{ hostnames, domains []string }

// note learns from how a request ended. What the CA answered to one order says nothing about others, so that only
// silence and errors of its own (HTTP 5xx) count here.
func (a *answers) note(err error, now time.Time) {
	var e *Error
	if !errors.As(err, &e) || !e.Silent {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(a.until) { // it was on its way when another found out
		return
	}
	wait := restMost
	if doubled := restFirst << min(a.failures, 16); doubled < restMost {
		wait = doubled
	}
	a.failures, a.until, a.last = a.failures+1, now.Add(wait), e.Err
}

// well forgets what was noted: the CA has issued.
func (a *answers) well() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures, a.until, a.last = 0, time.Time{}, nil
}

// rest returns until when the CA is left alone, and why.
func (a *answers) rest(now time.Time) (until time.Time, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !now.Before(a.until) {
		return time.Time{}, nil
	}
	return a.until, a.last
}

// ordered learns from how the CA received an order, or the account before it. A refusal that concerns the account would
// meet every order, so it is found out by one of them: whatever the CA says when it is asked for the account; a limit that
// it calls one of the account; and a limit, or a refusal of rights, that two orders meet in a row that have nothing in
// common. When they have a domain in common, it meets new certificates for that domain.
func (a *answers) ordered(req Request, err error, now time.Time) {
	var e *Error
	var problem acme.Problem
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.served, a.refusals, a.closed, a.suspect = true, 0, nil, nil
		return
	}
	if !errors.As(err, &e) || !e.limit && !errors.As(err, &problem) || e.Silent {
		return
	}
	limit := e.limit || problem.Type == acme.ProblemTypeRateLimited
	switch {
	case e.limit, e.Step == "account", problem.Type == acme.ProblemTypeUserActionRequired, limit && namesAccount(problem):
		a.close("", limit, e, now, longestClosure)
	case limit && e.RetryAfter.After(now), problem.Type == acme.ProblemTypeUnauthorized:
		before := a.suspect
		a.suspect = &suspect{req.Hostnames, req.Domains}
		switch {
		case before == nil, slices.Equal(before.hostnames, req.Hostnames):
		case !overlap(before.domains, req.Domains):
			a.close("", limit, e, now, restMost)
		case limit:
			for _, domain := range req.Domains {
				if slices.Contains(before.domains, domain) {
					a.close(domain, limit, e, now, restMost)
				}
			}
		}
		a.served = false
	default: // that was about this order alone
		a.served = true
	}
}

// longestClosure bounds what a Retry-After may ask for, so that a wrong one doesn't end orders for good.
const longestClosure = 7 * 24 * time.Hour

// close notes a refusal, until the CA wants to be asked again, or for a while that grows where it doesn't say. The lock is
// held.
func (a *answers) close(domain string, limit bool, why *Error, now time.Time, most time.Duration) {
	until := why.RetryAfter
	if !until.After(now) {
		until = now.Add(min(refusalFirst<<min(a.refusals, 16), restMost))
	}
	if latest := now.Add(most); until.After(latest) {
		until = latest
	}
	a.refusals++
	a.served = false
	a.closed = slices.DeleteFunc(a.closed, func(c closure) bool { return c.domain == domain || !now.Before(c.until) })
	a.closed = append(a.closed, closure{domain, limit, until, why})
}

// namesAccount reports whether a CA says that a limit is the account's. Limits have no types of their own (RFC 8555
// section 6.6), so the words are all that tells; where they don't, a second order has to find out.
func namesAccount(p acme.Problem) bool { return strings.Contains(strings.ToLower(p.Detail), "account") }

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// refusal returns what the CA would answer to an order, as it answered to another; nil when that isn't known.
func (a *answers) refusal(req Request, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.closed {
		switch {
		case !now.Before(c.until), c.limit && req.Exempt:
		case c.domain != "" && (req.Replaces != nil || !slices.Contains(req.Domains, c.domain)):
		default:
			e := *c.why
			e.Hostname, e.RetryAfter, e.Silent = "", c.until, false
			return &e
		}
	}
	return nil
}

// inTurn reports whether orders go one by one, since it isn't known whether the CA takes them.
func (a *answers) inTurn() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.served
}

// knock returns the account, which takes the first requests to the CA. Orders go through one at a time, so that the first
// one finds out whether the CA answers and takes the account, and the others don't all wait for it in vain. While that
// isn't known, the door stays shut behind the order until opened is called, which everybody who knocks does.
func (o *order) knock(ctx context.Context) (account acme.Account, opened func(), err error) {
	select {
	case o.door <- struct{}{}:
	case <-ctx.Done():
		return acme.Account{}, func() {}, ctx.Err()
	}
	opened = sync.OnceFunc(func() { <-o.door })
	if err := o.answers.refusal(o.req, time.Now()); err != nil {
		return acme.Account{}, opened, err
	}
	if until, why := o.answers.rest(time.Now()); why != nil && o.req.Spare {
		return acme.Account{}, opened, &Error{CA: o.cfg.Name, Step: "order", Silent: true,
			Err: fmt.Errorf("not asked before %s, since it didn't answer others: %w", until.Format(time.TimeOnly), why)}
	}
	account, err = o.acmeAccount(ctx)
	o.answers.note(err, time.Now())
	if err != nil {
		o.answers.ordered(o.req, err, time.Now())
	} else if !o.answers.inTurn() {
		opened()
	}
	return account, opened, err
}
