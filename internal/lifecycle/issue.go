package lifecycle

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/cure"
	"autocertd/internal/event"
	"autocertd/internal/state"
	"autocertd/issuer"
)

// Outcome is what came of a decision.
type Outcome struct {
	Decision
	Err    error // nil when a certificate was issued, or none was ordered
	Bundle *state.Bundle
	Leaf   *x509.Certificate
	Took   time.Duration

	AskAfter map[string]time.Time // the Retry-After of each CA that failed; zero when it gave none
	Silence  silence
}

// issue carries a decision out: it gets a certificate from the first of the CAs that gives one. A CA that said when to ask
// again isn't asked before that, and one that doesn't respond is the last resort. It assigns no state.
func (j *job) issue(ctx context.Context, d Decision) Outcome {
	o := Outcome{Decision: d, AskAfter: map[string]time.Time{}}
	if !d.Order {
		if d.Waiting != nil {
			o.Err = d.Waiting
		}
		return o
	}
	if o.Err = j.checkCSR(); o.Err != nil {
		return o
	}
	begin := time.Now()
	var failures []error
	for n, turn := range d.CAs {
		if !turn.NotBefore.IsZero() {
			failures = append(failures, fmt.Errorf("CA %s: not asked again before %s, as it wishes", turn.CA, turn.NotBefore.Format(time.RFC3339)))
			o.Silence.others = true
			continue
		}
		spare := slices.ContainsFunc(d.CAs[n+1:], func(t Turn) bool { return t.NotBefore.IsZero() })
		issued, err := j.obtainFrom(ctx, turn.CA, spare)
		if err == nil {
			o.Bundle, o.Leaf, o.Took = j.bundleOf(j.snapshot.Issuers[turn.CA], issued), issued.Cert, time.Since(begin).Round(time.Millisecond)
			return o
		}
		failures = append(failures, err)
		if _, working := errors.AsType[*issuer.WorkingError](err); working || isHeld(err) {
			continue
		}
		j.noteSilence(&o.Silence, turn.CA, err)
		o.AskAfter[turn.CA] = issuer.RetryAfter(err)
		if ctx.Err() != nil || !anotherMayHelp(err) {
			break
		}
		if spare {
			j.tell(event.Event{Kind: event.CAFailed, CA: turn.CA, Err: err})
		}
	}
	o.Err = joinAttempts(failures)
	return o
}

// tell tells an event of the certificate.
func (j *job) tell(e event.Event) {
	e.Certificate = j.cert.Name
	j.cfg.Tell.Tell(e)
}

// bundleOf returns what was issued as a bundle.
func (j *job) bundleOf(iss *issuer.Issuer, issued *issuer.Bundle) *state.Bundle {
	return &state.Bundle{
		Name:      j.cert.Name,
		Hostnames: j.cert.Hostnames,
		KeyType:   j.cert.KeyType,
		Profile:   j.snapshot.profile(j.cert, iss.Name()),
		CA:        iss.Name(),
		Directory: iss.DirectoryURL(),
		Account:   issued.Account,
		Order:     issued.Order,
		Issued:    time.Now().UTC(),
		CSR:       j.cert.CSR,
		Key:       string(issued.Key),
		Leaf:      string(issued.Leaf),
		Chain:     string(issued.Chain),
	}
}

// anotherMayHelp reports whether a failure is one CA's: our own servers fail alike for all of them.
func anotherMayHelp(err error) bool {
	var ca *issuer.Error
	return errors.As(err, &ca) && !issuer.FailedValidation(err)
}

