package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// window is renewal information (RFC 9773 section 4.2), from now.
func window(start, end time.Duration) string {
	now := time.Now().UTC()
	return fmt.Sprintf(`{"suggestedWindow": {"start": %q, "end": %q}, "explanationURL": "https://ca.test/why"}`,
		now.Add(start).Format(time.RFC3339), now.Add(end).Format(time.RFC3339))
}

// answers makes the CA answer renewal information for the certificate that there is.
func (p *process) answers(info string) {
	p.Helper()
	b, _ := p.bundle()
	if err := p.cas[0].SetRenewalInfo([]byte(b.Leaf), info); err != nil {
		p.Fatal(err)
	}
}

// askNow lets the time pass until the CA is asked for renewal information, for a certificate that isn't new.
func (p *process) askNow() {
	p.Helper()
	p.age(24 * time.Hour)
	p.edit(func(s *State) { s.ARI.AskAgain = time.Now().Add(-time.Second) })
}

func (p *process) ari() Suggestion {
	p.Helper()
	return p.status().ARI
}

func TestRenewalInfoIsOffTheWayOfIssuance(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	begin := time.Now()
	p.look()
	if err := p.Renew(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	if asked := w.cas[0].Requests()["renewalInfo"]; asked != 0 {
		t.Errorf("it was asked for %d times", asked)
	}
	if first := p.ari().AskAgain; first.Before(begin.Add(time.Hour)) || first.After(time.Now().Add(6*time.Hour)) {
		t.Errorf("it is asked for first in %v", time.Until(first))
	}
}

func TestMomentStaysAsLongAsTheWindow(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	info := window(30*24*time.Hour, 40*24*time.Hour)
	p.answers(info)
	p.askNow()
	p.look()
	chosen := p.ari()
	if chosen.Moment.Before(chosen.Start) || !chosen.Moment.Before(chosen.End) || chosen.Explanation != "https://ca.test/why" {
		t.Fatalf("the suggestion is %+v", chosen)
	}
	if s := p.status(); !s.RenewAt.Equal(chosen.Moment) || s.RenewWhy != "suggested by the CA" {
		t.Errorf("renewal is at %s (%s)", s.RenewAt, s.RenewWhy)
	}
	if wait := time.Until(chosen.AskAgain); wait <= 0 || wait > askAtMost*6/5 {
		t.Errorf("the CA is asked again in %v", wait)
	}

	for range 3 {
		p.askNow()
		p = w.start()
		p.look()
		if now := p.ari(); !now.Moment.Equal(chosen.Moment) || !now.ChosenAt.Equal(chosen.ChosenAt) {
			t.Errorf("the window stayed and the moment went from %s to %s", chosen.Moment, now.Moment)
		}
	}
	if asked := w.cas[0].Requests()["renewalInfo"]; asked != 4 {
		t.Errorf("asked %d times, want 4", asked)
	}

	p.answers(window(10*24*time.Hour, 11*24*time.Hour))
	p.askNow()
	p.look()
	if now := p.ari(); !now.Moment.Before(chosen.Start) {
		t.Errorf("the window moved and the moment stayed at %s", now.Moment)
	}
	if orders := w.cas[0].NewOrders(); orders != 1 {
		t.Errorf("%d orders", orders)
	}
}

func TestWindowInThePastRenewsOnce(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	_, old := p.bundle()
	p.answers(window(-2*time.Hour, -time.Hour))
	p.askNow()
	if next := p.look(); next.After(time.Now()) {
		t.Errorf("the next look is in %v, want at once", time.Until(next))
	}
	p.look()
	_, renewed := p.bundle()
	if renewed.Equal(old) || !strings.Contains(p.logged.String(), `why="the CA asks for it now"`) {
		t.Fatalf("it wasn't renewed\n%s", p.logged)
	}

	// A CA that wants every certificate renewed at once doesn't get an order at every look.
	p.answers(window(-2*time.Hour, -time.Hour))
	p.edit(func(s *State) { s.ARI.AskAgain = time.Now().Add(-time.Second) })
	for range 3 {
		p.look()
	}
	if orders := w.cas[0].NewOrders(); orders != 2 {
		t.Errorf("%d orders, want 2", orders)
	}
	if s := p.status(); s.Condition != Valid || time.Until(s.RenewAt) < settled-time.Minute {
		t.Errorf("the status is %+v", s)
	}
}

// TestWindowsThatMakeNoSense change nothing: what was chosen stays, all goes on, and the CA is asked again later.
func TestWindowsThatMakeNoSense(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	p.answers(window(30*24*time.Hour, 40*24*time.Hour))
	p.askNow()
	p.look()
	chosen := p.ari()
	for _, tt := range []struct{ what, info string }{
		{"no JSON", `never`},
		{"nothing", `{}`},
		{"an empty window", window(time.Hour, time.Hour)},
		{"the end first", window(2*time.Hour, time.Hour)},
		{"no end", `{"suggestedWindow": {"start": "2026-01-01T00:00:00Z"}}`},
		{"no times", `{"suggestedWindow": {"start": "soon", "end": "later"}}`},
		{"a list", `[1, 2]`},
		{"the year 10000", `{"suggestedWindow": {"start": "9999-12-30T00:00:00Z", "end": "9999-12-31T23:59:59-23:59"}}`},
		{"before the year 0", `{"suggestedWindow": {"start": "0000-01-01T00:00:00+23:59", "end": "2026-01-01T00:00:00Z"}}`},
	} {
		p.answers(tt.info)
		p.askNow()
		asked := w.cas[0].Requests()["renewalInfo"]
		p.look()
		now := p.ari()
		if w.cas[0].Requests()["renewalInfo"] != asked+1 || !now.AskAgain.After(time.Now()) {
			t.Errorf("%s: the CA wasn't asked, or is asked again at %s", tt.what, now.AskAgain)
		}
		if now.AskAgain = chosen.AskAgain; now != chosen {
			t.Errorf("%s: the suggestion is %+v, want %+v", tt.what, now, chosen)
		}
	}
	if s := p.status(); s.Condition != Valid || w.cas[0].NewOrders() != 1 {
		t.Errorf("the status is %+v after %d orders", s, w.cas[0].NewOrders())
	}
}
