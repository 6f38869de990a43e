package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/printable"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// settled is how long a new certificate is kept whatever the rule says; a third of what is left of it when that is less.
const settled = 6 * time.Hour

// hurried is the same for a certificate that its CA wants renewed at once.
const hurried = 5 * time.Minute

// byForce is why a certificate is renewed that isn't due.
const byForce = "forced"

// due says why a certificate is to be issued now, "" when it isn't.
func (j *job) due(now time.Time) (why string) {
	if j.state.Bundle == nil {
		return "there is none yet"
	}
	if differs := j.snapshot.fits(j.state.Bundle, j.cert); differs != "" {
		return differs
	}
	at, why := j.renewal(now)
	if j.insist == byHand { // a person's question is a tick
		at, why = j.renewalIn(j.snapshot.Window, nil, now)
	}
	if !now.Before(at) {
		return why
	}
	if j.insist == byHand && j.state.Issue.Failures > 0 { // a person who has mended something waits for no window
		if at, why := j.renewalIn(scheduler.Window{}, nil, now); !now.Before(at) {
			return why
		}
	}
	if j.insist == forced {
		return byForce
	}
	return ""
}

// renewal is when the certificate is to be renewed, and why then, for who looks at a moment: a window that was missed until
// then isn't used. A certificate can be due from its first moment on, when its CA dates it back, asks for its renewal, or
// this machine's clock is ahead: it is kept for a while, so that orders don't follow one another in a loop.
func (j *job) renewal(now time.Time) (at time.Time, why string) {
	return j.renewalIn(j.snapshot.Window, j.snapshot.Schedule, now)
}

// renewalIn is renewal with another window and schedule.
func (j *job) renewalIn(window scheduler.Window, schedule scheduler.Schedule, now time.Time) (at time.Time, why string) {
	if j.state.IsCompromised() {
		return now, compromisedWhy
	}
	if j.state.IsRevoked() {
		return j.state.Leaf.Revoked.At, j.state.Leaf.Revoked.Why()
	}
	f := scheduler.Facts{NotBefore: j.state.X509.NotBefore, NotAfter: j.state.X509.NotAfter,
		Suggested: j.state.ARI.Moment, Chosen: j.state.ARI.ChosenAt, Now: now,
		Window: window, Schedule: schedule, Emergency: j.snapshot.Emergency}
	if issued := j.state.Bundle.Issued; !issued.After(now) { // issued by a clock that was ahead, it would never be due
		f.Earliest = issued.Add(min(settling(j.state.ARI), j.state.X509.NotAfter.Sub(issued)/3))
	}
	at, why = scheduler.RenewAt(f)
	return at, because(j.state.ARI, why)
}

// windowed is when a try that is planned for a moment may be: for a renewal, while the window is open. A certificate that
// isn't there, or isn't what is configured, waits for no window.
func (j *job) windowed(retry time.Time) time.Time {
	if j.state.Bundle == nil || j.snapshot.fits(j.state.Bundle, j.cert) != "" {
		return retry
	}
	if at, _ := j.renewal(retry); at.After(retry) {
		return at
	}
	return retry
}

// missed reports whether a renewal that failed would be tried again now, were it not for the window.
func (j *job) missed(now time.Time) bool {
	if j.state.Issue.Failures == 0 || j.state.Bundle == nil {
		return false
	}
	at, _ := j.renewalIn(scheduler.Window{}, nil, now)
	return !now.Before(at)
}

