package lifecycle

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/testbed"
)

// TestDamagedBundle: a bundle of no use is kept for a person, told of, and replaced.
func TestDamagedBundle(t *testing.T) {
	whole := func(data []byte) string { return string(data) }
	for _, tt := range []struct {
		what   string
		damage func(data string) string
	}{
		{"empty", func(string) string { return "" }},
		{"torn", func(s string) string { return s[:len(s)/2] }},
		{"not ours", func(string) string { return `["a list"]` }},
		{"without a key", func(string) string { return `{"name": "web"}` }},
		{"with a broken certificate", func(s string) string { return strings.Replace(s, "BEGIN CERTIFICATE", "BEGIN NOTHING", 1) }},
		{"with a broken key", func(s string) string { return strings.Replace(s, `"key":"-----BEGIN`, `"key":"-----XXXXX`, 1) }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			ca := &moody{}
			w := newWorld(t, testbed.CAConfig{Wrap: ca.wrap})
			p := w.start()
			p.look()
			data, err := p.store.Load(t.Context(), "bundles/"+name+".json")
			if err != nil {
				t.Fatal(err)
			}
			damaged := tt.damage(whole(data))
			if damaged == whole(data) {
				t.Fatal("nothing is damaged")
			}
			if err := p.store.Save(t.Context(), "bundles/"+name+".json", []byte(damaged)); err != nil {
				t.Fatal(err)
			}

			ca.Status.Store(http.StatusTooManyRequests) // the first try fails
			p = w.start()
			p.fails("a bad day")
			p.fails("next try at")
			ca.Status.Store(0)
			p.retryNow()
			p.look()
			w.live(w.cas[0])
			p.look()
			kept, err := p.store.List(t.Context(), "damaged")
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept are %v, %v; want one", kept, err)
			}
			if copied, err := p.store.Load(t.Context(), kept[0]); err != nil || string(copied) != damaged {
				t.Errorf("%s isn't what was damaged: %v", kept[0], err)
			}
			if log := p.logged.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, kept[0]) || strings.Contains(log, "PRIVATE KEY") {
				t.Errorf("the log is\n%s", log)
			}
			if orders := w.cas[0].NewOrders(); orders != 2 {
				t.Errorf("%d orders, want 2", orders)
			}
		})
	}
}

// TestUnreadableBundle: a disk that fails costs no certificate before it must, and is told of until then.
func TestUnreadableBundle(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	_, old := p.bundle()
	p.store.breaks(fault{Op: "Load", Prefix: "bundles/", Always: true})
	begin := time.Now()
	if next := p.fails(errFault.Error()); next.Before(begin.Add(brokenRetry)) || next.After(time.Now().Add(2*brokenRetry)) {
		t.Errorf("the next look is in %v", time.Until(next))
	}
	if s := p.status(); s.Condition != Failing || !strings.Contains(s.LastError(), errFault.Error()) || p.Failing() != 1 {
		t.Errorf("the status is %+v, and %d are failing", s, p.Failing())
	}
	if w.cas[0].NewOrders() != 1 {
		t.Error("a certificate was ordered, though the old one is good for long")
	}

	p.store.breaks(fault{})
	p.look()
	if s := p.status(); s.Condition != Valid || s.Issue != (state.Trouble{}) || p.Failing() != 0 {
		t.Errorf("readable again, the status is %+v", s)
	}

	p.store.breaks(fault{Op: "Load", Prefix: "bundles/", Always: true})
	now := time.Now()
	p.edit(func(s *state.Certificate) {
		s.RenewAt, s.Leaf.NotAfter = now.Add(-20*24*time.Hour), now.Add(10*24*time.Hour)
	})
	p.look()
	p.store.breaks(fault{})
	if _, leaf := p.bundle(); leaf.Equal(old) || !w.live(w.cas[0]).Equal(leaf) {
		t.Error("close to its expiry it wasn't replaced")
	}
}

