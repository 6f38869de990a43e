package deploy

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"autocertd/internal/event"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/scheduler"
)

// longestRetry bounds the back-off: an administrator who has removed the cause waits no longer.
const longestRetry = time.Hour

// Use makes outputs and the names of certificates the ones that count. What failed is tried again soon: a person may have
// removed the cause.
func (d *Deployer) Use(outputs Outputs, names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := !reflect.DeepEqual(d.outputs, outputs)
	d.outputs, d.order = outputs, nil
	sites := make(map[string]*site, len(names))
	for _, name := range names {
		s := d.sites[name]
		if s == nil {
			s = &site{name: name}
		}
		if s.retry = (time.Time{}); changed {
			s.seen = 0
		}
		sites[name] = s
		d.order = append(d.order, s)
	}
	d.sites = sites
	maps.DeleteFunc(d.failing, func(name string, _ bool) bool { return sites[name] == nil })
}

// Failing returns the names of certificates whose outputs failed at the last try.
func (d *Deployer) Failing() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.failing))
}

// Changed takes note of the deployments of certificates, which another process may have saved.
func (d *Deployer) Changed(ctx context.Context, names []string) {
	for _, name := range names {
		here, err := state.LoadDeployment(ctx, d.config.Store, d.config.Node, name)
		if err != nil {
			continue // the next look says so
		}
		here.Sanitize(time.Now())
		d.mu.Lock()
		s := d.sites[name]
		other := s != nil && s.failures != here.Trouble.Failures
		d.mu.Unlock()
		if other {
			d.note(name, func(s *site) { s.failures, s.retry = here.Trouble.Failures, here.Trouble.RetryAt })
		}
	}
}

// AtRest reports whether Reconcile would find nothing to do for a bundle. It only reads, without the lease.
func (d *Deployer) AtRest(ctx context.Context, b *state.Bundle, leaf state.Leaf) bool {
	here, err := state.LoadDeployment(ctx, d.config.Store, d.config.Node, b.Name)
	return err == nil && here.Trouble.Failures == 0 && d.Right(bundleOf(b, leaf), d.outputsOf(b.Name), here.Outputs)
}

// Reconcile brings the outputs of a certificate on this host to its bundle, and reports whether that changed something. It
// has logged the error that it returns, if that is about outputs. What failed is tried again by Run, and whenever Reconcile
// is called. When ctx ends it leaves everything so that the next call goes on.
func (d *Deployer) Reconcile(ctx context.Context, name string) (changed bool, err error) {
	bundle, leaf, err := state.LoadBundle(ctx, d.config.Store, name)
	if bundle == nil { // there is none yet; or it can't be used, which is reported by who issues
		d.note(name, func(s *site) { s.absent = err == nil })
		return false, err
	}
	return d.Deploy(ctx, bundle, leaf)
}

// Deploy is Reconcile for a bundle that was just loaded or saved, and its leaf.
func (d *Deployer) Deploy(ctx context.Context, bundle *state.Bundle, leaf *x509.Certificate) (changed bool, err error) {
	name := bundle.Name
	lease, err := d.lease(ctx, name)
	if _, held := errors.AsType[*store.HeldError](err); held && ctx.Err() == nil {
		return false, nil // another process does it, and Run notices what that has done
	}
	if err != nil {
		return false, err
	}
	defer lease.Release()
	ctx, cancel := store.Within(ctx, lease)
	defer cancel()
	here, err := state.LoadDeployment(ctx, d.config.Store, d.config.Node, name)
	if err != nil {
		return false, err
	}
	now := time.Now()
	here.Sanitize(now)
	result, err := d.Apply(ctx, bundleOf(bundle, bundle.Describe(leaf)), d.outputsOf(name), here.Outputs)
	if ctx.Err() != nil && err != nil {
		return false, err
	}
	before := *here
	here.Outputs, here.Pending = result.State, result.Pending
	d.report(here, result, err, leaf)
	d.note(name, func(s *site) { s.settle(here, result.Repaired, now) })
	changed = len(result.Changed)+len(result.Reloaded) > 0 || before.Trouble.Failures > 0 && err == nil
	if reflect.DeepEqual(before, *here) {
		return changed, err
	}
	return changed, errors.Join(err, state.SaveDeployment(ctx, lease, d.config.Node, here))
}

// bundleOf returns what outputs are made of.
func bundleOf(b *state.Bundle, leaf state.Leaf) Bundle {
	return Bundle{
		Name:         b.Name,
		Hostnames:    leaf.Hostnames,
		Key:          []byte(b.Key),
		Leaf:         []byte(b.Leaf),
		Chain:        []byte(b.Chain),
		KeyElsewhere: b.CSR != nil,
		NotAfter:     leaf.NotAfter,
		Serial:       leaf.Serial,
		Fingerprint:  leaf.Fingerprint,
	}
}

// report notes the outcome of a pass in the deployment, and says it as an event.
func (d *Deployer) report(here *state.Deployment, result Result, err error, leaf *x509.Certificate) {
	e := event.Event{
		Kind:        event.Deployed,
		Certificate: here.Name,
		Details:     []slog.Attr{slog.Int("files", len(result.Changed)), slog.Any("reloaded", result.Reloaded)},
	}
	if len(result.Stopped) > 0 {
		e.Details = append(e.Details, slog.Any("not_running", result.Stopped))
	}
	if err == nil {
		if len(result.Changed)+len(result.Reloaded) > 0 || here.Trouble.Failures > 0 {
			d.config.Tell.Tell(e)
		}
		here.Trouble = state.Trouble{}
		return
	}
	now := time.Now()
	retry := scheduler.RetryAt(now, here.Trouble.Failures+1, rand.Float64(), time.Time{}, leaf.NotAfter.Sub(now))
	if latest := now.Add(longestRetry); retry.After(latest) {
		retry = latest
	}
	here.Trouble = here.Trouble.Next(err, now, retry)
	e.Kind, e.Retry, e.Err = event.NotDeployed, retry, err
	e.Details = append(e.Details, slog.Int("failures", here.Trouble.Failures))
	d.config.Tell.Tell(e)
}

func (d *Deployer) lease(ctx context.Context, name string) (store.Lease, error) {
	if d.config.Wait {
		return d.config.Store.Acquire(ctx, state.DeploymentLock(d.config.Node, name))
	}
	return d.config.Store.Try(ctx, state.DeploymentLock(d.config.Node, name))
}

func (d *Deployer) outputsOf(name string) []Output {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outputs.Of(name)
}

// note changes what is known of the outputs of a certificate, if it is configured.
func (d *Deployer) note(name string, change func(*site)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sites[name]; s != nil {
		s.seen = 0
		change(s)
		if s.failures > 0 {
			d.failing[name] = true
		} else {
			delete(d.failing, name)
		}
	}
}
