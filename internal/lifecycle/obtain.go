package lifecycle

import (
	"autocertd/internal/state"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"autocertd/internal/budget"
	"autocertd/issuer"
)

// obtain gets a certificate from the first of the certificate's CAs that gives one, and saves it. A CA that said when to
// ask again isn't asked before that, and one that doesn't answer only when no other is left.
func (j *job) obtain(ctx context.Context, why string) error {
	if err := j.probe(ctx); err != nil {
		return err
	}
	if err := j.checkCSR(ctx); err != nil {
		return err
	}
	begin := time.Now()
	var failures []error
	for n, ca := range j.cert.CAs {
		if until := j.state.AskAfter[ca]; begin.Before(until) {
			failures = append(failures, fmt.Errorf("CA %s: not asked again before %s, as it wishes", ca, until.Format(time.RFC3339)))
			j.silence.others = true
			continue
		}
		spare := slices.ContainsFunc(j.cert.CAs[n+1:], func(other string) bool { return !begin.Before(j.state.AskAfter[other]) })
		err := j.obtainFrom(ctx, ca, spare)
		if err == nil {
			j.answered(caParty(ca), j.dnsParty())
			j.state.AskAfter = nil
			j.cfg.Logger.Info("certificate issued", "certificate", j.cert.Name, "why", why, "ca", ca,
				"hostnames", strings.Join(j.cert.Hostnames, ","), "not_after", j.state.X509.NotAfter.UTC().Format(time.RFC3339), "took", time.Since(begin).Round(time.Millisecond))
			return nil
		}
		failures = append(failures, err)
		if _, working := errors.AsType[*issuer.WorkingError](err); working || isHeld(err) {
			continue
		}
		j.noteSilence(&j.silence, ca, err)
		j.noteWish(ca, issuer.RetryAfter(err))
		if ctx.Err() != nil || !anotherMayHelp(err) {
			break
		}
		if spare {
			j.cfg.Logger.Warn("a CA failed; trying the next", "certificate", j.cert.Name, "ca", ca, "err", err)
		}
	}
	return joinAttempts(failures)
}

// noteWish remembers when a CA wants to be asked again; the zero time when it didn't say.
func (j *job) noteWish(ca string, again time.Time) {
	delete(j.state.AskAfter, ca)
	now := time.Now()
	if !again.After(now) {
		return
	}
	if latest := now.Add(state.LongestWait); again.After(latest) {
		again = latest
	}
	if j.state.AskAfter == nil {
		j.state.AskAfter = map[string]time.Time{}
	}
	j.state.AskAfter[ca] = again.UTC()
}

// askAfter is when the first of the CAs may be asked again; the zero time when one may be asked at any time.
func (j *job) askAfter() (first time.Time) {
	for i, ca := range j.cert.CAs {
		if at := j.state.AskAfter[ca]; i == 0 || at.Before(first) {
			first = at
		}
	}
	return first
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
	if err := state.Save(ctx, j.lease, j.state); err != nil {
		return err
	}
	j.probed = time.Now()
	return nil
}

// anotherMayHelp reports whether a failure is one CA's: our own servers fail alike for all of them.
func anotherMayHelp(err error) bool {
	var ca *issuer.Error
	return errors.As(err, &ca) && !issuer.FailedValidation(err)
}