// issueIfDue obtains a certificate when one is due and no earlier failure says to wait. A changed wish doesn't wait: the
// change may be the cure.
func (j *job) issueIfDue(ctx context.Context) error {
	mark := j.snapshot.wish(j.cert)
	changed := j.state.Wish != mark
	j.noteCompromised(ctx)
	now := time.Now()
	why := j.due(now)
	if why == "" && j.state.Working.CA != "" { // a certificate was ordered before it was due, and may be had now
		why = byForce
	}
	if why == "" {
		if changed {
			j.tellContacts(ctx)
		}
		j.state.Wish, j.state.Held, j.state.Working = mark, state.Held{}, state.Working{}
		if j.missed(now) {
			j.state.Issue.RetryAt = j.windowed(now).UTC()
			return nil
		}
		j.state.Issue = state.Trouble{}
		j.handDone()
		return nil
	}
	if changed || j.insist == forced {
		j.state.AskAfter = nil
	} else if w := j.state.Working; w.CA != "" && j.insist == onSchedule && now.Before(w.Again) {
		return nil
	} else if j.waits(now) {
		return &WaitingError{Last: j.state.Issue}
	}
	err := j.obtain(ctx, why)
	if ctx.Err() != nil && err != nil {
		return err // the wish isn't acted on yet
	}
	if why != byForce && store.Unwritable(err) { // told for all of them together, and tried as soon as there is room
		now := time.Now().UTC()
		j.state.Issue = state.Trouble{
			Failures: max(j.state.Issue.Failures, 1),
			Error:    printable.Lines(err.Error()),
			Cure:     printable.Lines(cure.Of(err)),
			At:       now,
			RetryAt:  now,
		}
		return err
	}
	j.state.Wish = mark
	if working, ok := errors.AsType[*issuer.WorkingError](err); ok {
		return j.awaitCA(working)
	}
	j.state.Working = state.Working{}
	if why == byForce && isHeld(err) { // the certificate isn't due, so that it waits for nothing
		j.leaveQueues()
	} else if held := j.hold(err); held && j.insist == onSchedule {
		return nil
	} else if held {
		return err // a person waits for the certificate
	}
	if err == nil {
		j.state.Issue = state.Trouble{}
		j.handDone()
		return nil
	}
	if waiting, ok := errors.AsType[*issuer.ByHandError](err); ok {
		j.awaitHand(waiting)
		return waiting
	}
	if why == byForce { // the certificate is as good as it was: nothing is tried again, and nothing fails
		j.cfg.Logger.Warn("certificate not renewed by hand; it isn't due", "certificate", j.cert.Name, "renews",
			j.state.RenewAt.UTC().Format(time.RFC3339), "err", err)
		return err
	}
	now = time.Now()
	retry := j.retryAt(now, j.silence)
	j.state.Issue = worse(j.state.Issue, err, now, retry)
	j.state.Issue.Silent, j.state.Issue.Outage = strings.Join(j.silence.parties, partySeparator), j.silence.outage()
	j.cfg.Logger.Warn("certificate not issued", "certificate", j.cert.Name, "why_due", why, "failures", j.state.Issue.Failures,
		"retry", retry.UTC().Format(time.RFC3339), "err", err)
	return err
}

// awaitCA notes that a CA hasn't decided about an order yet, and when the same order is asked again.
func (j *job) awaitCA(working *issuer.WorkingError) error {
	now, was := time.Now(), j.state.Working
	since := now
	if was.CA == working.CA {
		since = was.Since
	}
	again := askOrderAt(now, since, working.Again)
	what := fmt.Sprintf("the CA is still working on it; the same order is asked again at %s", again.UTC().Format(time.RFC3339))
	j.state.Working = state.Working{CA: working.CA, What: what, Since: since.UTC(), Again: again.UTC()}
	j.state.Issue, j.state.Held = state.Trouble{}, state.Held{}
	j.leaveQueues()
	if was.CA != working.CA {
		j.cfg.Logger.Info("certificate still being made", "certificate", j.cert.Name, "ca", working.CA, "order", working.Order,
			"again", again.UTC().Format(time.RFC3339))
	}
	if j.insist == onSchedule {
		return nil
	}
	return fmt.Errorf("%w at %s", working, again.UTC().Format(time.RFC3339))
}

// askOrderAt is when an order is asked again on which a CA has worked since a moment: when the CA says, but after a minute at
// the earliest, and the less often the longer it takes, up to once an hour.
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

// waits reports whether the next try is still to come. For a person that is so only when no CA wants to be asked.
func (j *job) waits(now time.Time) bool {
	onSchedule := j.insist == onSchedule && !j.snapshot.mayHaveMended(j.state.Issue)
	if j.hasAnswered(j.state.Issue) {
		return false
	}
	return now.Before(j.state.Issue.RetryAt) && (onSchedule || now.Before(j.askAfter()))
}

// schedule says when to look again.
func (j *job) schedule(now time.Time) time.Time {
	next := now.Add(jitter(lookInterval))
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	s := j.state
	if j.state.X509 != nil {
		s.RenewAt, s.RenewWhy = j.renewal(now)
		sooner(s.ARI.AskAgain)
	}
	switch {
	case s.IsHeld():
		sooner(s.Held.Until)
	case s.Working.CA != "":
		sooner(s.Working.Again)
	case s.Issue.Failures > 0:
		sooner(s.Issue.RetryAt)
	default:
		sooner(s.RenewAt)
	}
	if len(s.ByHand) > 0 && s.Issue.Failures == 0 {
		sooner(now) // and so at every tick
	}
	s.NextLook = next.UTC()
	return next
}
