package issuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// How long a CA that doesn't answer is left alone by orders that another CA can serve: twice as long each time.
const (
	restFirst = 5 * time.Second
	restMost  = 15 * time.Minute
)

// answers is what is known of whether a CA answers.
type answers struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
	last     error
}

// note learns from how a request ended. What the CA answered to one order says nothing about others, so that only
// silence and errors of its own (HTTP 5xx) count.
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

// knock returns the account, which takes the first requests to the CA. Orders go through one at a time, so that the first
// one finds out whether the CA answers, and those for which another CA stands by don't all wait for it in vain.
func (o *order) knock(ctx context.Context) (acme.Account, error) {
	select {
	case o.door <- struct{}{}:
	case <-ctx.Done():
		return acme.Account{}, ctx.Err()
	}
	defer func() { <-o.door }()
	if until, why := o.answers.rest(time.Now()); why != nil && o.req.Spare {
		return acme.Account{}, &Error{CA: o.cfg.Name, Step: "order",
			Err: fmt.Errorf("not asked before %s, since it didn't answer others: %w", until.Format(time.TimeOnly), why)}
	}
	account, err := o.acmeAccount(ctx)
	o.answers.note(err, time.Now())
	return account, err
}
