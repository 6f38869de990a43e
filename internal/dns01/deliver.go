package dns01

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libdns/libdns"
)

// retryDelays are the waits before a group that failed for a reason of the moment is sent again.
var retryDelays = [...]time.Duration{200 * time.Millisecond, time.Second}

// deliver sends a group by do and returns each record's result and the number of calls. An update is atomic: one refused
// record refuses all. So a culprit is searched in a refused group by halves, until it stands alone; what the search left
// out goes as one group again, and for one culprit that is the last call. That takes at most log2(n)+2 further calls for
// each culprit. Reasons of the moment are tried again as they are, and reasons that can't be one record's fault end it.
func deliver(ctx context.Context, records []libdns.Record, do func([]libdns.Record) error) (results []error, calls int) {
	d := delivery{ctx: ctx, records: records, results: make([]error, len(records)), do: do}
	rest := make([]int, len(records))
	for i := range rest {
		rest[i] = i
	}
	for len(rest) > 0 {
		if err := d.send(rest); err != nil {
			rest = d.isolate(rest, err)
		} else {
			rest = nil
		}
	}
	return d.results, d.calls
}

// delivery is a group on its way. Records go by their index.
type delivery struct {
	ctx     context.Context
	records []libdns.Record
	results []error
	do      func([]libdns.Record) error
	calls   int
}

// isolate finds a culprit in a group that was refused with err, and tells it so. It returns the records whose fate is
// still open.
func (d *delivery) isolate(group []int, err error) (open []int) {
	for len(group) > 1 && d.divisible(err) {
		first, second := group[:len(group)/2], group[len(group)/2:]
		if refusal := d.send(first); refusal != nil {
			group, err = first, refusal
			open = append(open, second...)
			continue
		}
		group = second // the first half is through, so it is here
		if len(group) == 1 {
			if err = d.send(group); err == nil { // its own words
				return open
			}
		}
	}
	if !d.divisible(err) { // what is open would fare no better
		group, open = slices.Concat(group, open), nil
	}
	for _, i := range group {
		d.results[i] = err
	}
	return open
}

// divisible reports whether a part of what failed may succeed.
func (d *delivery) divisible(err error) bool {
	return !retryable(err) && !whole(err) && d.ctx.Err() == nil
}

// send sends some of the records, again while they fail for a reason of the moment.
func (d *delivery) send(group []int) error {
	part := make([]libdns.Record, len(group))
	for i, n := range group {
		part[i] = d.records[n]
	}
	return try(d.ctx, func() error {
		d.calls++
		return d.do(part)
	})
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
