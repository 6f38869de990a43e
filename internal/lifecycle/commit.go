package lifecycle

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"autocertd/internal/event"
	"autocertd/internal/printable"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// commit takes over what came of a decision, tells it, and returns what a person who waits for the certificate hears. A new
// bundle is made durable here, in one write with all else that is known: dying before it leaves an open order, dying after
// it an order that has served and files of the old certificate, and the next look sees to both. All else is saved when the
// look ends.
func (j *job) commit(ctx context.Context, o Outcome) error {
	if o.Bundle != nil {
		err := j.commitIssued(ctx, o)
		if err == nil {
			return nil
		}
		o.Err = err // the order stays: the next attempt resumes it, to the same certificate
	}
	if o.Order && ctx.Err() != nil {
		return o.Err // the configuration isn't acted on yet
	}
	c, now := j.state, time.Now()
	j.unsaved = true
	if !o.Order {
		if o.Why == "" {
			j.commitRest(o, now)
		}
		return o.Err
	}
	j.commitAskAfter(o, now)
	if !o.Forced && store.Unwritable(o.Err) { // told for all certificates together, and tried as soon as there is room
		failures := max(c.Issue.Failures, 1)
		c.Issue = worse(state.Trouble{}, o.Err, now, now)
		c.Issue.Failures, c.Issue.AtCA = failures, false
		return o.Err
	}
	c.Wish = o.Hash
	if working, ok := errors.AsType[*issuer.WorkingError](o.Err); ok {
		return j.commitWorking(working, now)
	}
	c.Working = state.Working{}
	held, isHeld := o.Err.(*heldError) // beside failures it would be one of several
	if isHeld && !o.Forced {
		return j.commitHeld(held)
	}
	j.leaveQueues()
	if !isHeld {
		c.Held = state.Held{}
	}
	if manual, ok := errors.AsType[*issuer.ByHandError](o.Err); ok {
		j.commitManual(manual)
		return manual
	}
	if o.Forced { // the certificate is as good as it was: nothing is tried again, and nothing fails
		j.tell(event.Event{Kind: event.NotForced, Retry: c.RenewAt, Err: o.Err})
		return o.Err
	}
	retry := j.retryAt(now, o.Silence)
	c.Issue = worse(c.Issue, o.Err, now, retry)
	c.Issue.Silent, c.Issue.Outage = strings.Join(o.Silence.parties, partySeparator), o.Silence.outage()
	j.tell(event.Event{Kind: event.NotIssued, Retry: retry, Err: o.Err, Details: []slog.Attr{
		slog.String("why_due", o.Why), slog.Int("failures", c.Issue.Failures)}})
	return o.Err
}

// commitIssued makes a new bundle durable, and deletes the orders at all CAs, which have served.
func (j *job) commitIssued(ctx context.Context, o Outcome) error {
	before := *j.state
	c, now := j.state, time.Now()
	j.takeOver(o.Bundle, o.Leaf)
	c.Wish, c.AskAfter = o.Hash, nil
	c.Issue, c.Held, c.Working = state.Trouble{}, state.Held{}, state.Working{}
	wanted := c.ByHand
	c.ByHand = nil
	j.plan(now)
	j.noteRevision()
	if err := state.SaveIssued(ctx, j.lease, c); err != nil {
		before.Revision = c.Revision // of what may have been written all the same
		*c = before
		return err
	}
	j.unsaved = false
	j.leaveQueues()
	j.dropOrders(ctx, j.cert.CAs)
	j.answered(caParty(c.Bundle.CA), j.dnsParty())
	j.tell(event.Event{Kind: event.Issued, CA: c.Bundle.CA, NotAfter: c.X509.NotAfter, Details: []slog.Attr{
		slog.String("why", o.Why), slog.String("hostnames", strings.Join(j.cert.Hostnames, ",")), slog.Duration("took", o.Took)}})
	j.tellRemovable(wanted)
	return nil
}

// commitByHand makes a bundle durable that a person ordered, and lets the daemon look at once.
func (j *job) commitByHand(ctx context.Context, b *state.Bundle, leaf *x509.Certificate) error {
	j.takeOver(b, leaf)
	j.state.Issue, j.state.Working, j.state.ByHand, j.state.NextLook = state.Trouble{}, state.Working{}, nil, time.Time{}
	j.noteRevision()
	err := state.SaveIssued(ctx, j.lease, j.state)
	if err == nil {
		j.dropOrders(ctx, j.cert.CAs)
	}
	return err
}