func TestUnreadableOrder(t *testing.T) {
	w := newWorld(t)
	w.dns.OnUpdate(refuseAll)
	p := w.start()
	p.fails("REFUSED")
	w.dns.OnUpdate(nil)
	p.retryNow()
	p.store.breaks(fault{Op: "Load", Prefix: "orders/", Always: true})
	p.look()
	w.live(w.cas[0])
}

// TestItems says which certificates are looked at when, at a start or a reload.
func TestItems(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	p.forgetIssuing()
	p.look()
	looked := p.status().NextLook
	for _, tt := range []struct {
		what  string
		state string // instead of the saved one; "" for that
		want  time.Time
	}{
		{"looked at before", "", looked},
		{"torn", `{"name": "web", "wi`, time.Time{}},
		{"empty", ``, time.Time{}},
		{"of another certificate", `{"name": "mail"}`, time.Time{}},
		{"of another time", `{"name": "web", "wish": "WISH", "next_look": "2999-01-01T00:00:00Z"}`, time.Time{}},
		{"acted on something else", `{"name": "web", "wish": "0123", "next_look": "2026-01-01T00:00:00Z"}`, time.Time{}},
	} {
		if tt.state != "" || tt.what == "empty" {
			wish := p.snapshot.Load().wish(p.cfg.Certificates[0])
			if err := p.store.Save(t.Context(), "states/"+name+".json", []byte(strings.Replace(tt.state, "WISH", wish, 1))); err != nil {
				t.Fatal(err)
			}
		}
		items, err := w.start().Items(t.Context())
		if err != nil || len(items) != 1 || items[0].Name != name || !items[0].Due.Equal(tt.want) {
			t.Errorf("%s: items are %v, %v; want one due at %s", tt.what, items, err, tt.want)
		}
	}
	if err := os.Remove(w.path("state", "states", name+".json")); err != nil {
		t.Fatal(err)
	}
	if items, err := w.start().Items(t.Context()); err != nil || !items[0].Due.IsZero() {
		t.Errorf("without a state: %v, %v", items, err)
	}

	// One state that the disk doesn't give keeps no other certificate from being looked at.
	p.certificate += "\n[[certificate]]\nname = \"mail\"\nhostnames = [\"mail.example.test\"]"
	p = w.start()
	p.store.breaks(fault{Op: "Load", Prefix: "states/" + name + ".json", Always: true})
	if items, err := p.Items(t.Context()); err != nil || len(items) != 2 {
		t.Errorf("with a state that can't be read: %v, %v", items, err)
	}
	p.fails(errFault.Error())
	if p.Failing() != 1 {
		t.Error("it doesn't count as failing")
	}

	// What left the configuration counts no more, even if it was being worked on.
	p.certificate = "hostnames = [\"b.example.test\"]\n[[certificate]]\nname = \"mail\"\nhostnames = [\"mail.example.test\"]"
	only := *p.snapshot.Load()
	only.Certificates = map[string]config.Certificate{"mail": only.Certificates["mail"]}
	p.Use(&only)
	p.fail(name)
	if _, err := p.Items(t.Context()); err != nil || p.Failing() != 0 {
		t.Errorf("%v, and %d are failing", err, p.Failing())
	}
	if next, err := p.Reconcile(t.Context(), name); err != nil || next.Before(time.Now().Add(time.Hour)) {
		t.Errorf("a name that isn't configured: %v, %v", next, err)
	}
}

// TestUrgency: the one that has used up most of its lifetime is the most urgent.
func TestUrgency(t *testing.T) {
	m := New(Config{})
	m.Use(&Snapshot{Certificates: map[string]config.Certificate{"old": {}, "young": {}, "new": {}, "dead": {}}})
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 80, "young": 10, "dead": 100} {
		begin := now.Add(-age * time.Hour)
		m.remember(&state.Certificate{Name: name, Leaf: state.Leaf{NotBefore: begin, NotAfter: begin.Add(90 * time.Hour)}})
	}
	names := []string{"young", "old", "new", "dead"}
	slices.SortFunc(names, func(a, b string) int {
		return int(1000*m.Urgency(a, now)) - int(1000*m.Urgency(b, now))
	})
	if want := []string{"dead", "old", "young", "new"}; !slices.Equal(names, want) {
		t.Errorf("the order is %v, want %v", names, want)
	}
}

