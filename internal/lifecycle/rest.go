package lifecycle

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
)

// AtRest returns those of the names for which there is nothing to do: nothing is due, nothing has failed, and the files are
// right. It only reads, without a lock and without a second look at keys, so that a pass over many certificates costs little.
// It notes what Urgency needs. What it isn't sure about isn't at rest: a look under the lock finds out.
func (m *Manager) AtRest(ctx context.Context, names []string) map[string]bool {
	marked, err := m.cfg.Storage.List(ctx, "compromised")
	sure := err == nil && len(marked) == 0 // else a certificate's key must be compared
	open := m.openOrders(ctx)
	found := make([]bool, len(names))
	var group errgroup.Group
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i, name := range names {
		group.Go(func() error {
			found[i] = m.atRest(ctx, name) && sure && !open[name]
			return nil
		})
	}
	_ = group.Wait() // there are no errors
	m.mu.Lock()
	m.open = open
	m.mu.Unlock()
	rest := make(map[string]bool, len(names))
	for i, name := range names {
		rest[name] = found[i]
	}
	return rest
}

func (m *Manager) atRest(ctx context.Context, name string) bool {
	snapshot := m.snapshot.Load()
	cert, ok := snapshot.Certificates[name]
	if !ok {
		return false
	}
	now := time.Now()
	state, err := loadState(ctx, m.cfg.Storage, name)
	if err != nil {
		return false
	}
	state.mend(now)
	m.remember(state)
	if state.held() {
		m.budgets.restore(name, state.Held, m.Urgency(name, now))
	}
	if state.Wish != snapshot.wish(cert) || state.Issue.Failures+state.Deploy.Failures > 0 || state.held() ||
		len(state.Pending)+len(state.ByHand) > 0 || state.Compromised != "" || !now.Before(state.NextLook) || state.Bundle == "" {
		return false
	}
	data, err := m.cfg.Storage.Load(ctx, bundleObject(name))
	if err != nil || markOf(data) != state.Bundle {
		return false
	}
	j := &job{Manager: m, snapshot: snapshot, cert: cert, state: state, insist: byHand, bundle: new(Bundle),
		leaf: &x509.Certificate{NotBefore: state.Leaf.NotBefore, NotAfter: state.Leaf.NotAfter}} // all that the rule looks at
	return json.Unmarshal(data, j.bundle) == nil && j.due(now) == "" &&
		m.cfg.Deployer.Right(j.deployable(), snapshot.Outputs.Of(name), state.Outputs)
}
