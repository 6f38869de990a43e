package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
)

const (
	lookInterval = time.Hour        // how often outputs are looked at when nothing else is due
	lockedRetry  = 15 * time.Second // when another process works on the certificate
	brokenRetry  = 50 * time.Second // when what is kept of one certificate can't be read or written
	removedRetry = 24 * time.Hour   // for a name that is on the list by mistake only
)

// job is one look at one certificate.
type job struct {
	*Manager
	lease    store.Lease // of the certificate
	snapshot *Snapshot
	cert     config.Certificate
	state    *state.Certificate
	insist   insistence
	ask      bool // the CA when it wants the certificate renewed, though it was asked a while ago
	silence  silence
}

// insistence is what a look doesn't wait for.
type insistence int

const (
	onSchedule insistence = iota // waits for everything
	byHand                       // a person asks: not for our own back-off, but for what a CA asked for
	forced                       // for nothing, and renews what isn't due
)

// Reconcile implements scheduler.Reconciler: it brings one certificate to what is configured, as far as that is due, and
// returns when to look again. It has logged the error that it returns, unless that is a *WaitingError. When ctx ends it
// leaves everything so that the next look goes on.
func (m *Manager) Reconcile(ctx context.Context, name string) (time.Time, error) {
	return m.reconcile(ctx, name, onSchedule, false)
}

// Retry is Reconcile for a person who asks for it: it tries at once what failed, though our own next try is later.
func (m *Manager) Retry(ctx context.Context, name string) error {
	_, err := m.reconcile(ctx, name, byHand, false)
	return err
}

// RetryNamed is Retry for a person who names the certificate: its CA is asked first when it wants it renewed.
func (m *Manager) RetryNamed(ctx context.Context, name string) error {
	_, err := m.reconcile(ctx, name, byHand, true)
	return err
}

// Renew is Reconcile, but renews whether it is due or not.
func (m *Manager) Renew(ctx context.Context, name string) error {
	_, err := m.reconcile(ctx, name, forced, false)
	return err
}

func (m *Manager) reconcile(ctx context.Context, name string, insist insistence, ask bool) (time.Time, error) {
	snapshot := m.snapshot.Load()
	snapshot.jobs.Add(1)
	defer snapshot.jobs.Add(-1)
	cert, ok := snapshot.Certificates[name]
	if !ok {
		return time.Now().Add(removedRetry), nil
	}
	lease, err := m.acquire(ctx, name)
	var held *store.HeldError
	switch {
	case errors.As(err, &held) && ctx.Err() == nil:
		m.cfg.Logger.Debug("another process works on the certificate", "certificate", name, "err", err)
		return time.Now().Add(lockedRetry), nil
	case err != nil:
		return m.broken(ctx, name, err)
	}
	j := &job{
		Manager:  m,
		lease:    lease,
		snapshot: snapshot,
		cert:     cert,
		insist:   insist,
		ask:      ask,
	}
	within, cancel := store.Within(ctx, lease)
	next, err := j.run(within)
	lost := within.Err() != nil && ctx.Err() == nil // another process may work on it by now
	if lost {
		next, err = m.broken(ctx, name, context.Cause(within))
	}
	cancel()
	lease.Release()
	if lost || ctx.Err() != nil || j.state == nil || j.state.Bundle == nil {
		return next, err
	}
	deployed, deployErr := m.cfg.Deployer.Deploy(ctx, j.state.Bundle, j.state.X509)
	if deployed && deployErr == nil {
		j.progress(issuer.Step{Name: Deployed})
	}
	return next, cure.Join(err, deployErr)
}

// run is what happens under the lease.
func (j *job) run(ctx context.Context) (time.Time, error) {
	if err := j.read(ctx); err != nil {
		return j.broken(ctx, j.cert.Name, err)
	}
	if err := j.load(ctx); err != nil {
		return j.unreadable(ctx, err)
	}
	if j.insist == byHand && j.state.Bundle != nil && j.due(time.Now()) == "" {
		j.askRenewalInfo(ctx) // the CA may want it renewed now, and nobody looks again after this
	}
	j.ask = false // the next one it is asked about in its own time
	issueErr := j.issueIfDue(ctx)
	disk := j.diskFailed(j.cert.Name, issueErr)
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err() // told to stop, which is nobody's failure; the next look finds what was done
	}
	j.askRenewalInfo(ctx)
	next := j.schedule(time.Now())
	if disk { // by then there may be room, though the state could be saved
		next = time.Now().Add(jitter(diskRetry))
		j.state.NextLook = next.UTC()
	}
	j.remember(j.state)
	if err := state.Save(ctx, j.lease, j.state); err != nil {
		next, err = j.broken(ctx, j.cert.Name, err)
		return next, cure.Join(issueErr, err)
	}
	j.tell(j.cert.Name, "")
	return next, issueErr
}

