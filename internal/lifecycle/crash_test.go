package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// storageFaults are the writes of an issuance, one after the other, and how many orders the certificate takes when one of
// them fails. Dying before an order is remembered is all that may cost a second one.
func storageFaults() []storageFault {
	return []storageFault{
		{"the state, before anything", "SaveLazily", "states/", 0, 1, 1},
		{"the account's key", "Save", "accounts/", 0, 1, 1},
		{"the account", "Save", "accounts/", 1, 1, 1},
		{"the open order", "Save", "orders/", 0, 2, 1},
		{"the journal", "Save", "journal/", 0, 1, 1},
		{"the bundle", "Save", "bundles/", 0, 1, 1},
		{"the order that has served", "Delete", "orders/", 0, 1, 1},
		{"the journal, afterwards", "Delete", "journal/", 0, 1, 1},
		{"the deployment", "SaveLazily", "deployments/", 0, 1, 1},
	}
}

type storageFault struct {
	what       string
	op, prefix string
	skip       int
	orders     int // when the call had no effect
	ordersDone int // when it had
}

// TestStorageFaults walks the rows of what a crash leaves: each write of an issuance fails once, having taken effect or
// not, in a process that goes on or dies there.
func TestStorageFaults(t *testing.T) {
	for _, row := range storageFaults() {
		for _, effect := range []bool{false, true} {
			for _, dies := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, effect %t, dies %t", row.what, effect, dies), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					p := w.start()
					p.store.breaks(fault{Op: row.op, Prefix: row.prefix, Skip: row.skip, Effect: effect, Dies: dies})
					_, _ = p.Reconcile(p.ctx, name)
					p.end()
					if !p.store.hit() {
						t.Fatalf("the fault didn't happen; writes were %v", p.store.written())
					}
					orders := row.orders
					if effect {
						orders = row.ordersDone
					}
					w.heals(w.cas[0], orders)
				})
			}
		}
	}
}

// TestLostMessages is the same for what is said to the CA: each request of an issuance is lost, or its reply.
func TestLostMessages(t *testing.T) {
	for _, tt := range []struct {
		what, path string
		skip       int
		orders     int // when the reply is lost
	}{
		{"new account", "/sign-me-up", 0, 1},
		{"new order", "/order-plz", 0, 2},
		{"authorization", "/authZ/", 0, 1},
		{"challenge", "/chalZ/", 0, 1},
		{"authorization, polled", "/authZ/", 1, 1},
		{"finalize", "/finalize-order/", 0, 1},
		{"certificate", "/certZ/", 0, 1},
	} {
		for _, reply := range []bool{false, true} {
			for _, dies := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, reply %t, dies %t", tt.what, reply, dies), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					lost := &losing{Path: tt.path, Skip: tt.skip, Reply: reply, Dies: dies}
					p := w.startWith(Config{}, lost)
					_, _ = p.Reconcile(p.ctx, name)
					p.end()
					if !lost.hit() {
						t.Fatal("the fault didn't happen")
					}
					orders := 1
					if reply {
						orders = tt.orders
					}
					w.heals(w.cas[0], orders)
				})
			}
		}
	}
}

// heals starts another process on what the first one left, at the time of the next try, and checks that all is well then.
func (w *world) heals(ca *testbed.CA, orders int) {
	w.Helper()
	w.dns.OnUpdate(nil)
	p := w.start()
	if err := p.solver.Sweep(p.ctx); err != nil {
		w.Fatal(err)
	}
	p.retryNow()
	p.look()
	p.end()
	b, leaf := p.bundle()
	if live := w.live(ca); !live.Equal(leaf) {
		w.Error("the files hold another certificate than the bundle")
	}
	if s := p.status(); s.Condition != Valid || s.Leaf.Fingerprint != b.Describe(leaf).Fingerprint {
		w.Errorf("the status is %+v", s)
	}
	if got := ca.NewOrders(); got > orders {
		w.Errorf("%d orders, want at most %d", got, orders)
	}
	if left := w.dns.All(); len(left) > 0 {
		w.Errorf("records left: %v", left)
	}
	if left, err := p.store.List(w.Context(), "journal"); err != nil || len(left) > 0 {
		w.Errorf("the journal holds %v, %v", left, err)
	}
	w.renewsOnce(ca, b)
}

// renewsOnce checks that what is left of the crash isn't taken for the next certificate either.
func (w *world) renewsOnce(ca *testbed.CA, old *state.Bundle) {
	w.Helper()
	p, orders := w.start(), ca.NewOrders()
	p.look()
	if got := ca.NewOrders(); got != orders {
		w.Errorf("%d orders more, though nothing was due", got-orders)
	}
	if err := p.Renew(p.ctx, name); err != nil {
		w.Fatal(err)
	}
	p.end()
	if b, _ := p.bundle(); b.Key == old.Key || b.Leaf == old.Leaf {
		w.Error("the renewal gave the same certificate")
	}
	if got := ca.NewOrders(); got != orders+1 {
		w.Errorf("%d orders for the renewal", got-orders)
	}
	w.clean(p)
}

