package lifecycle

import (
	"fmt"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/scheduler"
)

// Wish is what is wanted of one certificate.
type Wish struct {
	Certificate config.Certificate
	Snapshot    *Snapshot
	Insist      Insistence
}

// Insistence says what a look doesn't wait for.
type Insistence int

const (
	onSchedule Insistence = iota // waits for everything
	byHand                       // a person asks: doesn't wait for our own back-off, but for what a CA asked for
	forced                       // waits for nothing, and renews what isn't due
)

// Room is what a decision depends on beside the certificate. Room in the limits of a CA is found when it is asked.
type Room struct {
	Answered bool // a server that gave no answer at the last failure has given one since
}

// Decision is what is to be done about the certificate itself at one look.
type Decision struct {
	Hash    string // of the configuration that is acted on
	Changed bool   // it is another than the one that was last acted on

	Why     string        // why a certificate is needed; "" when none is
	Order   bool          // it is ordered now
	Forced  bool          // it isn't needed by itself: a failure changes nothing, and nothing is tried again
	Waiting *WaitingError // it isn't ordered yet since it failed before
	Anew    bool          // no CA's earlier Retry-After counts any more
	CAs     []Turn        // in the order in which they are tried
}

// Turn is a CA that is asked now, or isn't asked before a moment, as it wished.
type Turn struct {
	CA        string
	NotBefore time.Time // zero: now
}

// WaitingError says that a certificate is due, and isn't tried yet since it failed before.
type WaitingError struct{ Last state.Trouble }

func (e *WaitingError) Error() string {
	failed := "failed once"
	if n := e.Last.Failures; n > 1 {
		failed = fmt.Sprintf("failed %d times", n)
	}
	return fmt.Sprintf("%s, next try at %s: %s", failed, e.Last.RetryAt.Format(time.RFC3339), e.Last.Error)
}

// Cure returns the cure of the last failure.
func (e *WaitingError) Cure() string { return e.Last.Cure }

// byForce is why a certificate is renewed that isn't due.
const byForce = "forced"

// Decide says what to do about a certificate. It is a function of its arguments: it asks nobody and changes nothing. A
// changed configuration waits for no earlier failure, since the change may be the cure.
func Decide(now time.Time, w Wish, c *state.Certificate, room Room) Decision {
	v := view{w, c}
	d := Decision{Hash: w.Snapshot.wish(w.Certificate), Why: v.due(now)}
	d.Changed = c.Wish != d.Hash
	if d.Why == "" && c.Working.CA != "" { // a certificate was ordered before it was due, and may be had now
		d.Why = byForce
	}
	d.Forced = d.Why == byForce
	d.Anew = d.Why != "" && (d.Changed || w.Insist == forced)
	switch {
	case d.Why == "":
		return d
	case d.Anew:
	case c.Working.CA != "" && w.Insist == onSchedule && now.Before(c.Working.Again):
		return d
	case v.waits(now, room):
		d.Waiting = &WaitingError{Last: c.Issue}
		return d
	}
	d.Order = true
	for _, ca := range w.Certificate.CAs {
		turn := Turn{CA: ca}
		if until := c.AskAfter[ca]; !d.Anew && now.Before(until) {
			turn.NotBefore = until
		}
		d.CAs = append(d.CAs, turn)
	}
	return d
}

// view is a certificate as the rules see it: what is wanted of it, and what is known.
type view struct {
	Wish
	c *state.Certificate
}

// due returns why a certificate is to be issued now, "" when it isn't.
func (v view) due(now time.Time) (why string) {
	if v.c.Bundle == nil {
		return "there is none yet"
	}
	if differs := v.Snapshot.fits(v.c.Bundle, v.Certificate); differs != "" {
		return differs
	}
	at, why := v.renewal(now)
	if v.Insist == byHand { // a person's question is a tick
		at, why = v.renewalIn(v.Snapshot.Window, nil, now)
	}
	if !now.Before(at) {
		return why
	}
	if v.Insist == byHand && v.c.Issue.Failures > 0 { // a person who has removed the cause waits for no window
		if at, why := v.renewalIn(scheduler.Window{}, nil, now); !now.Before(at) {
			return why
		}
	}
	if v.Insist == forced {
		return byForce
	}
	return ""
}

// settled is how long a new certificate is kept whatever the rule says; a third of what is left of it when that is less.
const settled = 6 * time.Hour

// hurried is the same for a certificate that its CA wants renewed at once.
const hurried = 5 * time.Minute

// compromisedWhy is why a certificate is replaced whose key was marked.
const compromisedWhy = "its key is compromised"

// renewal returns when the certificate is to be renewed, and why then, as seen at a moment: a window that was missed until
// then isn't used. A certificate can be due from its first moment on, when its CA dates it back, asks for its renewal, or
// this machine's clock is ahead: it is kept for a while, so that orders don't follow one another in a loop.
func (v view) renewal(now time.Time) (at time.Time, why string) {
	return v.renewalIn(v.Snapshot.Window, v.Snapshot.Schedule, now)
}

