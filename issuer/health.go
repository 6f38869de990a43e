package issuer

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// How long a CA that doesn't answer is left alone by orders that another CA can serve, and one that refuses the account by
// all orders: twice as long each time.
const (
	silenceFirst = 5 * time.Second
	refusalFirst = time.Minute
	longestWait  = 15 * time.Minute
)

// health tracks whether the CA has been responding, and whether it takes orders of the account.
type health struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
	last     error

	served   bool      // the last order was taken, so that orders need not go one by one
	refusals int       // of the account, in a row
	closed   []refusal // to whom the CA takes no orders
	suspect  *suspect
}

// refusal is a refusal that would meet other orders as well.
type refusal struct {
	domain string // of the orders that it meets, "" for all of the account
	limit  bool   // it is one of the CA's rate limits, of which some renewals are free
	until  time.Time
	why    *Error
}

// suspect is the last order that met a limit. Whether that was the account's, the next order tells.
type suspect struct{ hostnames, domains []string }

// failed learns from how a request ended. What the CA answered to one order says nothing about others, so that only
// silence and errors of its own (HTTP 5xx) count here.
func (h *health) failed(err error, now time.Time) {
	var e *Error
	if !errors.As(err, &e) || !e.Silent {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.until) { // it was on its way when another found out
		return
	}
	wait := longestWait
	if doubled := silenceFirst << min(h.failures, 16); doubled < longestWait {
		wait = doubled
	}
	h.failures, h.until, h.last = h.failures+1, now.Add(wait), e.Err
}

// succeeded forgets the failures: the CA has issued.
func (h *health) succeeded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures, h.until, h.last = 0, time.Time{}, nil
}

// silentUntil returns until when the CA isn't asked by orders that another CA can serve, and why.
func (h *health) silentUntil(now time.Time) (until time.Time, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !now.Before(h.until) {
		return time.Time{}, nil
	}
	return h.until, h.last
}

// ordered learns from how the CA received an order, or the account before it. A refusal that concerns the account would
// meet every order, so it is found out by one of them: whatever the CA says when it is asked for the account; a limit that
// it calls one of the account; and a limit, or a refusal of rights, that two orders meet in a row that have nothing in
// common. When they have a domain in common, it meets new certificates for that domain.
func (h *health) ordered(req Request, err error, now time.Time) {
	var e *Error
	var problem acme.Problem
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.served, h.refusals, h.closed, h.suspect = true, 0, nil, nil
		return
	}
	if !errors.As(err, &e) || !e.limit && !errors.As(err, &problem) || e.Silent {
		return
	}
	limit := e.limit || problem.Type == acme.ProblemTypeRateLimited
	switch {
	case e.limit, e.Step == "account", problem.Type == acme.ProblemTypeUserActionRequired, limit && namesAccount(problem):
		h.refuseLocked("", limit, e, now, longestRefusal)
	case limit && e.RetryAfter.After(now), problem.Type == acme.ProblemTypeUnauthorized:
		before := h.suspect
		h.suspect = &suspect{req.Hostnames, req.Domains}
		switch {
		case before == nil, slices.Equal(before.hostnames, req.Hostnames):
		case !overlap(before.domains, req.Domains):
			h.refuseLocked("", limit, e, now, longestWait)
		case limit:
			for _, domain := range req.Domains {
				if slices.Contains(before.domains, domain) {
					h.refuseLocked(domain, limit, e, now, longestWait)
				}
			}
		}
		h.served = false
	default: // that was about this order alone
		h.served = true
	}
}

// longestRefusal bounds what a Retry-After may ask for, so that a wrong one doesn't end orders for good.
const longestRefusal = 7 * 24 * time.Hour

// refuseLocked notes a refusal, until the CA wants to be asked again, or for a while that grows where it doesn't say.
func (h *health) refuseLocked(domain string, limit bool, why *Error, now time.Time, most time.Duration) {
	until := why.RetryAfter
	if !until.After(now) {
		until = now.Add(min(refusalFirst<<min(h.refusals, 16), longestWait))
	}
	if latest := now.Add(most); until.After(latest) {
		until = latest
	}
	h.refusals++
	h.served = false
	h.closed = slices.DeleteFunc(h.closed, func(c refusal) bool { return c.domain == domain || !now.Before(c.until) })
	h.closed = append(h.closed, refusal{domain, limit, until, why})
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// refusal returns what the CA would answer to an order, as it answered to another; nil when that isn't known.
func (h *health) refusal(req Request, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.closed {
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

// unproven reports whether orders go one by one, since it isn't known whether the CA takes them.
func (h *health) unproven() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.served
}
