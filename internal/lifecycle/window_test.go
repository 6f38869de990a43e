package lifecycle

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/scheduler"
)

// TestWindow looks at a certificate whose renewal is due since an hour ago, with a window that was missed or is open.
func TestWindow(t *testing.T) {
	t.Parallel()
	hour := time.Now().UTC().Hour()
	open := fmt.Sprintf("%02d:00-%02d:00", (hour+22)%24, (hour+2)%24)
	missed := fmt.Sprintf("%02d:00-%02d:00", (hour+16)%24, (hour+20)%24)
	tests := []struct {
		what     string
		window   string
		failures int // since the renewal is due
		byHand   bool
		renewed  bool
	}{
		{"no window", "", 0, false, true},
		{"the window is open", open, 0, false, true},
		{"the window was missed", missed, 0, false, false},
		{"a retry in the window", open, 2, false, true},
		{"a retry outside of it", missed, 2, false, false},
		{"a person who mended what failed", missed, 2, true, true},
		{"a person who mended nothing", missed, 0, true, false},
	}
	w := newWorld(t)
	p := w.start()
	for _, tt := range tests {
		if p.status().Leaf.Serial == "" {
			p.look() // the first certificate waits for no window
		}
		window, err := scheduler.ParseWindow(tt.window)
		if err != nil {
			t.Fatal(err)
		}
		snapshot := *p.snapshot.Load()
		snapshot.Window = window
		p.Use(&snapshot)
		p.makeDue(tt.failures)
		before := p.status()
		now := time.Now()
		if tt.byHand {
			err = p.Retry(p.ctx, name)
		} else {
			_, err = p.Reconcile(p.ctx, name)
		}
		if err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		after := p.status()
		if renewed := after.Leaf.Serial != before.Leaf.Serial; renewed != tt.renewed {
			t.Errorf("%s: renewed is %t", tt.what, renewed)
		}
		if tt.renewed {
			if after.Issue.Failures != 0 {
				t.Errorf("%s: there are %d failures still", tt.what, after.Issue.Failures)
			}
			continue
		}
		opens := window.Next(now).UTC()
		if !after.RenewAt.Equal(opens) || after.Issue.Failures != tt.failures || tt.failures > 0 && !after.Issue.RetryAt.Equal(opens) {
			t.Errorf("%s: renews at %s, next try at %s after %d failures; the window opens at %s", tt.what, after.RenewAt, after.Issue.RetryAt, after.Issue.Failures, opens)
		}
	}
}

// makeDue makes the certificate an old one, which the CA suggested to renew an hour ago, and which failed so many times since.
func (p *process) makeDue(failures int) {
	p.Helper()
	now := time.Now().UTC()
	bundle, _ := p.bundle()
	bundle.Issued = now.AddDate(0, 0, -20)
	c, err := state.LoadFacts(p.ctx, p.store, name)
	if err != nil {
		p.Fatal(err)
	}
	c.ARI = state.Suggestion{Start: now.Add(-2 * time.Hour), End: now.Add(time.Hour), Moment: now.Add(-time.Hour), ChosenAt: now.AddDate(0, 0, -5), AskAgain: now.Add(time.Hour)}
	c.Issue = state.Trouble{}
	if failures > 0 {
		c.Issue = state.Trouble{Failures: failures, Error: "no luck", At: now.Add(-time.Hour), RetryAt: now.Add(-time.Minute)}
	}
	data, err := json.Marshal(bundle)
	if err == nil {
		err = p.store.Save(p.ctx, "bundles/"+name+".json", data)
	}
	if err == nil {
		err = state.Save(p.ctx, p.store, c)
	}
	if err != nil {
		p.Fatal(err)
	}
}

// TestTickIsFarAway looks at a certificate whose renewal is due since an hour ago, while the schedule's next tick is far away.
func TestTickIsFarAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	snapshot := *p.snapshot.Load()
	var err error
	if snapshot.Schedule, err = scheduler.ParseSchedule("@every 8760h"); err != nil {
		t.Fatal(err)
	}
	p.Use(&snapshot)
	p.look() // the first certificate waits for no tick
	first := p.status().Leaf
	p.makeDue(0)
	p.look()
	if s := p.status(); s.Leaf.Serial != first.Serial || s.RenewWhy != "too little lifetime left to wait for the schedule" {
		t.Errorf("renewed before the tick, or planned for another reason than the emergency: %+v", s)
	}
	p.edit(func(s *state.Certificate) { s.ARI.ChosenAt = time.Now() }) // the CA wants it renewed at once
	p.look()
	second := p.status().Leaf
	if second.Serial == first.Serial {
		t.Error("not renewed at once, as the CA wishes")
	}
	p.makeDue(0)
	if err := p.Retry(p.ctx, name); err != nil || p.status().Leaf.Serial == second.Serial {
		t.Errorf("not renewed when a person asks: %v", err)
	}
}