// takeOver makes a bundle the one that counts. What a CA suggested for another certificate says nothing about this one.
func (j *job) takeOver(b *state.Bundle, leaf *x509.Certificate) {
	c := j.state
	c.Bundle, c.X509 = b, leaf
	now := b.Describe(leaf)
	if old := c.ARI; c.Leaf.Fingerprint != now.Fingerprint {
		c.ARI = state.Suggestion{AskAgain: firstAsk(b.Issued, leaf)}
		if old.Urgent() {
			c.ARI.Hurries = old.Hurries + 1
		}
	}
	c.Leaf, c.BundleMark = now, b.Mark()
}

// commitRest notes that nothing is due.
func (j *job) commitRest(o Outcome, now time.Time) {
	c := j.state
	c.Wish, c.Held, c.Working = o.Hash, state.Held{}, state.Working{}
	if j.view().missed(now) {
		c.Issue.RetryAt = j.view().windowed(now).UTC()
		return
	}
	c.Issue = state.Trouble{}
	j.tellRemovable(c.ByHand)
	c.ByHand = nil
}

// commitAskAfter notes when each CA wants to be asked again.
func (j *job) commitAskAfter(o Outcome, now time.Time) {
	after := map[string]time.Time{}
	if !o.Anew {
		for ca, at := range j.state.AskAfter {
			after[ca] = at
		}
	}
	for ca, at := range o.AskAfter {
		delete(after, ca)
		if latest := now.Add(state.LongestWait); at.After(latest) {
			at = latest
		}
		if at.After(now) {
			after[ca] = at.UTC()
		}
	}
	j.state.AskAfter = after
}

// commitWorking notes that a CA hasn't decided about an order yet, and when the same order is asked again.
func (j *job) commitWorking(working *issuer.WorkingError, now time.Time) error {
	c, was := j.state, j.state.Working
	since := now
	if was.CA == working.CA {
		since = was.Since
	}
	again := askOrderAt(now, since, working.Again)
	what := fmt.Sprintf("the CA is still working on it; the same order is asked again at %s", again.UTC().Format(time.RFC3339))
	c.Working = state.Working{CA: working.CA, What: what, Since: since.UTC(), Again: again.UTC()}
	c.Issue, c.Held = state.Trouble{}, state.Held{}
	j.leaveQueues()
	if was.CA != working.CA {
		j.tell(event.Event{Kind: event.StillWorking, CA: working.CA, Retry: again, Details: []slog.Attr{slog.String("order", working.Order)}})
	}
	if j.insist == onSchedule {
		return nil
	}
	return fmt.Errorf("%w at %s", working, again.UTC().Format(time.RFC3339))
}

// commitHeld notes that a certificate waits for room in a CA's limits, which only a person hears as an error.
func (j *job) commitHeld(held *heldError) error {
	if was := j.state.Held; was.CA != held.held.CA || was.Limit != held.held.Limit {
		j.tell(event.Event{Kind: event.Held, CA: held.held.CA, Retry: held.held.Until, Details: []slog.Attr{slog.String("reason", held.held.Reason)}})
	}
	j.state.Held = held.held
	if j.insist == onSchedule {
		return nil
	}
	return held
}

// commitManual notes for which records a certificate waits that a person publishes. Waiting isn't failing: there is no
// back-off, and each tick looks again.
func (j *job) commitManual(waiting *issuer.ByHandError) {
	var lines []string
	for _, r := range waiting.Records {
		lines = append(lines, strings.NewReplacer("\t", " ", `"`, "").Replace(r.ZoneLine()))
	}
	told := j.state.ByHand
	j.state.ByHand, j.state.Issue = lines, state.Trouble{}
	for _, line := range lines {
		if j.insist != onSchedule || !slices.Contains(told, line) {
			j.tell(event.Event{Kind: event.RecordWanted, Details: []slog.Attr{slog.String("record", line)}})
		}
	}
	j.tellRemovable(slices.DeleteFunc(told, func(line string) bool { return slices.Contains(lines, line) }))
}

func (j *job) tellRemovable(lines []string) {
	for _, line := range lines {
		j.tell(event.Event{Kind: event.RecordRemovable, Details: []slog.Attr{slog.String("record", line)}})
	}
}

