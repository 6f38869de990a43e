package lifecycle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/issuer"
)

func TestFirstCertificate(t *testing.T) {
	w := newWorld(t)
	w.certificate = `hostnames = ["a.example.test", "*.a.example.test"]`
	p := w.start()
	begin := time.Now()
	next := p.look()

	b, leaf := p.bundle()
	if live := w.live(w.cas[0]); !live.Equal(leaf) {
		t.Error("the files hold another certificate than the bundle")
	}
	if b.CA != "one" || b.KeyType != "ecdsa-p256" || b.Account == "" || b.Issued.Before(begin) {
		t.Errorf("the bundle says %s, %s, %s, %s", b.CA, b.KeyType, b.Account, b.Issued)
	}
	state, err := state.LoadFacts(t.Context(), p.store, name)
	if err != nil {
		t.Fatal(err)
	}
	if state.Leaf.Fingerprint == "" || !slices.Equal(state.Leaf.Hostnames, b.Hostnames) || !state.NextLook.Equal(next) {
		t.Errorf("the state is %+v", state)
	}
	if least, most := begin.Add(lookInterval), time.Now().Add(2*lookInterval); next.Before(least) || next.After(most) {
		t.Errorf("the next look is in %v, want in one or two times %v", time.Until(next), lookInterval)
	}
	if s := p.status(); s.Condition != Valid || !s.RenewAt.After(begin.Add(59*24*time.Hour)) || s.LastError() != "" {
		t.Errorf("the status is %+v", s)
	}
	want := []issuer.StepName{Ordering, issuer.Ordered, issuer.Published, issuer.Seen, issuer.Validated, issuer.Issued, Deployed}
	if !slices.Equal(slices.Compact(p.steps), want) {
		t.Errorf("steps %v, want %v", p.steps, want)
	}
	p.end()
	w.clean(p)
}

// clean checks that no open order and no record are left.
func (w *world) clean(p *process) {
	w.Helper()
	for _, prefix := range []string{"orders", "journal"} {
		if left, err := p.store.List(w.Context(), prefix); err != nil || len(left) > 0 {
			w.Errorf("%s holds %v, %v", prefix, left, err)
		}
	}
	if left := w.dns.All(); len(left) > 0 {
		w.Errorf("records left: %v", left)
	}
}

func TestNothingDue(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	p.end()
	requests, updates, files := w.cas[0].Requests(), w.dns.Updates(), w.tree("state/live")
	p.store.written()
	for _, p := range []*process{p, w.start()} { // the same process and the next one
		p.look()
		// The moment of the next look is remembered, without waiting for the disk.
		if wrote := p.store.written(); !slices.Equal(wrote, []string{"SaveLazily " + "states/" + name + ".json"}) {
			t.Errorf("it wrote %v", wrote)
		}
	}
	if now := w.cas[0].Requests(); !mapsEqual(now, requests) {
		t.Errorf("the CA was asked: %v, then %v", requests, now)
	}
	if now := w.dns.Updates(); now != updates {
		t.Errorf("%d updates, then %d", updates, now)
	}
	if now := w.tree("state/live"); !slices.Equal(now, files) {
		t.Errorf("files were written: %v, then %v", files, now)
	}
}

func mapsEqual(a, b map[string]int) bool {
	for k := range b {
		if a[k] != b[k] {
			return false
		}
	}
	return len(a) == len(b)
}

// tree lists the files below a folder with their times.
func (w *world) tree(dir string) (list []string) {
	w.Helper()
	err := filepath.WalkDir(w.path(dir), func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		list = append(list, path+" "+info.ModTime().String())
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return list
}

// TestChanges says what a change of the configuration leads to, the next time that the certificate is looked at.
func TestChanges(t *testing.T) {
	const hostnames = `hostnames = ["a.example.test", "b.example.test"]`
	tests := []struct {
		name   string
		change func(w *world)
		why    string // in the log; "" when the certificate stays
		look   bool   // at once
	}{
		{"no change", func(*world) {}, "", false},
		{"another order of the hostnames", func(w *world) { w.certificate = `hostnames = ["b.example.test", "a.example.test"]` }, "", true},
		{"a hostname more", func(w *world) { w.certificate = `hostnames = ["a.example.test", "b.example.test", "c.example.test"]` }, "the hostnames changed", true},
		{"a hostname less", func(w *world) { w.certificate = `hostnames = ["b.example.test"]` }, "the hostnames changed", true},
		{"another key type", func(w *world) { w.certificate += "\nkey_type = \"ecdsa-p384\"" }, "the key type changed", true},
		{"another CA", func(w *world) { w.certificate += "\nca = [\"two\"]" }, "the CA changed", true},
		{"another CA to fall back to", func(w *world) { w.certificate += "\nca = [\"one\"]" }, "", true},
		{"the CA moved", func(w *world) { w.cas[0] = w.cas[1]; w.write("one.pem", w.cas[1].TLSRootsPEM()) }, "the CA changed", true},
		{"a profile", func(w *world) { w.certificate += "\nprofile = \"long\"" }, "the profile changed", true},
		{"a profile of the CA", func(w *world) { w.caLines[0] = `profile = "long"` }, "the profile changed", true},
		{"a profile of another CA", func(w *world) { w.caLines[1] = `profile = "long"` }, "", true},
		{"one more output", func(w *world) {
			w.tables = "[[output]]\nmatch = [\"*\"]\ndir = \"" + w.path("out") + "\"\nformat = \"combined\""
		}, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lifetimes := map[string]time.Duration{"default": 90 * 24 * time.Hour, "long": 100 * 24 * time.Hour}
			w := newWorld(t, caConfig(lifetimes), caConfig(lifetimes))
			w.certificate, w.caLines = hostnames, []string{`profile = "default"`, `profile = "default"`}
			p := w.start()
			p.look()
			_, before := p.bundle()
			tt.change(w)
			p.use()
			items, err := p.Items(t.Context())
			if err != nil || len(items) != 1 || items[0].Due.IsZero() != tt.look {
				t.Errorf("items are %v, %v; want a look at once: %v", items, err, tt.look)
			}
			p.look()
			_, after := p.bundle()
			if issued := !after.Equal(before); issued != (tt.why != "") || issued && !strings.Contains(p.logged.String(), "why=\""+tt.why+"\"") {
				t.Errorf("issued again: %v, want %q\n%s", issued, tt.why, p.logged)
			}
			if items, err := p.Items(t.Context()); err != nil || !items[0].Due.After(time.Now()) {
				t.Errorf("then items are %v, %v; want no look soon", items, err)
			}
		})
	}
}
