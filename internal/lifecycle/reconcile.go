package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/event"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
)

const (
	lockedRetry  = 15 * time.Second // when another process works on the certificate
	brokenRetry  = 50 * time.Second // when what is kept of one certificate can't be read or written
	removedRetry = 24 * time.Hour   // for a name that is on the list by mistake only
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

// reconcile takes the lease of a certificate, loads what is known, decides, issues and commits. Then it deploys here, under
// the lease of the deployment.
func (m *Manager) reconcile(ctx context.Context, name string, insist Insistence, ask bool) (time.Time, error) {
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
		snapshot: snapshot,
		cert:     cert,
		insist:   insist,
		lease:    lease,
	}
	within, cancel := store.Within(ctx, lease)
	next, err := j.run(within, ask)
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

func (m *Manager) acquire(ctx context.Context, name string) (store.Lease, error) {
	if m.cfg.Wait {
		return m.cfg.Storage.Acquire(ctx, state.Lock(name))
	}
	return m.cfg.Storage.Try(ctx, state.Lock(name))
}

// run is what happens under the lease. With ask, the CA is asked first whether it wants the certificate renewed, though it
// was asked a while ago.
func (j *job) run(ctx context.Context, ask bool) (time.Time, error) {
	if err := j.read(ctx); err != nil {
		return j.broken(ctx, j.cert.Name, err)
	}
	if err := j.open(ctx); err != nil {
		return j.unreadable(ctx, err)
	}
	if j.insist == byHand && j.state.Bundle != nil && j.view().due(time.Now()) == "" {
		j.renewalInfo(ctx, ask) // the CA may want it renewed now, and nothing looks again after this
	}
	d := Decide(time.Now(), j.view().Wish, j.state, Room{Answered: j.hasAnswered(j.state.Issue)})
	if d.Changed && d.Why == "" {
		j.tellContacts(ctx)
	}
	issueErr := j.commit(ctx, j.issue(ctx, d))
	disk := j.diskFailed(j.cert.Name, issueErr)
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err() // told to stop, which is nobody's failure; the next look finds what was done
	}
	j.renewalInfo(ctx, false)
	j.finish(time.Now(), disk)
	j.remember(j.state)
	if err := j.save(ctx); err != nil {
		next, err := j.broken(ctx, j.cert.Name, err)
		return next, cure.Join(issueErr, err)
	}
	j.isNew(j.cert.Name, nil)
	return j.state.NextLook, issueErr
}

// open takes over the bundle that was loaded, and drops the orders for keys that are compromised. A damaged bundle is set
// aside, and treated as if there was none.
func (j *job) open(ctx context.Context) error {
	if err := j.state.Faults.Compromised; err != nil && ctx.Err() == nil {
		j.tell(event.Event{Kind: event.KeyUnknown, Err: err})
	}
	j.dropOrders(ctx, j.state.Spoiled)
	err := j.state.Faults.Bundle
	var damaged *state.DamagedError
	switch {
	case errors.As(err, &damaged):
		key, err := state.SetAside(context.WithoutCancel(ctx), j.lease, j.cert.Name, damaged)
		if err != nil {
			return cure.Join(damaged, err)
		}
		j.tell(event.Event{Kind: event.BundleSetAside, Details: []slog.Attr{slog.String("kept_as", key)}, Err: damaged})
	case err != nil && ctx.Err() == nil && overdue(j.state, time.Now()):
		j.tell(event.Event{Kind: event.BundleUnreadable, Err: err})
	case err != nil:
		return err
	case j.state.Bundle != nil:
		j.takeOver(j.state.Bundle, j.state.X509)
	}
	return nil
}

// unreadable shows in the status that a bundle can't be read, too. There is nothing to deploy, and the CA isn't asked.
func (j *job) unreadable(ctx context.Context, err error) (time.Time, error) {
	next, err := j.broken(ctx, j.cert.Name, err)
	if ctx.Err() != nil {
		return next, err
	}
	j.commitUnreadable(err, next)
	return next, cure.Join(err, j.save(ctx))
}

// broken is for failures of the store: nothing can be remembered, so only time helps, and what a person does. Each cause is
// told once.
func (m *Manager) broken(ctx context.Context, name string, err error) (time.Time, error) {
	if ctx.Err() != nil {
		return time.Time{}, err
	}
	m.fail(name)
	if m.diskFailed(name, err) {
		return time.Now().Add(jitter(diskRetry)), err
	}
	next := time.Now().Add(jitter(brokenRetry))
	if m.isNew(name, err) {
		m.cfg.Tell.Tell(event.Event{Kind: event.NotLookedAt, Certificate: name, Retry: next, Err: err})
	}
	return next, err
}

// isNew notes what is wrong with a certificate, nil when nothing is, and reports whether its cause is new.
func (m *Manager) isNew(name string, wrong error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cure.Same(m.told[name], wrong) {
		return false
	}
	m.told[name] = wrong
	if wrong == nil {
		delete(m.told, name)
	}
	return true
}
