package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/cure"
	"autocertd/internal/dnsname"
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
		dnsname.Same(j.state.Bundle.Hostnames, j.cert.Hostnames)
}

// leaveQueues ends the wait for room at all CAs.
func (j *job) leaveQueues() {
	j.ledgers.leave(func(name string) bool { return name == j.cert.Name })
}
