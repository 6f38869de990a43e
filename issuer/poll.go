package issuer

import (
	"context"
	"errors"
	"time"
)

// How the CA is asked for the state of an authorization or an order: soon, then less and less often, and never before
// the Retry-After that it gave (RFC 8555 sections 7.5.1 and 7.4).
const (
	pollFirst   = 10 * time.Millisecond
	pollFactor  = 2
	pollSlowest = 5 * time.Second
)

// errNoResult says that the CA has decided nothing within Config.Patience.
var errNoResult = errors.New("no result yet")

// poll calls look until it says done, fails, or the issuer's patience is over, which is errNoResult. Other orders talk to
// the CA between the looks. again is when the CA wants to be asked again, zero when it doesn't say.
func (o *order) poll(ctx context.Context, look func(ctx context.Context) (done bool, again time.Time, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.cfg.Patience, errNoResult)
	defer cancel()
	for delay := pollFirst; ; delay = min(delay*pollFactor, pollSlowest) {
		o.leave()
		if err := pause(ctx, delay); err != nil {
			return err
		}
		if err := o.enter(ctx); err != nil {
			return err
		}
		done, again, err := look(ctx)
		if done || err != nil {
			return err
		}
		if told := time.Until(again); told > delay {
			delay = min(told, o.cfg.Patience) / pollFactor // the loop multiplies it again
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
