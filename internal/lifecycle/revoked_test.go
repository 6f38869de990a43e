package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// compromise marks the key of the certificate that there is, as another process does.
func (p *process) compromise() {
	p.Helper()
	_, leaf := p.bundle()
	names, err := state.MarkCompromised(p.Context(), p.store.Store, leaf)
	if err != nil || len(names) != 1 || names[0] != name {
		p.Fatalf("marked for %v, %v", names, err)
	}
}

// TestCompromisedKey: a certificate whose key was marked is replaced at once and once, with another key.
func TestCompromisedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	p.look()
	b, old := p.bundle()
	p.compromise()
	if items, err := p.Items(p.ctx); err != nil || !items[0].Due.IsZero() {
		t.Errorf("the next look is due %v, %v", items[0].Due, err)
	}
	p.look()
	after, renewed := p.bundle()
	if renewed.Equal(old) || after.Key == b.Key || !w.live(w.cas[0]).Equal(renewed) {
		t.Fatalf("it wasn't replaced\n%s", p.logged)
	}
	if !strings.Contains(p.logged.String(), `why="its key is compromised"`) {
		t.Errorf("the log doesn't say why\n%s", p.logged)
	}
	if s := p.status(); s.Condition != Valid || time.Until(s.RenewAt) < time.Hour {
		t.Errorf("afterwards the status is %s, renewed at %v", s.Condition, s.RenewAt)
	}
	p.look()
	if n := w.cas[0].NewOrders(); n != 2 {
		t.Errorf("%d orders, want 2", n)
	}
}

// TestCompromisedKeyWithoutState: the note counts although the state, which is written lazily, was lost with the power, and
// until the replacement is there the status says so.
func TestCompromisedKeyWithoutState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	p.look()
	p.compromise()
	if err := os.Remove(w.path("state", "states", name+".json")); err != nil {
		t.Fatal(err)
	}
	w.cas[0].Close()
	p.fails("can't be reached")
	if s := p.status(); s.Condition != Failing || s.RenewWhy != "its key is compromised" || s.RenewAt.After(time.Now()) {
		t.Errorf("the status is %s, renewed at %v: %s", s.Condition, s.RenewAt, s.RenewWhy)
	}
}

// TestCompromisedKeyOfAnOrder: an open order for the key isn't gone on with.
func TestCompromisedKeyOfAnOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	p.look()
	b, _ := p.bundle()
	keep := state.KeepOrder(p.store.Store, "one", name)
	if err := keep.Keep(context.Background(), issuer.OpenOrder{URL: "https://ca.invalid/order/1", Account: b.Account, Hostnames: b.Hostnames, Key: b.Key}); err != nil {
		t.Fatal(err)
	}
	p.compromise()
	j := &job{Manager: p.Manager, snapshot: p.snapshot.Load(), cert: p.cfg.Certificates[0]}
	j.lease = p.lease()
	defer j.lease.Release()
	if err := errors.Join(j.read(p.ctx), j.open(p.ctx)); err != nil {
		t.Fatal(err)
	}
	if open, err := state.LoadOrder(p.ctx, p.store, "one", name); open != nil || err != nil || !j.state.IsCompromised() {
		t.Errorf("the order is %+v, %v; compromised %t", open, err, j.state.IsCompromised())
	}
}

// TestKeyOfOthers: the mark is for one key.
func TestKeyOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	p.look()
	_, leaf := p.bundle()
	p.age(48 * time.Hour)
	if err := p.Renew(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	if names, err := state.MarkCompromised(t.Context(), p.store.Store, leaf); err != nil || len(names) != 0 {
		t.Errorf("the key of the certificate before is that of %v, %v", names, err)
	}
	p.look()
	if n := w.cas[0].NewOrders(); n != 2 {
		t.Errorf("%d orders, want 2", n)
	}
	notes, err := filepath.Glob(w.path("state", "compromised", "*.json"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("notes %v, %v", notes, err)
	}
	var note state.CompromisedKey
	data, err := os.ReadFile(notes[0])
	if err != nil || json.Unmarshal(data, &note) != nil || note.Serial == "" || note.Noted.IsZero() {
		t.Errorf("the note is %s, %v", data, err)
	}
}

// lease takes the lease of the certificate.
func (p *process) lease() store.Lease {
	p.Helper()
	lease, err := p.store.Acquire(p.ctx, state.Lock(name))
	if err != nil {
		p.Fatal(err)
	}
	return lease
}
