package lifecycle

import (
	"autocertd/internal/state"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/issuer"
)

// heldError is a CA that isn't asked since it would refuse.
type heldError struct{ state.Held }

func (e *heldError) Error() string {
	return fmt.Sprintf("CA %s: held until %s: %s", e.CA, e.Until.Format(time.RFC3339), e.Reason)
}

// Waits reports whether an error says that a certificate waits, for room in a CA's limits, for a record that a person adds,
// or for a CA that works on it. Nothing has failed then.
func Waits(err error) bool {
	_, held := errors.AsType[*heldError](err)
	_, hand := errors.AsType[*issuer.ByHandError](err)
	_, working := errors.AsType[*issuer.WorkingError](err)
	return held || hand || working
}

func isHeld(err error) bool {
	_, ok := err.(*heldError)
	return ok
}

// admit returns the right to order, or a *heldError when the CA would refuse. An order that is open already has been
// counted, and goes on.
func (j *job) admit(ctx context.Context, iss *issuer.Issuer, keep state.OrderKeeper, open *issuer.OpenOrder) (*spending, error) {
	ca := j.snapshot.CAs[iss.Name()]
	s := &spending{OrderKeeper: keep, budgets: j.budgets, ca: ca, hostnames: j.cert.Hostnames}
	limits := ca.Limits()
	if !limits.Any() {
		return s, nil
	}
	keys := budget.Keys(limits, j.cert.Hostnames, j.again(ca.Directory))
	if j.exempt(ca.Directory, time.Now()) {
		s.otherwise = keys
		return s, nil
	}
	s.keys = keys
	if open != nil {
		s.order, s.renewal = open.URL, open.Replaces
		return s, nil
	}
	var held *state.Held
	err := j.budgets.change(ctx, ca, func(l *budget.Ledger, now time.Time) bool {
		if held = j.wait(l, ca, s.keys, now); held != nil && !j.rushes() {
			return false
		}
		held = nil
		s.begin(l, now)
		return true
	})
	switch {
	case err != nil:
		return nil, err
	case held != nil:
		return nil, &heldError{*held}
	}
	return s, nil
}

// wait finds out whether there is room, and remembers who waits for it.
func (j *job) wait(l *budget.Ledger, ca config.CA, keys []budget.Key, now time.Time) *state.Held {
	b, me := j.budgets, claimant{ca.Name, j.cert.Name}
	mine := &claim{Held: state.Held{CA: ca.Name, Since: now.UTC()}, urgency: j.Urgency(j.cert.Name, now)}
	if old := b.waiting[me]; old != nil {
		mine.Since = old.Since
	}
	room := func(ahead func(budget.Key) int) (time.Time, budget.Key) {
		at, tight := l.Room(keys, now, ahead)
		if t, key := l.Room(budget.FailureKeys(l.Limits, j.cert.Hostnames), now, nil); t.After(at) {
			return t, key
		}
		return at, tight
	}
	// Those more urgent whose turn is now come first; they are about to be looked at.
	at, tight := room(func(key budget.Key) int { return b.ahead(me, mine, key, now, false) })
	if !at.After(now) {
		delete(b.waiting, me)
		return nil
	}
	if queued, key := room(func(key budget.Key) int { return b.ahead(me, mine, key, now, true) }); queued.After(at) {
		at, tight = queued, key
	}
	mine.Until, mine.Limit, mine.Reason = at.UTC(), string(tight), budget.Describe(l.Limits, tight)
	b.waiting[me] = mine
	return &mine.Held
}

// turnTaking is how long room is kept for the one whose turn it is: until the next ticks.
const turnTaking = 2 * time.Minute

// ahead counts those that wait for a bucket and come before mine: those whose turn is now, or all.
func (b *budgets) ahead(me claimant, mine *claim, key budget.Key, now time.Time, all bool) (n int) {
	for who, other := range b.waiting {
		passed := now.Sub(other.Until)
		if who.ca == me.ca && who != me && other.Limit == string(key) && passed < turnTaking && (all || passed >= 0) &&
			cmp.Or(cmp.Compare(other.urgency, mine.urgency), other.Since.Compare(mine.Since), cmp.Compare(who.name, me.name)) < 0 {
			n++
		}
	}
	return n
}

// leave takes a certificate that isn't held any more from among those that wait.
func (b *budgets) leave(cert config.Certificate) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	for _, ca := range cert.CAs {
		delete(b.waiting, claimant{ca, cert.Name})
	}
}

// rushes reports whether the certificate is renewed at once, whatever the CA's limits: it is revoked, or is about to be.
// The CA counts the order all the same, since its window for such a certificate lies in the past.
func (j *job) rushes() bool {
	return j.state.Bundle != nil && (j.state.ARI.Urgent() || j.state.IsCompromised() || j.state.IsRevoked())
}

// exempt reports whether the CA doesn't count the renewal: it replaces a certificate of that CA in the window that the CA
// suggested for it (RFC 9773).
func (j *job) exempt(directory string, now time.Time) bool {
	return j.state.Bundle != nil && j.state.Bundle.Directory == directory && exempts(j.state.ARI, now)
}

func exempts(s state.Suggestion, now time.Time) bool {
	return !s.Start.IsZero() && !now.Before(s.Start) && !now.After(s.End)
}

// again reports whether the CA has issued for the same hostnames before.
func (j *job) again(directory string) bool {
	return j.state.Bundle != nil && j.state.Bundle.Directory == directory &&
		slices.Equal(slices.Sorted(slices.Values(j.state.Bundle.Hostnames)), slices.Sorted(slices.Values(j.cert.Hostnames)))
}

// hold notes that a certificate is held, and reports whether that is all that there is to say of an attempt.
func (j *job) hold(err error) bool {
	held, ok := err.(*heldError) // beside failures it would be one of several
	if !ok {
		j.state.Held = state.Held{}
		j.budgets.leave(j.cert)
		return false
	}
	if was := j.state.Held; was.CA != held.CA || was.Limit != held.Limit {
		j.cfg.Logger.Info("certificate held", "certificate", j.cert.Name, "ca", held.CA,
			"until", held.Until.Format(time.RFC3339), "reason", held.Reason)
	}
	j.state.Held = held.Held
	return true
}

// joinAttempts is what the attempts at all CAs came to: held when all of them would refuse, until the first wouldn't.
func joinAttempts(failures []error) error {
	for _, err := range failures { // one of the CAs may still give a certificate
		if _, working := errors.AsType[*issuer.WorkingError](err); working {
			return err
		}
	}
	var first *heldError
	for _, err := range failures {
		if !isHeld(err) {
			return cure.Join(failures...)
		}
		held := err.(*heldError)
		if first == nil || held.Until.Before(first.Until) {
			first = held
		}
	}
	if first == nil {
		return nil
	}
	return first
}

// restore takes over who waited when the process before ended.
func (b *budgets) restore(name string, held state.Held, urgency float64) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if me := (claimant{held.CA, name}); b.waiting[me] == nil {
		b.waiting[me] = &claim{Held: held, urgency: urgency}
	}
}

// forget drops those that are no longer configured.
func (b *budgets) forget(s *Snapshot) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	for who := range b.waiting {
		if _, ok := s.Certificates[who.name]; !ok {
			delete(b.waiting, who)
		}
	}
}