// renewalIn is renewal with another window and schedule.
func (v view) renewalIn(window scheduler.Window, schedule scheduler.Schedule, now time.Time) (at time.Time, why string) {
	c := v.c
	if c.IsCompromised() {
		return now, compromisedWhy
	}
	if c.IsRevoked() {
		return c.Leaf.Revoked.At, c.Leaf.Revoked.Why()
	}
	f := scheduler.Facts{
		NotBefore: c.X509.NotBefore,
		NotAfter:  c.X509.NotAfter,
		Suggested: c.ARI.Moment,
		Chosen:    c.ARI.ChosenAt,
		Now:       now,
		Window:    window,
		Schedule:  schedule,
		Emergency: v.Snapshot.Emergency,
	}
	if issued := c.Bundle.Issued; !issued.After(now) { // issued by a clock that was ahead, it would never be due
		f.Earliest = issued.Add(min(settling(c.ARI), c.X509.NotAfter.Sub(issued)/3))
	}
	at, why = scheduler.RenewAt(f)
	return at, because(c.ARI, why)
}

// because returns the reason of a renewal, with the page on which the CA explains itself.
func because(s state.Suggestion, why string) string {
	if s.Urgent() && s.Explanation != "" {
		return why + ": " + s.Explanation
	}
	return why
}

// settling returns how long a new certificate is kept whatever its CA says. When the CA wants it renewed at once, as after a
// mass revocation, that is minutes. It is hours when the one before was renewed at once too, and doubles each time, so that a
// CA that always says so is followed ever more slowly.
func settling(s state.Suggestion) time.Duration {
	if s.Urgent() && s.Hurries == 0 {
		return hurried
	}
	return settled << min(s.Hurries, maxHurries)
}

// maxHurries bounds the doubling: 16 days, more than a third of most lifetimes.
const maxHurries = 6

// windowed returns when a try that is planned for a moment may be: for a renewal, while the window is open. A certificate
// that isn't there, or isn't what is configured, waits for no window.
func (v view) windowed(retry time.Time) time.Time {
	if v.c.Bundle == nil || v.Snapshot.fits(v.c.Bundle, v.Certificate) != "" {
		return retry
	}
	if at, _ := v.renewal(retry); at.After(retry) {
		return at
	}
	return retry
}

// missed reports whether a renewal that failed would be tried again now, were it not for the window.
func (v view) missed(now time.Time) bool {
	if v.c.Issue.Failures == 0 || v.c.Bundle == nil {
		return false
	}
	at, _ := v.renewalIn(scheduler.Window{}, nil, now)
	return !now.Before(at)
}

// waits reports whether the next try is still to come. For a person that is so only when no CA wants to be asked.
func (v view) waits(now time.Time, room Room) bool {
	if room.Answered {
		return false
	}
	onSchedule := v.Insist == onSchedule && !v.Snapshot.mayHaveMended(v.c.Issue)
	return now.Before(v.c.Issue.RetryAt) && (onSchedule || now.Before(askAfter(v.c, v.Certificate.CAs)))
}

// askAfter returns when the first of the CAs may be asked again; the zero time when one may be asked at any time.
func askAfter(c *state.Certificate, cas []string) (first time.Time) {
	for i, ca := range cas {
		if at := c.AskAfter[ca]; i == 0 || at.Before(first) {
			first = at
		}
	}
	return first
}

// overdue reports whether a bundle that can't be read has been waited for long enough: half of the time from its renewal
// to its expiry. Until then a person may put right what is wrong with the disk or its permissions, and no certificate is
// ordered that isn't needed.
func overdue(c *state.Certificate, now time.Time) bool {
	if c.Leaf.NotAfter.IsZero() { // the facts are lost too, or were saved with the bundle alone
		return c.Issue.Failures >= mostUnread
	}
	return !now.Before(c.RenewAt.Add(c.Leaf.NotAfter.Sub(c.RenewAt) / 2))
}

// mostUnread is how many looks find a bundle unreadable of which nothing is known, before another is ordered: those of an hour.
const mostUnread = int(time.Hour / brokenRetry)

// lookInterval is how often outputs are looked at when nothing else is due.
const lookInterval = time.Hour

// nextLook returns when to look at the certificate again; plain is when nothing calls for it.
func (v view) nextLook(now, plain time.Time) time.Time {
	next, c := plain, v.c
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if c.X509 != nil {
		sooner(c.ARI.AskAgain)
	}
	switch {
	case c.IsHeld():
		sooner(c.Held.Until)
	case c.Working.CA != "":
		sooner(c.Working.Again)
	case c.Issue.Failures > 0:
		sooner(c.Issue.RetryAt)
	default:
		sooner(c.RenewAt)
	}
	if len(c.ByHand) > 0 && c.Issue.Failures == 0 {
		sooner(now) // and so at every tick
	}
	return next
}

// askOrderAt returns when an order is asked again on which a CA has worked since a moment: when the CA says, but after a
// minute at the earliest, and the less often the longer it takes, up to once an hour.
func askOrderAt(now, since, wish time.Time) time.Time {
	wait := min(max(now.Sub(since)/2, time.Minute), time.Hour)
	if latest := now.Add(state.LongestWait); wish.After(latest) {
		wish = latest
	}
	if at := now.Add(wait); at.After(wish) {
		return at
	}
	return wish
}
