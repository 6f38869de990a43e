package dns01

import (
	"context"
	"errors"
	"time"

	"github.com/libdns/libdns"
)

// retryDelays are the waits before a group that failed for a reason of the moment is sent again.
var retryDelays = [...]time.Duration{200 * time.Millisecond, time.Second}

// deliver sends a group by do and returns each record's result and the number of calls. An update is atomic: one refused
// record refuses all. So a refused group is halved until the culprit stands alone and the others are through, which takes
// at most 2·log2(n) further calls for one culprit. Reasons of the moment are tried again as they are, and reasons that
// can't be one record's fault end it.
func deliver(ctx context.Context, records []libdns.Record, do func([]libdns.Record) error) (results []error, calls int) {
	results = make([]error, len(records))
	var send func(from, to int)
	send = func(from, to int) {
		err := try(ctx, func() error {
			calls++
			return do(records[from:to])
		})
		if err == nil {
			return
		}
		if to-from > 1 && !retryable(err) && !whole(err) && ctx.Err() == nil {
			middle := (from + to) / 2
			send(from, middle)
			send(middle, to)
			return
		}
		for i := from; i < to; i++ {
			results[i] = err
		}
	}
	send(0, len(records))
	return results, calls
}

// try calls f again, a few times, while it fails for a reason of the moment.
func try(ctx context.Context, f func() error) error {
	for _, delay := range retryDelays {
		err := f()
		if err == nil || !retryable(err) {
			return err
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
	return f()
}

// retryable reports whether a provider says that the same call may succeed later.
func retryable(err error) bool {
	var r interface{ Retryable() bool }
	return errors.As(err, &r) && r.Retryable()
}

// whole reports whether a provider says that no single record is to blame.
func whole(err error) bool {
	var w interface{ Whole() bool }
	return errors.As(err, &w) && w.Whole()
}
