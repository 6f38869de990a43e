package lifecycle

import (
	"context"
	"crypto/x509"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/state"
)

// AtRest returns those of the names for which there is nothing to do: nothing is due, nothing has failed, and the files are
// right. It only reads, without a lock and without a second look at keys, so that a pass over many certificates costs little.
// It notes what Urgency needs. What it isn't sure about isn't at rest: a look under the lock finds out.
func (m *Manager) AtRest(ctx context.Context, names []string) map[string]bool {
	marked, err := state.AnyCompromised(ctx, m.cfg.Storage)
	sure := err == nil && !marked // else a certificate's key must be compared
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
	c, err := state.LoadFacts(ctx, m.cfg.Storage, name)
	if err != nil {
		return false
	}
	c.Sanitize(now)
	m.remember(c)
	if c.IsHeld() {
		m.restoreHeld(snapshot, c, now)
	}
	if c.Wish != snapshot.wish(cert) || c.Issue.Failures > 0 || c.IsHeld() ||
		len(c.ByHand) > 0 || c.Compromised != "" || !now.Before(c.NextLook) {
		return false
	}
	if c.Bundle = c.Settled(); c.Bundle == nil {
		return false
	}
	c.X509 = &x509.Certificate{NotBefore: c.Leaf.NotBefore, NotAfter: c.Leaf.NotAfter} // all that the rule looks at
	j := &job{
		Manager:  m,
		snapshot: snapshot,
		cert:     cert,
		state:    c,
		insist:   byHand,
	}
	return j.view().due(now) == "" && m.cfg.Deployer.AtRest(ctx, c.Bundle, c.Leaf)
}
