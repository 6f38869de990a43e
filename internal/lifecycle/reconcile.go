package lifecycle

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/storage"
	"autocertd/issuer"
	"autocertd/scheduler"
)

const (
	lookInterval = time.Hour        // how often outputs are looked at when nothing else is due
	lockedRetry  = 15 * time.Second // when another process works on the certificate
	brokenRetry  = 10 * time.Minute // when the state directory itself fails
	removedRetry = 24 * time.Hour   // for a name that is on the list by mistake only
)

// job is one look at one certificate.
type job struct {
	*Manager
	snapshot *Snapshot
	cert     config.Certificate
	state    *State
	bundle   *Bundle           // nil before the first
	leaf     *x509.Certificate // of the bundle
	force    bool
}

// Reconcile implements scheduler.Reconciler: it brings one certificate to what is configured, as far as that is due, and
// returns when to look again. It has logged the error that it returns.
func (m *Manager) Reconcile(ctx context.Context, name string) (time.Time, error) {
	return m.reconcile(ctx, name, false)
}

// Renew is Reconcile, but renews whether it is due or not.
func (m *Manager) Renew(ctx context.Context, name string) error {
	_, err := m.reconcile(ctx, name, true)
	return err
}

func (m *Manager) reconcile(ctx context.Context, name string, force bool) (time.Time, error) {
	snapshot := m.snapshot.Load()
	cert, ok := snapshot.Certificates[name]
	if !ok {
		return time.Now().Add(removedRetry), nil
	}
	unlock, err := m.lock(ctx, name)
	var held *storage.HeldError
	switch {
	case errors.As(err, &held) && ctx.Err() == nil:
		m.cfg.Logger.Debug("another process works on the certificate", "certificate", name, "err", err)
		return time.Now().Add(lockedRetry), nil
	case err != nil:
		return m.broken(ctx, name, err)
	}
	defer unlock()
	j := &job{Manager: m, snapshot: snapshot, cert: cert, force: force}
	if err := j.load(ctx); err != nil {
		return m.broken(ctx, name, err)
	}
	issueErr := j.issueIfDue(ctx)
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err() // told to stop, which is nobody's failure
	}
	deployErr := j.deploy(ctx)
	j.askRenewalInfo(ctx)
	next := j.schedule(time.Now())
	m.remember(j.state)
	if err := m.saveState(ctx, j.state); err != nil {
		return m.broken(ctx, name, errors.Join(issueErr, deployErr, err))
	}
	return next, errors.Join(issueErr, deployErr)
}

func (m *Manager) lock(ctx context.Context, name string) (func(), error) {
	if m.cfg.Wait {
		return m.cfg.Storage.Lock(ctx, lockName(name))
	}
	return m.cfg.Storage.TryLock(ctx, lockName(name))
}

// broken is for failures of the state directory: nothing can be remembered, so only time helps.
func (m *Manager) broken(ctx context.Context, name string, err error) (time.Time, error) {
	if ctx.Err() == nil {
		m.cfg.Logger.Error("certificate can't be looked at", "certificate", name, "err", err)
	}
	return time.Now().Add(jitter(brokenRetry)), err
}

func (j *job) load(ctx context.Context) (err error) {
	if j.state, err = j.loadState(ctx, j.cert.Name); err != nil {
		return err
	}
	if j.bundle, err = j.loadBundle(ctx, j.cert.Name); err != nil || j.bundle == nil {
		return err
	}
	return j.readLeaf()
}

func (j *job) readLeaf() (err error) {
	block, _ := pem.Decode([]byte(j.bundle.Leaf))
	if block == nil {
		return fmt.Errorf("bundle of %s holds no certificate", j.cert.Name)
	}
	if j.leaf, err = x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("bundle of %s: %w", j.cert.Name, err)
	}
	j.state.Leaf = describe(j.leaf, j.bundle)
	return nil
}

// due says why a certificate is to be issued now, "" when it isn't.
func (j *job) due(now time.Time) (why string) {
	if j.bundle == nil {
		return "there is none yet"
	}
	if differs := j.bundle.fits(j.cert, j.snapshot.Issuers); differs != "" {
		return differs
	}
	if at, why := scheduler.RenewAt(j.facts()); !now.Before(at) {
		return why
	}
	if j.force {
		return "forced"
	}
	return ""
}

func (j *job) facts() scheduler.Facts {
	return scheduler.Facts{NotBefore: j.leaf.NotBefore, NotAfter: j.leaf.NotAfter,
		Suggested: j.state.ARI.Moment, Chosen: j.state.ARI.ChosenAt,
		Window: j.snapshot.Window, Emergency: j.snapshot.Emergency}
}

// issueIfDue obtains a certificate when one is due and no earlier failure says to wait. A changed wish doesn't wait: the
// change may be the cure.
func (j *job) issueIfDue(ctx context.Context) error {
	mark := wish(j.cert, j.snapshot.outputs(j.cert.Name))
	changed := j.state.Wish != mark
	j.state.Wish = mark
	now := time.Now()
	why := j.due(now)
	if why == "" {
		j.state.Issue = Trouble{}
		return nil
	}
	if now.Before(j.state.Issue.RetryAt) && !changed && !j.force {
		return nil
	}
	err := j.obtain(ctx, why)
	if err == nil {
		j.state.Issue = Trouble{}
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	now = time.Now()
	failures := j.state.Issue.Failures + 1
	retry := scheduler.RetryAt(now, failures, rand.Float64(), issuer.RetryAfter(err), j.state.Leaf.NotAfter.Sub(now))
	j.state.Issue = Trouble{Failures: failures, Error: err.Error(), At: now.UTC(), RetryAt: retry.UTC()}
	j.cfg.Logger.Warn("certificate not issued", "certificate", j.cert.Name, "why_due", why, "failures", failures,
		"retry", retry.UTC().Format(time.RFC3339), "err", err)
	return err
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
	if j.leaf != nil {
		s.RenewAt, s.RenewWhy = scheduler.RenewAt(j.facts())
		sooner(s.ARI.AskAgain)
	}
	if s.Issue.Failures > 0 {
		sooner(s.Issue.RetryAt)
	} else {
		sooner(s.RenewAt)
	}
	if s.Deploy.Failures > 0 {
		sooner(s.Deploy.RetryAt)
	}
	s.NextLook = next.UTC()
	return next
}