// commitUnreadable notes that the bundle can't be read until a moment.
func (j *job) commitUnreadable(err error, retry time.Time) {
	j.state.Issue = worse(j.state.Issue, err, time.Now(), retry)
	j.state.NextLook = retry.UTC()
	j.unsaved = true
}

// commitInfo notes what the CA says about the renewal. Failures cost nothing: the rule by lifetime holds meanwhile.
func (j *job) commitInfo(info renewalInfo) {
	c := j.state
	j.unsaved = true
	c.ARI.AskAgain = info.askAgain.UTC()
	switch {
	case errors.Is(info.err, issuer.ErrNoRenewalInfo):
		return
	case info.err != nil && j.insist != onSchedule: // a person waits for what the CA says
		j.tell(event.Event{Kind: event.NoRenewalInfo, Err: info.err})
		return
	case info.err != nil:
		j.cfg.Logger.Debug("no renewal information", "certificate", j.cert.Name, "err", info.err)
		return
	case info.Start.Equal(c.ARI.Start) && info.End.Equal(c.ARI.End):
		return // the same window: the moment stays
	}
	c.ARI = state.Suggestion{
		Start:       info.Start.UTC(),
		End:         info.End.UTC(),
		Moment:      info.Start.Add(rand.N(info.End.Sub(info.Start))).UTC(),
		ChosenAt:    info.at.UTC(),
		Explanation: printable.Line(info.ExplanationURL),
		AskAgain:    c.ARI.AskAgain,
		Hurries:     c.ARI.Hurries,
	}
	if c.ARI.Urgent() {
		j.tell(event.Event{Kind: event.RenewalUrgent, CA: c.Bundle.CA, Details: []slog.Attr{
			slog.String("window_end", c.ARI.End.Format(time.RFC3339)), slog.String("explanation", c.ARI.Explanation)}})
		return
	}
	j.cfg.Logger.Debug("renewal suggested by the CA", "certificate", j.cert.Name, "moment", c.ARI.Moment, "explanation", c.ARI.Explanation)
}

// plan notes when the certificate is renewed, and when to look again.
func (j *job) plan(now time.Time) {
	c, v := j.state, j.view()
	if c.X509 != nil {
		c.RenewAt, c.RenewWhy = v.renewal(now)
	}
	c.NextLook = v.nextLook(now, now.Add(jitter(lookInterval))).UTC()
}

// finish plans the next look, unless commit has. With a disk that is full or read-only that is soon: there may be room by
// then, though the state could be saved.
func (j *job) finish(now time.Time, disk bool) {
	if j.unsaved {
		j.plan(now)
	}
	if disk {
		j.state.NextLook, j.unsaved = now.Add(jitter(diskRetry)).UTC(), true
	}
}

// save saves what commit has changed since the certificate was loaded or saved.
func (j *job) save(ctx context.Context) error {
	if !j.unsaved {
		return nil
	}
	j.noteRevision()
	err := state.Save(ctx, j.lease, j.state)
	j.unsaved = err != nil
	return err
}

// retryAt returns when to try again after one more failure.
func (j *job) retryAt(now time.Time, s silence) time.Time {
	failures, asked, left := j.state.Issue.Failures+1, askAfter(j.state, j.cert.CAs), j.state.Leaf.NotAfter.Sub(now)
	retry := scheduler.RetryAt(now, failures, rand.Float64(), asked, left)
	if s.outage() && !asked.After(now) {
		if sooner := now.Add(scheduler.Outage(failures, rand.Float64())); sooner.Before(retry) {
			retry = sooner
		}
	}
	return j.view().windowed(retry)
}

// worse returns the trouble after one more failure.
func worse(t state.Trouble, err error, now, retry time.Time) state.Trouble {
	next := t.Next(err, now, retry)
	_, next.AtCA = errors.AsType[*issuer.Error](err)
	return next
}

// firstAsk returns when the CA is first asked about a new certificate: after a while, so that a CA that wants everything
// renewed at once can't make us order in a loop, and not for all certificates of a pass together.
func firstAsk(issued time.Time, cert *x509.Certificate) time.Time {
	tenth := max(cert.NotAfter.Sub(cert.NotBefore)/10, 0)
	wait := min(time.Hour, tenth)
	return issued.Add(wait + rand.N(min(5*time.Hour, tenth)+1)).UTC()
}

// noteRevision remembers that the next save of the certificate is this process's; see Manager.Changed.
func (j *job) noteRevision() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.revision[j.cert.Name] = j.state.Revision + 1
}