// checkCSR refuses a CSR by a key that others may have.
func (j *job) checkCSR() error {
	if j.cert.CSR == nil {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(j.cert.CSR)
	if err != nil {
		return fmt.Errorf("%s: %w", j.cert.CSRFile, err)
	}
	if j.state.IsMarked(csr.RawSubjectPublicKeyInfo) {
		return cure.New(fmt.Sprintf("%s was signed by a key that is compromised", j.cert.CSRFile), "make a new key, and a new CSR with it")
	}
	return nil
}

// obtainFrom gets a certificate from one CA. The key of its order is durable before the order is finalized: dying after
// that leaves an order that the next look resumes.
func (j *job) obtainFrom(ctx context.Context, ca string, spare bool) (*issuer.Bundle, error) {
	iss := j.snapshot.Issuers[ca]
	if iss == nil {
		return nil, fmt.Errorf("CA %q isn't configured", ca)
	}
	profile := j.snapshot.profile(j.cert, ca)
	if most := j.snapshot.CAs[ca].MostNames(profile); most > 0 && len(j.cert.Hostnames) > most {
		return nil, &issuer.Error{CA: ca, Step: "order", Err: fmt.Errorf("a certificate of this profile has at most %d hostnames, not %d", most, len(j.cert.Hostnames)),
			Hint: "divide them among several certificates"}
	}
	open := j.openOrder(ca)
	exempt := j.exempt(iss.DirectoryURL(), time.Now())
	if !j.snapshot.CAs[ca].Limits().Any() || exempt || open != nil { // else noting the order in the ledger shows as much
		if err := j.probe(ctx); err != nil {
			return nil, err
		}
	}
	spending, err := j.admit(ctx, iss, state.KeepOrder(j.lease, ca, j.cert.Name), open)
	if err != nil {
		return nil, err
	}
	j.progress(issuer.Step{Name: Ordering})
	issued, err := j.order(ctx, iss, issuer.Request{
		Hostnames:   j.cert.Hostnames,
		KeyType:     issuer.KeyType(j.cert.KeyType),
		Profile:     profile,
		Replaces:    j.replaces(iss),
		InUse:       j.worthKeeping(),
		Key:         j.keyToReuse(),
		CSR:         j.cert.CSR,
		HasFallback: spare,
		Open:        open,
		Orders:      spending,
		Solver:      j.snapshot.Solver,
		Domains:     domains(j.cert.Hostnames),
		Exempt:      exempt,
		Progress:    j.progress,
	})
	if endErr := spending.end(ctx, err); endErr != nil {
		j.tell(event.Event{Kind: event.OrderNotCounted, CA: ca, Err: endErr})
	}
	return issued, err
}

// probeAge is how long a disk that took a state is trusted to take the next one.
const probeAge = 5 * time.Second

// probe finds out whether anything can be remembered. On a disk that is full or read-only no CA is asked: it would be at
// every attempt, for an order that is lost at once. Many certificates that begin together share one probe.
func (j *job) probe(ctx context.Context) error {
	j.probing.Lock()
	defer j.probing.Unlock()
	if now := time.Now(); now.Sub(j.probed) < probeAge {
		return nil
	}
	j.noteRevision()
	if err := state.Save(ctx, j.lease, j.state); err != nil {
		return err
	}
	j.probed = time.Now()
	return nil
}

// order gets a certificate. A key that is to be used again and that the CA refuses, as it does when others have shown it the
// key, is given up for a new one; that the key was at fault is known when the new one succeeds.
func (j *job) order(ctx context.Context, iss *issuer.Issuer, req issuer.Request) (*issuer.Bundle, error) {
	issued, err := iss.Obtain(ctx, req)
	refused, sure := issuer.KeyRefused(err)
	if !refused {
		return issued, err
	}
	if req.CSR != nil {
		if e, ok := errors.AsType[*issuer.Error](err); ok {
			e.Hint = fmt.Sprintf("if the CA has blocked the key of %s, or finds it weak: make a new key, and a new CSR with it", j.cert.CSRFile)
		}
		return nil, err
	}
	if req.Key == nil {
		return nil, err
	}
	j.tell(event.Event{Kind: event.KeyRefused, CA: iss.Name(), Err: err})
	spki := state.PublicKey(string(req.Key))
	req.Key, req.Open = nil, nil
	issued, err = iss.Obtain(ctx, req)
	if err == nil || sure {
		note := state.CompromisedKey{Serial: j.state.Leaf.Serial, Why: state.BlockedByCA}
		if markErr := state.MarkKey(ctx, j.lease, spki, note); markErr != nil {
			j.tell(event.Event{Kind: event.KeyNotMarked, Err: markErr})
		}
	}
	return issued, err
}

// domains returns the domains that CAs count hostnames under.
func domains(hostnames []string) (list []string) {
	for _, h := range hostnames {
		list = append(list, budget.RegisteredDomain(h))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// openOrder returns the order to go on with, nil to make a new one. An order that can't be read must not keep the
// certificate from being issued; the next one replaces it.
func (j *job) openOrder(ca string) *issuer.OpenOrder {
	open, err := j.state.Orders[ca], j.state.Faults.Orders[ca]
	if err != nil {
		j.tell(event.Event{Kind: event.OrderUnreadable, Details: []slog.Attr{slog.String("object", state.OrderKey(ca, j.cert.Name))}, Err: err})
		return nil
	}
	if open != nil && j.state.Bundle != nil && j.hasServed(open) {
		return nil // an earlier process died before it could drop it
	}
	if open != nil && j.insist == forced && (open.Failures > 0 || open.Waited) {
		return nil // a person who insists has waited for that order already
	}
	return open
}

// hasServed reports whether the bundle came from an order. One that doesn't say where it came from had a key of its own.
func (j *job) hasServed(open *issuer.OpenOrder) bool {
	if open.URL == j.state.Bundle.Order {
		return true
	}
	return !j.cert.ReuseKey && open.Key != "" && open.Key == j.state.Bundle.Key
}

// keyToReuse returns the key that the next certificate is for, nil for a new one.
func (j *job) keyToReuse() []byte {
	b := j.state.Bundle
	if !j.cert.ReuseKey || b == nil || b.Key == "" || b.KeyType != j.cert.KeyType || j.state.IsCompromised() {
		return nil
	}
	return []byte(b.Key)
}

// worthKeeping returns the certificate that there is, nil when it is revoked or about to be, so that any other is better.
func (j *job) worthKeeping() *x509.Certificate {
	if j.rushes() {
		return nil
	}
	return j.state.X509
}

// replaces returns the certificate that a renewal at this CA replaces, nil when the last one came from elsewhere.
func (j *job) replaces(iss *issuer.Issuer) *x509.Certificate {
	if j.state.Bundle == nil || j.state.Bundle.Directory != iss.DirectoryURL() {
		return nil
	}
	return j.state.X509
}

// dropOrders deletes the open orders at some CAs. What stays of them, after a crash too, is seen by openOrder.
func (j *job) dropOrders(ctx context.Context, cas []string) {
	for _, ca := range cas {
		if err := state.KeepOrder(j.lease, ca, j.cert.Name).Drop(context.WithoutCancel(ctx)); err != nil {
			j.tell(event.Event{Kind: event.OrderNotDropped, CA: ca, Err: err})
		}
	}
}

// tellContacts sends the CAs of a certificate whose configuration changed the account's contact, which may be what changed.
// Nothing depends on it: the next order sends it as well.
func (j *job) tellContacts(ctx context.Context) {
	for _, ca := range j.cert.CAs {
		iss := j.snapshot.Issuers[ca]
		if iss == nil {
			continue
		}
		if err := iss.UpdateContact(ctx); err != nil && ctx.Err() == nil {
			j.cfg.Tell.Tell(event.Event{Kind: event.ContactNotSent, CA: ca, Err: err})
		}
	}
}