func (j *job) obtainFrom(ctx context.Context, ca string, spare bool) error {
	iss := j.snapshot.Issuers[ca]
	if iss == nil {
		return fmt.Errorf("CA %q isn't configured", ca)
	}
	if most := j.snapshot.CAs[ca].MostNames(j.snapshot.profile(j.cert, ca)); most > 0 && len(j.cert.Hostnames) > most {
		return &issuer.Error{CA: ca, Step: "order", Err: fmt.Errorf("a certificate of this profile has at most %d hostnames, not %d", most, len(j.cert.Hostnames)),
			Hint: "divide them among several certificates"}
	}
	keeper := state.KeepOrder(j.lease, ca, j.cert.Name)
	open := j.openOrder(ca)
	spending, err := j.admit(ctx, iss, keeper, open)
	if err != nil {
		return err
	}
	j.progress(issuer.Step{Name: Ordering})
	issued, err := j.order(ctx, iss, issuer.Request{Hostnames: j.cert.Hostnames, KeyType: issuer.KeyType(j.cert.KeyType),
		Profile: j.snapshot.profile(j.cert, ca), Replaces: j.replaces(iss), InUse: j.worthKeeping(), Key: j.keyToReuse(), CSR: j.cert.CSR, Spare: spare, Open: open, Orders: spending,
		Solver: j.snapshot.Solver, Domains: domains(j.cert.Hostnames), Exempt: j.exempt(iss.DirectoryURL(), time.Now()), Progress: j.progress})
	if endErr := spending.end(ctx, err); endErr != nil {
		j.cfg.Logger.Warn("what was ordered can't be counted", "certificate", j.cert.Name, "ca", ca, "err", endErr)
	}
	if err != nil {
		return err
	}
	if err := j.keep(ctx, iss, issued); err != nil {
		return err // the order stays: the next attempt resumes it, to the same certificate
	}
	j.dropOrders(ctx)
	return nil
}

// order gets a certificate. A key that is to be used again and that the CA refuses, as it does when others have shown it the
// key, is given up for a new one; whether the key was at fault, the new one's success tells.
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
	j.cfg.Logger.Warn("the CA refuses the key that is to be used again; taking a new one", "certificate", j.cert.Name, "ca", iss.Name(), "err", err)
	spki := state.PublicKey(string(req.Key))
	req.Key, req.Open = nil, nil
	issued, err = iss.Obtain(ctx, req)
	if err == nil || sure {
		if markErr := state.MarkKey(ctx, j.cfg.Storage, spki, state.CompromisedKey{Serial: j.state.Leaf.Serial, Why: blockedWhy}); markErr != nil {
			j.cfg.Logger.Warn("that a key is blocked can't be noted", "certificate", j.cert.Name, "err", markErr)
		}
	}
	return issued, err
}

// domains are what CAs count hostnames under.
func domains(hostnames []string) (list []string) {
	for _, h := range hostnames {
		list = append(list, budget.RegisteredDomain(h))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (j *job) progress(s issuer.Step) {
	if s.Name == issuer.Validated {
		j.answered(j.dnsParty())
	}
	if j.cfg.Progress != nil {
		j.cfg.Progress(j.cert.Name, s)
	}
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

// keep makes the bundle durable.
func (j *job) keep(ctx context.Context, iss *issuer.Issuer, issued *issuer.Bundle) error {
	before := *j.state
	j.adopt(&state.Bundle{
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
	}, issued.Cert)
	if err := state.SaveIssued(ctx, j.lease, j.state); err != nil {
		*j.state = before
		return err
	}
	return nil
}

// adopt makes a bundle the one that counts. What a CA suggested for another certificate says nothing about this one.
func (j *job) adopt(b *state.Bundle, leaf *x509.Certificate) {
	j.state.Bundle, j.state.X509 = b, leaf
	now := b.Describe(leaf)
	if old := j.state.ARI; j.state.Leaf.Fingerprint != now.Fingerprint {
		j.state.ARI = state.Suggestion{AskAgain: firstAsk(b.Issued, leaf)}
		if old.Urgent() {
			j.state.ARI.Hurries = old.Hurries + 1
		}
	}
	j.state.Leaf, j.state.BundleMark = now, b.Mark()
}

// firstAsk is when the CA is first asked about a new certificate: after a while, so that a CA that wants everything
// renewed at once can't make us order in a loop, and not for all certificates of a pass together.
func firstAsk(issued time.Time, cert *x509.Certificate) time.Time {
	tenth := max(cert.NotAfter.Sub(cert.NotBefore)/10, 0)
	wait := min(time.Hour, tenth)
	return issued.Add(wait + rand.N(min(5*time.Hour, tenth)+1)).UTC()
}
