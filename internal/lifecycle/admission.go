package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/knownca"
	"autocertd/internal/state"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// heldError says that a CA isn't asked, since it would refuse.
type heldError struct{ held state.Held }

func (e *heldError) Error() string {
	return fmt.Sprintf("CA %s: held until %s: %s", e.held.CA, e.held.Until.Format(time.RFC3339), e.held.Reason)
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

// joinAttempts joins the failures at all CAs. When all of them would refuse, it returns the one that does so for the shortest
// time.
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
		if e := err.(*heldError); first == nil || e.held.Until.Before(first.held.Until) {
			first = e
		}
	}
	if first == nil {
		return nil
	}
	return first
}

// request asks for admission at one CA. The goroutine that has the turn of the ledger answers all requests.
type request struct {
	claim    budget.Claim
	lease    string // of the certificate
	answered bool
	err      error
	id       string // of the order that may be sent; "" when it is held
	held     state.Held
}

// admit answers a request: the certificates at the head of the plan for all that ask or wait may order, the others are held.
// All that ask at the same time share one plan and one change of the ledger. Dying after it leaves orders that count as sent.
func (l *ledger) admit(ctx context.Context, ca config.CA, r *request) error {
	l.all.mu.Lock()
	l.asking = append(l.asking, r)
	l.all.mu.Unlock()
	defer l.withdraw(r) // in case it wasn't answered
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	if r.answered {
		return r.err
	}
	var batch []*request
	var early []string
	err := l.changeLocked(ctx, ca, func(b *budget.Ledger, now time.Time) (changed bool) {
		batch, early = l.answerLocked(b, ca, now)
		return slices.ContainsFunc(batch, func(r *request) bool { return r.id != "" })
	})
	for _, r := range batch {
		r.answered, r.err = true, err
	}
	if len(early) > 0 && l.all.wake != nil {
		l.all.wake(func(name string) bool { return slices.Contains(early, name) })
	}
	return err
}

func (l *ledger) withdraw(r *request) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.asking = slices.DeleteFunc(l.asking, func(other *request) bool { return other == r })
}

// answerLocked plans for all certificates that ask or wait, and notes the orders of those that are admitted. It returns the
// requests that it answered, and the certificates that may come earlier than the last plan had it.
func (l *ledger) answerLocked(b *budget.Ledger, ca config.CA, now time.Time) (batch []*request, early []string) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	batch, l.asking = l.asking, nil
	claims := make([]budget.Claim, len(batch))
	for i, r := range batch {
		claims[i] = r.claim
	}
	turns, early := l.queue.Admit(now, b, claims)
	for _, r := range batch {
		turn := turns[r.claim.Name]
		if !turn.At.After(now) {
			r.id = l.beginLocked(b, r.lease, r.claim.Keys, now)
			continue
		}
		r.held = state.Held{
			CA:     ca.Name,
			Reason: budget.Describe(b.Limits, turn.Tight),
			Limit:  string(turn.Tight),
			Since:  turn.Since.UTC(),
			Until:  turn.At.UTC(),
		}
	}
	return batch, early
}

// leave removes the matching certificates from the queues.
func (a *ledgers) leave(match func(name string) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.cas {
		l.queue.Leave(match)
	}
}

// restoreHeld takes over a certificate that an earlier process left waiting for room, unless it waits here.
func (m *Manager) restoreHeld(s *Snapshot, c *state.Certificate, now time.Time) {
	ca, ok := s.CAs[c.Held.CA]
	if !ok {
		return
	}
	l := m.ledgers.of(ca)
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	if !l.queue.Waits(c.Name) {
		l.queue.Wait(budget.Claim{
			Name:    c.Name,
			Since:   c.Held.Since,
			Urgency: m.Urgency(c.Name, now),
			Keys:    []budget.Key{budget.Key(c.Held.Limit)},
		}, c.Held.Until)
	}
}

// admit returns the right to order, or a *heldError when the CA would refuse. An order that is open already has been
// counted, and goes on.
func (j *job) admit(ctx context.Context, iss *issuer.Issuer, keep state.OrderKeeper, open *issuer.OpenOrder) (*spending, error) {
	ca := j.snapshot.CAs[iss.Name()]
	limits, now := ca.Limits(), time.Now()
	s := &spending{OrderKeeper: keep, ledger: j.ledgers.of(ca), ca: ca}
	if !limits.Any() {
		return s, nil
	}
	claim := j.claim(limits, ca.Directory, now)
	if j.exempt(ca.Directory, now) {
		s.otherwise = claim.Keys
		return s, nil
	}
	s.keys = claim.Keys
	if open != nil {
		s.order, s.renewal = open.URL, open.Replaces
		return s, nil
	}
	r := &request{claim: claim, lease: keep.Lock()}
	if err := s.ledger.admit(ctx, ca, r); err != nil {
		return nil, err
	}
	if r.id == "" {
		return nil, &heldError{r.held}
	}
	s.id = r.id
	return s, nil
}

// claim returns the certificate's claim on a CA's limits, for plans and for admission alike.
func (j *job) claim(l knownca.Limits, directory string, now time.Time) budget.Claim {
	w := budget.Claim{
		Name:    j.cert.Name,
		Due:     now,
		Urgency: j.urgency(now),
		Since:   now,
		Keys:    budget.Keys(l, j.cert.Hostnames, j.again(directory)),
		Needs:   budget.FailureKeys(l, j.cert.Hostnames),
		AtOnce:  j.rushes(),
	}
	if since := j.state.Held.Since; !since.IsZero() {
		w.Since = since
	}
	return w
}

// urgency returns the fraction of the lifetime that is left, and less than any when the CA asks for a renewal at once.
func (j *job) urgency(now time.Time) float64 {
	if j.state.ARI.Urgent() {
		return -1
	}
	return scheduler.Left(now, j.state.Leaf.NotBefore, j.state.Leaf.NotAfter)
}

// rushes reports whether the certificate is renewed at once, whatever the CA's limits: it is revoked, or is about to be.
// The CA counts the order nevertheless, since its window for such a certificate lies in the past.
func (j *job) rushes() bool {
	return j.state.Bundle != nil && (j.state.ARI.Urgent() || j.state.IsCompromised() || j.state.IsRevoked())
}

// exempt reports whether the CA doesn't count the renewal: it replaces a certificate of that CA in the window that the CA
// suggested for it (RFC 9773, section 4.2).
func (j *job) exempt(directory string, now time.Time) bool {
	ari := j.state.ARI
	return j.state.Bundle != nil && j.state.Bundle.Directory == directory && !ari.Start.IsZero() && !now.Before(ari.Start) && !now.After(ari.End)
}

// again reports whether the CA has issued for the same hostnames before.
func (j *job) again(directory string) bool {
	return j.state.Bundle != nil && j.state.Bundle.Directory == directory &&
		slices.Equal(slices.Sorted(slices.Values(j.state.Bundle.Hostnames)), slices.Sorted(slices.Values(j.cert.Hostnames)))
}

// leaveQueues ends the wait for room at all CAs.
func (j *job) leaveQueues() {
	j.ledgers.leave(func(name string) bool { return name == j.cert.Name })
}