func TestMend(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	far := now.AddDate(10, 0, 0)
	soon := now.Add(time.Hour)
	good := state.Certificate{NextLook: soon, Issue: state.Trouble{Failures: 2, At: now.Add(-time.Minute), RetryAt: soon},
		ARI:      state.Suggestion{Moment: far, ChosenAt: now.Add(-time.Hour), AskAgain: soon},
		AskAfter: map[string]time.Time{"one": now.Add(state.LongestWait)}}
	for _, tt := range []struct {
		what string
		bad  func(s *state.Certificate)
		want func(s *state.Certificate)
	}{
		{"a good state stays", func(*state.Certificate) {}, func(*state.Certificate) {}},
		{"a second ahead is no other clock", func(s *state.Certificate) { s.Issue.At = now.Add(time.Second) }, func(s *state.Certificate) { s.Issue.At = now.Add(time.Second) }},
		{"a next look in years", func(s *state.Certificate) { s.NextLook = far }, func(s *state.Certificate) { s.NextLook = time.Time{} }},
		{"a failure in years", func(s *state.Certificate) { s.Issue.At, s.Issue.RetryAt = far, far.Add(time.Minute) }, func(s *state.Certificate) { s.Issue.At, s.Issue.RetryAt, s.AskAfter = far, time.Time{}, nil }},
		{"a failure in an hour", func(s *state.Certificate) { s.Issue.At = soon }, func(s *state.Certificate) { s.Issue.At, s.Issue.RetryAt, s.AskAfter = soon, time.Time{}, nil }},
		{"a next try in years", func(s *state.Certificate) { s.Issue.RetryAt = far }, func(s *state.Certificate) { s.Issue.RetryAt = time.Time{} }},
		{"a moment chosen in years", func(s *state.Certificate) { s.ARI.ChosenAt = far }, func(s *state.Certificate) { s.ARI = state.Suggestion{} }},
		{"a question in years", func(s *state.Certificate) { s.ARI.AskAgain = far }, func(s *state.Certificate) { s.ARI = state.Suggestion{} }},
		{"a CA to be asked in years", func(s *state.Certificate) { s.AskAfter = map[string]time.Time{"one": far} }, func(s *state.Certificate) { s.AskAfter = map[string]time.Time{} }},
		{"fewer failures than none", func(s *state.Certificate) { s.Issue.Failures = -5 }, func(s *state.Certificate) { s.Issue.Failures = 0 }},
	} {
		got, want := good, good
		got.AskAfter, want.AskAfter = map[string]time.Time{"one": now.Add(state.LongestWait)}, map[string]time.Time{"one": now.Add(state.LongestWait)}
		tt.bad(&got)
		tt.want(&want)
		got.Sanitize(now)
		if g, w := asJSON(t, got), asJSON(t, want); g != w {
			t.Errorf("%s:\n%s, want\n%s", tt.what, g, w)
		}
	}
}

// TestClockThatWasAhead: what failed in another time is tried in this one.
func TestClockThatWasAhead(t *testing.T) {
	w := newWorld(t)
	w.dns.OnUpdate(refuseAll)
	p := w.start()
	p.fails("REFUSED")
	w.dns.OnUpdate(nil)
	p.edit(func(s *state.Certificate) {
		far := time.Now().AddDate(10, 0, 0)
		s.Issue.At, s.Issue.RetryAt, s.NextLook = far, far.Add(time.Minute), far.Add(time.Minute)
	})
	p.look()
	if next := p.look(); next.After(time.Now().Add(2 * lookInterval)) {
		t.Errorf("the next look is at %s", next)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
