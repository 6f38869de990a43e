// Package lifecycle is what happens to one certificate: lock, compare, obtain, save, deploy, and when to look again. How
// a certificate is ordered, how records are published and where files go is the business of issuer, dns01 and deploy;
// when names are looked at is the scheduler's.
package lifecycle

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/event"
	"autocertd/internal/state"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// Config is what a Manager needs beside a snapshot.
type Config struct {
	Storage  state.Store
	Node     string           // of this host's deployments; "" is state.LocalNode
	Deployer *deploy.Deployer // nil: one of its own
	Logger   *slog.Logger     // of what is for developers alone; nil is fine
	Tell     event.Sink       // hears what happens; nil is fine
	// Progress is told of each step of a certificate as it happens; nil is fine.
	Progress func(name string, step issuer.Step)
	// Wake makes the names due that match, since what they waited for has come; nil is fine. It is called while a certificate
	// is worked on.
	Wake func(match func(name string) bool)
	// Wait makes Reconcile wait for a certificate that another process works on. Without it, it looks again later.
	Wait bool
}

// Ordering is the step before those of the issuer: the CA is asked for an order, or for the one that is open.
const Ordering issuer.StepName = "ordering"

// Deploying is the step before Deployed, when the files are in place and services are reloaded or commands run: their time.
const Deploying issuer.StepName = "deploying"

// Deployed is the step that follows those of the issuer: the files are where they belong and the services know.
const Deployed issuer.StepName = "deployed"

// Manager reconciles certificates. It implements scheduler.Reconciler.
type Manager struct {
	cfg      Config
	snapshot atomic.Pointer[Snapshot]
	ledgers  *ledgers

	probing sync.Mutex // guards probed, and is held during a probe
	probed  time.Time  // when the storage was last seen to take something

	disk disk

	mu       sync.RWMutex
	told     map[string]error    // why certificates can't be looked at, as it was logged
	lifetime map[string]lifetime // of the certificates that there are, for their urgency
	open     map[string]bool     // certificates whose order an earlier process left open, until they were looked at
	failing  map[string]bool
	revision map[string]int64           // of each certificate, as it was last loaded, or saved by this process
	silent   map[string]map[string]bool // who waits for whom: the names by party, see answered
	heard    map[string]time.Time       // when a party last answered
}

type lifetime struct {
	notBefore, notAfter time.Time
	hurry               bool
}

// New makes a manager; it needs a snapshot before the first Reconcile.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Node = cmp.Or(cfg.Node, state.LocalNode)
	if cfg.Deployer == nil {
		cfg.Deployer = deploy.New(deploy.Config{
			Store:  cfg.Storage,
			Node:   cfg.Node,
			Tell:   cfg.Tell,
			Logger: cfg.Logger,
			Wait:   cfg.Wait,
		})
	}
	return &Manager{
		cfg:      cfg,
		ledgers:  newLedgers(cfg.Storage, cfg.Wake),
		lifetime: map[string]lifetime{},
		failing:  map[string]bool{},
		revision: map[string]int64{},
		silent:   map[string]map[string]bool{},
		heard:    map[string]time.Time{},
		told:     map[string]error{},
	}
}

// Idle reports whether nothing goes by the snapshot, once another one is used.
func (s *Snapshot) Idle() bool { return s.jobs.Load() == 0 }

// Use makes a snapshot the one that counts. What runs keeps the one that it started with.
func (m *Manager) Use(s *Snapshot) {
	m.snapshot.Store(s)
	m.cfg.Deployer.Use(s.Outputs, slices.Collect(maps.Keys(s.Certificates)))
}

// Urgency orders due certificates: the fraction of the lifetime that is left. Before all those come the ones whose CA wants
// them renewed at once, since it is about to revoke them, and first of all those whose order an earlier process left open:
// the CA may be looking for its records just now.
func (m *Manager) Urgency(name string, now time.Time) float64 {
	m.mu.RLock()
	l, open := m.lifetime[name], m.open[name]
	m.mu.RUnlock()
	switch {
	case open:
		return -2
	case l.hurry:
		return -1
	}
	return scheduler.Left(now, l.notBefore, l.notAfter)
}

// Lane names what a certificate shares its troubles with: its CA, and with few domains its domain too.
func (m *Manager) Lane(name string) string {
	s := m.snapshot.Load()
	c, ok := s.Certificates[name]
	switch {
	case !ok:
		return ""
	case s.oneLane:
		return c.CAs[0]
	}
	return lane(c)
}

// Failing returns how many certificates had a failure at their last look, or at the last one at their files here.
func (m *Manager) Failing() int {
	here := m.cfg.Deployer.Failing()
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := len(m.failing)
	for _, name := range here {
		if !m.failing[name] {
			n++
		}
	}
	return n
}

