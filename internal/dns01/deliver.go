package dns01

import (
	"context"
	"errors"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/zones"
)

// retryDelays are the waits before a group that failed for a reason of the moment is sent again.
var retryDelays = [...]time.Duration{200 * time.Millisecond, time.Second}

// culpritsAtMost bounds how many records may fail alone, none having gone through, until an answer that needn't be a record's
// fault counts as the fault of all.
const culpritsAtMost = 4

// deliver sends a group by do and returns each record's result and the number of calls. An update is atomic: one refused
// record refuses all. So a culprit is searched in a failed group by halves, until it stands alone; what the search left
// out goes as one group again, and for one culprit that is the last call. That takes at most log2(n)+2 further calls for
// each culprit. Reasons of the moment are tried again as they are before that, and what isn't divisible ends it.
func deliver(ctx context.Context, records []libdns.Record, divisible func(error) bool, do func([]libdns.Record) error) (results []error, calls int) {
	d := delivery{
		records:   records,
		results:   make([]error, len(records)),
		unsure:    make([]bool, len(records)),
		divisible: divisible,
		do:        do,
	}
	rest := make([]int, len(records))
	for i := range rest {
		rest[i] = i
	}
	for len(rest) > 0 {
		if err := d.send(ctx, rest); err != nil {
			rest = d.isolate(ctx, rest, err)
		} else {
			rest = nil
		}
	}
	for i, err := range d.results {
		if err != nil && d.unsure[i] && !uncertain(err) {
			d.results[i] = &unsureError{err}
		}
	}
	return d.results, d.calls
}

// unsureError is a failure after one that may have had an effect.
type unsureError struct{ error }

// Uncertain reports that.
func (e *unsureError) Uncertain() bool { return true }
func (e *unsureError) Unwrap() error   { return e.error }

// byItsRecords reports whether a part of additions that failed may succeed. A server that answers SERVFAIL may mean one
// name, such as one that is full; one that doesn't answer means all.
func byItsRecords(err error) bool { return !whole(err) && !zones.Silent(err) }

// byAnyAnswer is byItsRecords for removals: whatever was answered, a record that was never there must not keep real ones in
// the zone.
func byAnyAnswer(err error) bool { return !zones.Silent(err) }

// delivery is a group on its way. Records go by their index.
type delivery struct {
	records   []libdns.Record
	results   []error
	unsure    []bool // records that an earlier call may have written
	divisible func(error) bool
	do        func([]libdns.Record) error
	calls     int
	sends     int
	first     error // of the whole group
	through   bool  // some records have succeeded
	alone     int   // records that failed alone, for a reason that needn't be theirs
}

// isolate finds a culprit in a group that failed with err, and gives it the error. It returns the records whose results
// are still open.
func (d *delivery) isolate(ctx context.Context, group []int, err error) (open []int) {
	if d.first == nil {
		d.first = err
	}
	for len(group) > 1 && d.divides(ctx, err) {
		first, second := group[:len(group)/2], group[len(group)/2:]
		if refusal := d.send(ctx, first); refusal != nil {
			group, err = first, refusal
			open = append(open, second...)
			continue
		}
		group = second // the first half is through, so it is here
		if len(group) == 1 {
			if err = d.send(ctx, group); err == nil { // its own error
				return open
			}
		}
	}
	for _, i := range group {
		d.results[i] = err
	}
	switch {
	case !d.divides(ctx, err): // what is open would fare no better
	case !retryable(err) && !whole(err):
		return open
	default:
		if d.alone++; !d.hopeless() {
			return open
		}
		if open = d.sample(ctx, open); d.through {
			return open
		}
		err = d.first
	}
	for _, i := range open {
		d.results[i] = err
	}
	return nil
}

// hopeless reports whether so many failed alone that the fault is probably that of all.
func (d *delivery) hopeless() bool { return !d.through && d.alone >= culpritsAtMost }

// sample sends some of the records alone, from all over the group, until one is through. It returns those that it left out.
func (d *delivery) sample(ctx context.Context, group []int) (rest []int) {
	step := max(1, len(group)/culpritsAtMost)
	for n, i := range group {
		if d.through || n%step != step-1 {
			rest = append(rest, i)
			continue
		}
		d.results[i] = d.send(ctx, []int{i})
	}
	return rest
}

// divides reports whether a part of what failed may succeed.
func (d *delivery) divides(ctx context.Context, err error) bool {
	return d.divisible(err) && ctx.Err() == nil
}

// send sends some of the records. The whole group is sent again while it fails for a reason of the moment; its parts
// aren't, since that reason has had its time.
func (d *delivery) send(ctx context.Context, group []int) error {
	part := make([]libdns.Record, len(group))
	for i, n := range group {
		part[i] = d.records[n]
	}
	once := func() error {
		d.calls++
		err := d.do(part)
		for _, n := range group {
			d.unsure[n] = err != nil && (d.unsure[n] || uncertain(err))
		}
		return err
	}
	var err error
	if d.sends++; d.sends == 1 {
		err = try(ctx, once)
	} else {
		err = once()
	}
	d.through = d.through || err == nil
	return err
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

// uncertain reports whether a call that failed may have taken effect, or may yet. A provider that says so itself knows
// best: nothing was sent to a server that can't be reached, and a refusal without a signature proves nothing.
func uncertain(err error) bool {
	var u interface{ Uncertain() bool }
	if errors.As(err, &u) {
		return u.Uncertain()
	}
	return retryable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
