package issuer

import (
	"context"
	"fmt"
	"time"
)

// How the CA is asked for the state of an authorization or an order: soon, then less and less often, and never before
// the Retry-After that it gave (RFC 8555 sections 7.5.1 and 7.4).
const (
	pollFirst   = 10 * time.Millisecond
	pollFactor  = 2
	pollSlowest = 5 * time.Second
	pollTimeout = 5 * time.Minute
)

// poll calls look until it says done, fails, or five minutes are over. what is for the error; the reply is the last.
func poll(ctx context.Context, what string, look func(ctx context.Context) (done bool, err error)) (noted *reply, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pollTimeout, fmt.Errorf("%s: no result from the CA after %s", what, pollTimeout))
	defer cancel()
	noted = new(reply)
	for delay := pollFirst; ; delay = min(delay*pollFactor, pollSlowest) {
		wait := time.NewTimer(delay)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return noted, context.Cause(ctx)
		}
		var noting context.Context
		noting, noted = observe(ctx)
		done, err := look(noting)
		if done || err != nil {
			return noted, err
		}
		if told := time.Until(noted.retryAfter); told > delay {
			delay = min(told, pollTimeout) / pollFactor // the loop multiplies it again
		}
	}
}