// remember keeps in memory what Urgency and Failing need.
func (m *Manager) remember(s *state.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.snapshot.Load().Certificates[s.Name]; !ok {
		return // it left the configuration while it was worked on
	}
	delete(m.open, s.Name)
	m.revision[s.Name] = s.Revision
	m.lifetime[s.Name] = lifetime{s.Leaf.NotBefore, s.Leaf.NotAfter, s.ARI.Urgent()}
	m.awaits(s.Name, s.Issue)
	if s.Issue.Failures > 0 {
		m.failing[s.Name] = true
	} else {
		delete(m.failing, s.Name)
	}
}

// fail counts a certificate among the failing ones until the next look at it.
func (m *Manager) fail(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.snapshot.Load().Certificates[name]; ok {
		m.failing[name] = true
	}
}

// Items returns when each certificate of the snapshot is to be looked at, from the saved states: at once when it is new, when
// an order of it is open, when its configuration isn't what was last acted on, when it failed or is held for a reason that a person may just have
// mended, or when its state can't be read, which is told then.
func (m *Manager) Items(ctx context.Context) ([]scheduler.Item, error) {
	snapshot, now := m.snapshot.Load(), time.Now()
	open := m.openOrders(ctx)
	names := slices.Collect(maps.Keys(snapshot.Certificates))
	items := make([]scheduler.Item, len(names))
	var group errgroup.Group
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i, name := range names {
		items[i].Name = name
		group.Go(func() error {
			c, err := state.LoadFacts(ctx, m.cfg.Storage, name)
			if err == nil { // else it is this certificate's problem alone
				items[i].Due = m.noteSaved(snapshot, snapshot.Certificates[name], c, now)
			}
			if open[name] {
				items[i].Due = time.Time{}
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.open = open
	m.mu.Unlock()
	m.forget(snapshot)
	m.ledgers.leave(func(name string) bool { return snapshot.Certificates[name].Name == "" })
	return items, nil
}

// Changed returns the certificates among the names that another process has saved since this one knew them, with when each
// is to be looked at now.
func (m *Manager) Changed(ctx context.Context, names []string) (items []scheduler.Item) {
	snapshot, now := m.snapshot.Load(), time.Now()
	for _, name := range names {
		cert, ok := snapshot.Certificates[name]
		if !ok {
			continue
		}
		c, err := state.LoadFacts(ctx, m.cfg.Storage, name)
		if err != nil {
			continue // the next look says so
		}
		m.mu.RLock()
		revision := m.revision[name]
		m.mu.RUnlock()
		if c.Revision != revision {
			items = append(items, scheduler.Item{Name: name, Due: m.noteSaved(snapshot, cert, c, now)})
		}
	}
	return items
}

// noteSaved remembers what was saved of a certificate, and returns when it is to be looked at.
func (m *Manager) noteSaved(snapshot *Snapshot, cert config.Certificate, c *state.Certificate, now time.Time) (due time.Time) {
	switch {
	case snapshot.mayHaveMended(c.Issue):
	case c.IsHeld() && c.Held.Since.Before(snapshot.Reloaded): // the limits may be others now
	case c.Wish == snapshot.wish(cert):
		c.Sanitize(now)
		due = c.NextLook
	}
	m.remember(c)
	if c.IsHeld() {
		m.restoreHeld(snapshot, c, now)
	}
	return due
}

// openOrders returns the certificates that have an open order at one of their CAs.
func (m *Manager) openOrders(ctx context.Context) map[string]bool {
	open, err := state.OpenOrders(ctx, m.cfg.Storage)
	if err != nil {
		m.cfg.Tell.Tell(event.Event{Kind: event.OrdersNotListed, Err: err})
	}
	return open
}

// restoreHeld takes over a certificate that an earlier process left waiting for room at a CA.
func (m *Manager) restoreHeld(s *Snapshot, c *state.Certificate, now time.Time) {
	if ca, ok := s.CAs[c.Held.CA]; ok {
		m.ledgers.of(ca).restore(c.Name, c.Held, m.Urgency(c.Name, now))
	}
}

// forget drops what is remembered of certificates that are no longer configured.
func (m *Manager) forget(s *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := func(name string) bool { return s.Certificates[name].Name == "" }
	maps.DeleteFunc(m.lifetime, func(name string, _ lifetime) bool { return gone(name) })
	maps.DeleteFunc(m.failing, func(name string, _ bool) bool { return gone(name) })
	maps.DeleteFunc(m.revision, func(name string, _ int64) bool { return gone(name) })
	for _, names := range m.silent {
		maps.DeleteFunc(names, func(name string, _ bool) bool { return gone(name) })
	}
}

// jitter returns a duration between d and 1.2 d, so that what began together doesn't stay together.
func jitter(d time.Duration) time.Duration {
	return d + rand.N(d/5+1)
}
