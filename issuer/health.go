package issuer

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// How long orders with a fallback CA avoid a CA that doesn't answer, and all orders avoid one that refuses the account. The
// time doubles with each failure in a row.
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

	accepted bool      // the CA accepted the last order, so that orders need not go one by one
	refusals int       // of the account, in a row
	refused  []refusal // those still in force
	suspect  *suspect
}

// refusal is a refusal that other orders would meet as well.
type refusal struct {
	domain string // of the orders that it meets, "" for all of the account
	limit  bool   // it is one of the CA's rate limits, of which some renewals are free
	until  time.Time
	why    *Error
}

// suspect is the last order that met a limit. The next order shows whether it is a limit of the account.
type suspect struct{ hostnames, domains []string }

// failed records the failure of a request. A refusal of one order says nothing about others, so only silence and errors of the
// CA itself (HTTP 5xx) count.
func (h *health) failed(err error, now time.Time) {
	var e *Error
	if !errors.As(err, &e) || !e.Silent {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.until) { // the request was sent before the first failure
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

// ordered records how the CA answered to an order, or to the request for the account before it. A refusal of the account
// affects every order, so one order finds out for all. These count as one: any refusal of the request for the account; a
// limit that the CA calls the account's; and a limit or a lack of rights that two orders in a row meet that have no domain
// in common. If they have one in common, new certificates for that domain are affected.
func (h *health) ordered(req Request, err error, now time.Time) {
	var e *Error
	var problem acme.Problem
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.accepted, h.refusals, h.refused, h.suspect = true, 0, nil, nil
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
		h.accepted = false
	default: // only this order is affected
		h.accepted = true
	}
}

// longestRefusal bounds a Retry-After, so that a wrong one doesn't stop orders permanently.
const longestRefusal = 7 * 24 * time.Hour

// refuseLocked records a refusal, until the CA's Retry-After, or for a time that grows where it gives none.
func (h *health) refuseLocked(domain string, limit bool, why *Error, now time.Time, most time.Duration) {
	until := why.RetryAfter
	if !until.After(now) {
		until = now.Add(min(refusalFirst<<min(h.refusals, 16), longestWait))
	}
	if latest := now.Add(most); until.After(latest) {
		until = latest
	}
	h.refusals++
	h.accepted = false
	h.refused = slices.DeleteFunc(h.refused, func(c refusal) bool { return c.domain == domain || !now.Before(c.until) })
	h.refused = append(h.refused, refusal{domain, limit, until, why})
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// refusal returns the refusal that the order would meet, as another order has; nil when none is known.
func (h *health) refusal(req Request, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.refused {
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

// unproven reports whether orders go one by one, since it isn't known whether the CA accepts them.
func (h *health) unproven() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.accepted
}
