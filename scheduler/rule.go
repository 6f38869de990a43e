package scheduler

import "time"

// Facts are the arguments of the renewal rule.
type Facts struct {
	// NotBefore and NotAfter bound the lifetime of the certificate; both are zero when there is none yet.
	NotBefore, NotAfter time.Time

	// Suggested is the moment chosen inside the CA's suggested renewal window (RFC 9773, section 4.2), and
	// Chosen is when that was. Both are zero when the CA suggests nothing, and both are kept for as long as the
	// CA's window stays the same. A moment that was past already when it was chosen means: renew at once.
	// Without Chosen such a moment can't be distinguished from one that passed during the wait for Window.
	Suggested, Chosen time.Time

	// Now is the time of the question. A moment that has passed by then outside of Window was missed, and moves to the next
	// opening of Window. The zero time asks for the plan.
	Now time.Time

	// Earliest is a moment before which there is no renewal, whatever else speaks for one; zero is none.
	Earliest time.Time

	// Window is the administrator's maintenance window.
	Window Window

	// Schedule has the ticks that start renewals; nil starts one at any time. The opening of Window counts as a tick.
	Schedule Schedule

	// Emergency is the lifetime left below which Window and Schedule no longer hold; zero is a sixth of the lifetime.
	Emergency time.Duration
}

// shortLived is the lifetime below which a certificate is renewed at half of it: the third that remains
// otherwise would leave too little time to repair anything.
const shortLived = 10 * 24 * time.Hour

// RenewAt returns when to renew a certificate, and why then, in a few words for a status page.
//
// The moment is the one that the CA suggests, else two thirds into the lifetime (half, below ten days). It moves to the next
// tick of the schedule, and into the window: the next one that is open at f.Now or opens later. It never moves beyond the
// emergency moment, so that no schedule is too sparse and no window too rare. An Emergency that is longer than what is left at
// the moment itself switches window and schedule off and nothing else: it brings no renewal forward, since the CA
// exempts from its limits only what it suggested. With the default, and with any shorter Emergency, the moment
// is never later than the emergency moment, whatever the CA suggests.
func RenewAt(f Facts) (at time.Time, why string) {
	if f.NotAfter.IsZero() {
		return time.Time{}, "no certificate yet"
	}
	hasSuggestion := !f.Suggested.IsZero()
	if hasSuggestion && !f.Chosen.IsZero() && !f.Suggested.After(f.Chosen) {
		return f.notBefore(f.Suggested, "the CA asks for it now")
	}

	lifetime := f.NotAfter.Sub(f.NotBefore)
	switch {
	case hasSuggestion:
		at, why = f.Suggested, "suggested by the CA"
	case lifetime < shortLived:
		at, why = f.NotBefore.Add(lifetime/2), "half of the lifetime"
	default:
		at, why = f.NotBefore.Add(lifetime-lifetime/3), "two thirds of the lifetime"
	}

	emergency := f.Emergency
	if emergency <= 0 {
		emergency = lifetime / 6
	}
	if latest := f.NotAfter.Add(-min(emergency, lifetime/6)); at.After(latest) {
		return f.notBefore(latest, "the CA suggests a later moment, which leaves too little lifetime")
	}
	at, why = f.notBefore(at, why)
	start := f.start(at)
	if look := later(at, f.Now); !f.Window.Next(look).Equal(look) { // every window until then was missed
		start = f.start(look)
	}
	if start.Equal(at) {
		return at, why
	}
	awaited := "the window"
	if f.Schedule != nil && (start.IsZero() || !f.Window.opens(start).Equal(start)) {
		awaited = "the schedule"
	}
	if latest := f.NotAfter.Add(-emergency); start.After(latest) || start.IsZero() {
		return later(at, latest), "too little lifetime left to wait for " + awaited
	}
	return start, why + ", then " + awaited
}

// start returns the first moment from t on that may start a renewal: a tick while the window is open, or its opening. The
// zero time says that there is none.
func (f Facts) start(t time.Time) time.Time {
	if f.Schedule == nil {
		return f.Window.Next(t)
	}
	tick, opening := f.Schedule.Next(t.Add(-1)), f.Window.opens(t)
	if tick.Before(t) || !f.Window.Next(tick).Equal(tick) || !opening.IsZero() && opening.Before(tick) {
		return opening
	}
	return tick
}

// notBefore keeps a moment from lying before Earliest, and says so while that is ahead.
func (f Facts) notBefore(at time.Time, why string) (time.Time, string) {
	if !at.Before(f.Earliest) {
		return at, why
	}
	if f.Now.Before(f.Earliest) {
		why += ", though not right after it was issued"
	}
	return f.Earliest, why
}

// Backoff returns how long to wait after so many failures in a row: about 1 min, 10 min, 100 min, then a day.
// A random number in [0,1) spreads it by 20 % either way.
func Backoff(failures int, random float64) time.Duration {
	var wait time.Duration
	switch {
	case failures <= 0:
		return 0
	case failures == 1:
		wait = time.Minute
	case failures == 2:
		wait = 10 * time.Minute
	case failures == 3:
		wait = 100 * time.Minute
	default:
		wait = 24 * time.Hour
	}
	return scale(wait, 0.8+0.4*random)
}

// Outage returns how long to wait for a server that gave no answer, after so many tries in a row: 1, 2, 4 and 8 min, then
// never more than 15 min. An outage says nothing against the certificate, and no CA counts the tries. A random number
// in [0,1) shortens the wait by up to 20 %, so that names that wait for one server don't all come back at once.
func Outage(failures int, random float64) time.Duration {
	wait := longestOutage
	if failures < 5 {
		wait = time.Minute << max(failures-1, 0)
	}
	return scale(wait, 0.8+0.2*random)
}

const longestOutage = 15 * time.Minute

// RetryAt returns when to try again after so many failures in a row.
//
// A retryAfter that lies ahead is the CA's Retry-After and replaces the back-off; the result is never earlier.
// From the third failure on it's at least a minute ahead (or the back-off below, if that's less), so that a server
// which always says "in a second" isn't asked all the time.
//
// The back-off alone is shortened to half of left, the time until the certificate expires, so that it gets
// more tries before that; it's a minute at least, or 10 s when less than 10 min are left. CAs count failed
// validations by the hour: as long as more than an hour is left, there are no more than four tries in any one.
// Left is zero or below when there is no certificate, or when it has expired; then nothing is shortened.
func RetryAt(now time.Time, failures int, random float64, retryAfter time.Time, left time.Duration) time.Time {
	wait := Backoff(failures, random)
	if left > 0 {
		shortest := time.Minute
		if left < 10*time.Minute {
			shortest = 10 * time.Second
		}
		// Spread too, but never beyond the half.
		wait = min(wait, max(scale(left/2, 0.8+0.2*random), shortest))
	}
	if !retryAfter.After(now) {
		return now.Add(wait)
	}
	if failures < 3 {
		return retryAfter
	}
	return later(retryAfter, now.Add(min(wait, time.Minute)))
}

// Left returns the fraction of the lifetime that is left, from 1 (all) to 0 (expired). Lower is more urgent.
// Without a certificate nothing can expire, and it returns 1: ten thousand new names must not delay the few
// certificates that protect running services.
func Left(now, notBefore, notAfter time.Time) float64 {
	lifetime := notAfter.Sub(notBefore)
	switch {
	case notAfter.IsZero():
		return 1
	case lifetime <= 0:
		return 0
	}
	return min(max(float64(notAfter.Sub(now))/float64(lifetime), 0), 1)
}

func scale(d time.Duration, factor float64) time.Duration {
	return time.Duration(float64(d) * factor)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
