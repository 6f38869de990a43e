package budget

import (
	"fmt"
	"time"

	"autocertd/scheduler"
)

// leastLooks is how often a schedule must look at a certificate between its renewal and its end: the first look may find a
// bad day.
const leastLooks = 3

// CheckSchedule refuses a schedule that looks too seldom for certificates of a lifetime.
func CheckSchedule(s scheduler.Schedule, lifetime time.Duration, from time.Time) error {
	left := lifetime - renewal(lifetime)
	if gap := longestGap(s.Next, from, left/leastLooks); gap*leastLooks > left {
		return fmt.Errorf("it looks too seldom: up to %s pass between two looks, and a certificate that lives %s is renewed %s before its end, "+
			"into which %d looks must fit: at most %s apart", hours(gap), hours(lifetime), hours(left), leastLooks, hours(left/leastLooks))
	}
	return nil
}

// CheckWindow refuses a maintenance window that opens too seldom for certificates of a lifetime: the wait for it, and for
// the schedule to look then, must end before the emergency. One that an early emergency switches off is fine.
func CheckWindow(w scheduler.Window, s scheduler.Schedule, emergency, lifetime time.Duration, from time.Time) error {
	if emergency <= 0 {
		emergency = lifetime / 6
	}
	due := renewal(lifetime)
	room := lifetime - emergency - due
	if room <= 0 || w.String() == "" {
		return nil
	}
	closed := longestGap(w.Next, from, room)
	if closed < time.Second { // it is always open, and looks that are rare are the schedule's fault
		return nil
	}
	gap := longestGap(s.Next, from, room)
	if closed+gap > room {
		return fmt.Errorf("it opens too seldom: it is closed for up to %s and looks are up to %s apart, and a certificate that lives %s is due after %s "+
			"and doesn't wait for it any more with %s left: %s later", hours(closed), hours(gap), hours(lifetime), hours(due), hours(emergency), hours(room))
	}
	return nil
}

// CheckMeeting refuses a maintenance window into which no look of the schedule falls: no renewal would ever start in it.
func CheckMeeting(w scheduler.Window, s scheduler.Schedule, from time.Time) error {
	for t := from; t.Before(from.Add(horizon)); {
		look := s.Next(t)
		if look.IsZero() {
			break
		}
		open := w.Next(look)
		if open.Equal(look) {
			return nil
		}
		t = open.Add(-time.Nanosecond) // a look at the very opening counts
	}
	return fmt.Errorf("no look of the schedule is sure to fall into it, and renewals start at looks: "+
		"it is open at %s, and the next look is at %s", w.Next(from).Format(minutes), s.Next(w.Next(from)).Format(minutes))
}

const minutes = "2006-01-02 15:04 MST"

// renewal is how long after its beginning a certificate is renewed.
func renewal(lifetime time.Duration) time.Duration {
	begin := time.Unix(0, 0)
	at, _ := scheduler.RenewAt(scheduler.Facts{NotBefore: begin, NotAfter: begin.Add(lifetime)})
	return at.Sub(begin)
}

// How a gap is looked for: close by in small steps, then for more than a year in large ones.
const (
	fineSteps  = 2000
	coarseStep = time.Hour
	horizon    = 400 * 24 * time.Hour
)

// longestGap returns the longest time to the next of what next returns. It finds every gap that is long beside around and
// comes often, and those of more than an hour that come at least once in a year.
func longestGap(next func(time.Time) time.Time, from time.Time, around time.Duration) (longest time.Duration) {
	look := func(step, horizon time.Duration) {
		for t := from; t.Before(from.Add(horizon)); t = t.Add(step) {
			n := next(t)
			if n.IsZero() {
				longest = max(longest, horizon)
				return
			}
			if n.Sub(t)+step > longest {
				longest = max(longest, n.Sub(gapBegin(next, t, n, step)))
			}
			if n.After(t.Add(step)) {
				t = n.Add(-step) // the rest of the gap is known
			}
		}
	}
	fine := max(around/20, time.Second)
	look(fine, min(fineSteps*fine, horizon))
	if fineSteps*fine < horizon {
		look(coarseStep, horizon)
	}
	return longest
}

// gapBegin returns when the gap began that holds t and ends at n, to the second.
func gapBegin(next func(time.Time) time.Time, t, n time.Time, step time.Duration) time.Time {
	before := t.Add(-step)
	for next(before).Equal(n) {
		step *= 2
		before = before.Add(-step)
	}
	for t.Sub(before) > time.Second {
		middle := before.Add(t.Sub(before) / 2)
		if next(middle).Equal(n) {
			t = middle
		} else {
			before = middle
		}
	}
	return t.Truncate(time.Second)
}

// hours writes a duration without the zeros.
func hours(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d >= 48*time.Hour && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0 && d > time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
