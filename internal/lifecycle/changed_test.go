package lifecycle

import (
	"testing"
	"time"

	"autocertd/internal/state"
)

// TestChanged: only what other processes have saved is reported, with the time that they left.
func TestChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	p.look()
	if items := p.Changed(p.ctx, []string{name, "unknown"}); len(items) != 0 {
		t.Errorf("its own saves are reported as %v", items)
	}
	other := w.start()
	c, err := state.LoadFacts(t.Context(), other.store, name)
	if err != nil {
		t.Fatal(err)
	}
	c.NextLook = time.Now().Add(time.Minute).UTC()
	if err := state.Save(t.Context(), other.store, c); err != nil {
		t.Fatal(err)
	}
	items := p.Changed(p.ctx, []string{name, "unknown"})
	if len(items) != 1 || items[0].Name != name || !items[0].Due.Equal(c.NextLook) {
		t.Errorf("reported as %v, want %s at %s", items, name, c.NextLook)
	}
	if items := p.Changed(p.ctx, []string{name}); len(items) != 0 {
		t.Errorf("what is known by now is reported as %v", items)
	}
}