func (m *Manager) acquire(ctx context.Context, name string) (store.Lease, error) {
	if m.cfg.Wait {
		return m.cfg.Storage.Acquire(ctx, state.Lock(name))
	}
	return m.cfg.Storage.Try(ctx, state.Lock(name))
}

// broken is for failures of the state directory: nothing can be remembered, so only time helps, and what a person does. It is
// told once for each cause.
func (m *Manager) broken(ctx context.Context, name string, err error) (time.Time, error) {
	if ctx.Err() != nil {
		return time.Time{}, err
	}
	m.fail(name)
	if m.diskFailed(name, err) {
		return time.Now().Add(jitter(diskRetry)), err
	}
	next := time.Now().Add(jitter(brokenRetry))
	if m.tell(name, err.Error()) {
		m.cfg.Logger.Error("certificate can't be looked at", "certificate", name, "retry", next.UTC().Format(time.RFC3339), "err", err)
	}
	return next, err
}

// tell notes what is wrong with a certificate, "" when nothing is, and reports whether that is new.
func (m *Manager) tell(name, wrong string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told[name] == wrong {
		return false
	}
	m.told[name] = wrong
	if wrong == "" {
		delete(m.told, name)
	}
	return true
}

// read loads what is known of the certificate.
func (j *job) read(ctx context.Context) (err error) {
	if j.state, err = state.Load(ctx, j.cfg.Storage, j.cert.Name, j.cert.CAs); err != nil {
		return err
	}
	if err := state.DivideHost(ctx, j.cfg.Storage, j.lease, j.cfg.Node, j.state); err != nil {
		return err
	}
	j.state.Sanitize(time.Now())
	return nil
}

// load takes over the bundle. One that is damaged is set aside, and looked at as if there was none.
func (j *job) load(ctx context.Context) error {
	err := j.state.Faults.Bundle
	var damaged *state.DamagedError
	switch {
	case errors.As(err, &damaged):
		return j.setAside(ctx, damaged)
	case err != nil && ctx.Err() == nil && j.overdue(time.Now()):
		j.cfg.Logger.Error("bundle still can't be read, a new certificate is needed", "certificate", j.cert.Name, "err", err)
	case err != nil:
		return err
	case j.state.Bundle != nil:
		j.adopt(j.state.Bundle, j.state.X509)
	}
	return nil
}

// setAside keeps a damaged bundle for a person to look at.
func (j *job) setAside(ctx context.Context, damaged *state.DamagedError) error {
	key, err := state.SetAside(context.WithoutCancel(ctx), j.lease, j.cert.Name, damaged)
	if err != nil {
		return cure.Join(damaged, err)
	}
	j.cfg.Logger.Error("bundle set aside, a new certificate is needed", "certificate", j.cert.Name, "kept_as", key, "err", damaged)
	return nil
}

// overdue reports whether a bundle that can't be read has been waited for long enough: half of the time from its renewal
// to its expiry. Until then a person may put right what is wrong with the disk or its permissions, and no certificate is
// ordered that isn't needed.
func (j *job) overdue(now time.Time) bool {
	s := j.state
	return !now.Before(s.RenewAt.Add(s.Leaf.NotAfter.Sub(s.RenewAt) / 2)) // both zero when the state is lost too
}

// unreadable tells of a bundle that can't be read, in the status too. There is nothing to deploy, and the CA isn't asked.
func (j *job) unreadable(ctx context.Context, err error) (time.Time, error) {
	next, err := j.broken(ctx, j.cert.Name, err)
	if ctx.Err() != nil {
		return next, err
	}
	j.state.Issue = worse(j.state.Issue, err, time.Now(), next)
	j.state.NextLook = next.UTC()
	return next, cure.Join(err, state.Save(ctx, j.lease, j.state))
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

// worse returns the trouble after one more failure.
func worse(t state.Trouble, err error, now, retry time.Time) state.Trouble {
	next := t.Next(err, now, retry)
	_, next.AtCA = errors.AsType[*issuer.Error](err)
	return next
}