// retryNow moves the next try to this moment, as if the time until then had passed.
func (p *process) retryNow() {
	p.Helper()
	p.edit(func(s *state.Certificate) {
		s.Issue.RetryAt = time.Now()
		clear(s.AskAfter)
	})
	p.editHost(func(d *state.Deployment) { d.Trouble.RetryAt = time.Now() })
}

// edit changes what is remembered.
func (p *process) edit(change func(*state.Certificate)) {
	p.Helper()
	s, err := state.LoadFacts(p.Context(), p.store.Store, name)
	if err != nil {
		p.Fatal(err)
	}
	change(s)
	if err := state.Save(p.Context(), p.store, s); err != nil {
		p.Fatal(err)
	}
}

// editHost changes what is remembered of the files here.
func (p *process) editHost(change func(*state.Deployment)) {
	p.Helper()
	d, err := state.LoadDeployment(p.Context(), p.store.Store, state.LocalNode, name)
	if err != nil {
		p.Fatal(err)
	}
	change(d)
	if err := state.SaveDeployment(p.Context(), p.store, state.LocalNode, d); err != nil {
		p.Fatal(err)
	}
}

// TestCrashWhileRenewing dies after the new bundle is durable: what was remembered of the old certificate, and that the
// CA wanted it renewed, must not be taken for the new one's.
func TestCrashWhileRenewing(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	p.end()
	p.suggest(-2*time.Hour, -time.Hour)
	old, _ := p.bundle()

	p = w.start()
	p.store.breaks(fault{Op: "Save", Prefix: "bundles/", Effect: true, Dies: true})
	_, _ = p.Reconcile(p.ctx, name)
	p.end()
	if b, _ := w.start().bundle(); !p.store.hit() || b.Key == old.Key {
		t.Fatal("it didn't renew")
	}
	w.heals(w.cas[0], 2)
}

// TestLostLease takes the certificate from a process that waits for its records, and gives it to another. The first writes
// nothing more and breaks off; what it had begun is gone on with.
func TestLostLease(t *testing.T) {
	for _, at := range []issuer.StepName{issuer.Ordered, issuer.Published, issuer.Validated} {
		t.Run(string(at), func(t *testing.T) {
			w := newWorld(t)
			p := w.start()
			other, err := files.Open(w.path("state"), "another")
			if err != nil {
				t.Fatal(err)
			}
			var taken store.Lease
			p.Manager.cfg.Progress = func(_ string, step issuer.Step) {
				if step.Name != at || taken != nil {
					return
				}
				if err := os.Remove(w.path("state/locks/" + state.Lock(name) + ".lock")); err != nil {
					t.Error(err)
				}
				if taken, err = other.Try(t.Context(), state.Lock(name)); err != nil {
					t.Error(err)
				}
				p.store.written()
			}
			if _, err := p.Reconcile(p.ctx, name); !errors.Is(err, store.ErrLost) {
				t.Errorf("it ends with %v", err)
			}
			for _, object := range []string{"bundles/" + name + ".json", "states/" + name + ".json"} {
				if data, err := other.Load(t.Context(), object); err == nil && (strings.HasPrefix(object, "bundles") || bytes.Contains(data, []byte("failures"))) {
					t.Errorf("it wrote %s", object)
				}
			}
			p.end()
			taken.Release()
			w.heals(w.cas[0], 1)
		})
	}
}

// suggest makes it look as if the CA had suggested a window, from now, for a certificate that was issued a day ago.
func (p *process) suggest(start, end time.Duration) {
	p.Helper()
	now := time.Now().UTC()
	p.age(24 * time.Hour)
	p.edit(func(s *state.Certificate) {
		s.ARI = state.Suggestion{Start: now.Add(start), End: now.Add(end), Moment: now.Add(start), ChosenAt: now.Add(-time.Minute), AskAgain: now.Add(time.Hour)}
	})
}

// age makes the bundle look older.
func (p *process) age(by time.Duration) {
	p.Helper()
	data, err := p.store.Load(p.Context(), "bundles/"+name+".json")
	if err != nil {
		p.Fatal(err)
	}
	b, _ := p.bundle()
	was, now := b.Issued.Format(time.RFC3339Nano), b.Issued.Add(-by).Format(time.RFC3339Nano)
	if err := p.store.Save(p.Context(), "bundles/"+name+".json", bytes.Replace(data, []byte(was), []byte(now), 1)); err != nil {
		p.Fatal(err)
	}
}
