package lifecycle

import (
	"os"
	"testing"
	"time"

	"autocertd/internal/state"
)

// TestAtRest changes one thing after the other that a look must not miss.
func TestAtRest(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	atRest := func() bool { return p.AtRest(p.ctx, []string{name})[name] }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if atRest() {
		t.Fatal("at rest before the first look")
	}
	bundle := w.path("state", "bundles", name+".json")
	privkey := w.path("state", "live", name, "privkey.pem")
	tests := []struct {
		what   string
		change func()
	}{
		{"another wish", func() { p.edit(func(s *state.Certificate) { s.Wish = "another" }) }},
		{"time to look", func() { p.edit(func(s *state.Certificate) { s.NextLook = time.Now() }) }},
		{"a failure", func() { p.edit(func(s *state.Certificate) { s.Issue = state.Trouble{Failures: 1} }) }},
		{"a deployment that failed", func() { p.editHost(func(d *state.Deployment) { d.Trouble = state.Trouble{Failures: 1} }) }},
		{"an output that isn't known", func() { p.editHost(func(d *state.Deployment) { d.Outputs = nil }) }},
		{"a renewal that is due", func() {
			p.makeDue(0)
			p.edit(func(s *state.Certificate) { s.NextLook = time.Now().Add(time.Hour) })
		}},
		{"no state", func() { p.forgetIssuing(); must(os.Remove(w.path("state", "states", name+".json"))) }},
		{"a torn state", func() { p.forgetIssuing(); must(os.Truncate(w.path("state", "states", name+".json"), 20)) }},
		{"a file that is gone", func() { must(os.Remove(privkey)) }},
		{"a file with another's content", func() { must(os.WriteFile(privkey, []byte("another"), 0o600)) }},
		{"a file that others may read", func() { must(os.Chmod(privkey, 0o644)) }},
		{"another bundle", func() {
			data, err := os.ReadFile(bundle)
			must(err)
			must(os.WriteFile(bundle, append(data, ' '), 0o600))
		}},
		{"an order that is open", func() {
			must(p.store.Save(p.ctx, state.OrderKey("one", name), []byte(`{}`)))
			t.Cleanup(func() { _ = p.store.Delete(t.Context(), state.OrderKey("one", name)) })
		}},
	}
	for _, tt := range tests {
		p.look()
		if !atRest() {
			t.Fatalf("not at rest before %s", tt.what)
		}
		tt.change()
		if atRest() {
			t.Errorf("at rest with %s", tt.what)
		}
	}
	must(p.store.Delete(p.ctx, state.OrderKey("one", name)))
	p.look()
	_, leaf := p.bundle()
	if names, err := state.MarkCompromised(p.ctx, p.store, leaf); err != nil || len(names) != 1 || atRest() {
		t.Errorf("at rest with a key that others may have (%v, %v)", names, err)
	}
}

// forgetIssuing makes the bundle one that nothing else was saved with, as they were before.
func (p *process) forgetIssuing() {
	p.Helper()
	b, _ := p.bundle()
	if err := state.SaveBundle(p.ctx, p.store, b); err != nil {
		p.Fatal(err)
	}
}
