package lifecycle

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/testbed"
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
	p.edit(func(s *state.Certificate) { s.ARI.AskAgain = time.Now().Add(-time.Second) })
}

func (p *process) ari() state.Suggestion {
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
	if s := p.status(); s.Condition != Due || s.RenewWhy != "the CA asks for it now: https://ca.test/why" {
		t.Errorf("the status is %s: %s", s.Condition, s.RenewWhy)
	}
	if tells := `level=WARN msg="the CA asks for a renewal now" certificate=web ca=one`; !strings.Contains(p.logged.String(), tells) {
		t.Errorf("the log doesn't tell %s\n%s", tells, p.logged)
	}
	if urgency := p.Urgency(name, time.Now()); urgency >= 0 {
		t.Errorf("its urgency is %v, no more than that of one that has expired", urgency)
	}
	p.look()
	_, renewed := p.bundle()
	if renewed.Equal(old) || !strings.Contains(p.logged.String(), `why="the CA asks for it now: https://ca.test/why"`) {
		t.Fatalf("it wasn't renewed\n%s", p.logged)
	}

	// A CA that wants every certificate renewed at once doesn't get an order at every look.
	p.answers(window(-2*time.Hour, -time.Hour))
	p.edit(func(s *state.Certificate) { s.ARI.AskAgain = time.Now().Add(-time.Second) })
	for range 3 {
		p.look()
	}
	if orders := w.cas[0].NewOrders(); orders != 2 {
		t.Errorf("%d orders, want 2", orders)
	}
	if s := p.status(); s.Condition != Valid || time.Until(s.RenewAt) < 2*settled-time.Minute {
		t.Errorf("the status is %+v", s)
	}
}

// TestSettling says how long a certificate is kept when its CA wants every one renewed at once.
func TestSettling(t *testing.T) {
	for _, tt := range []struct {
		what    string
		hurries int
		want    time.Duration
	}{
		{"nobody hurries", 0, settled},
		{"the one before was renewed at once, too", 1, 2 * settled},
		{"three before it", 3, 8 * settled},
		{"without end", 1000, 16 * 24 * time.Hour},
	} {
		if got := settling(state.Suggestion{Hurries: tt.hurries}); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}

// TestFirstHurry: after a mass revocation a certificate is renewed within minutes, however new it is.
func TestFirstHurry(t *testing.T) {
	now := time.Now()
	first := state.Suggestion{Moment: now.Add(-time.Hour), ChosenAt: now}
	if got := settling(first); got != hurried {
		t.Errorf("%v, want %v", got, hurried)
	}
	if first.Hurries = 1; settling(first) != 2*settled {
		t.Errorf("the second time: %v", settling(first))
	}
}

// TestHurriesEnd: a renewal in the ordinary course forgets those that the CA wanted at once.
func TestHurriesEnd(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	for want := range 3 {
		if got := p.ari().Hurries; got != want {
			t.Errorf("%d renewals at once count as %d", want, got)
		}
		p.suggest(-2*time.Hour, -time.Hour)
		p.edit(func(s *state.Certificate) { s.ARI.Hurries = want })
		p.look()
	}
	if err := p.Renew(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	if got := p.ari().Hurries; got != 0 {
		t.Errorf("after a renewal that the CA didn't ask for they still count: %d", got)
	}
}

// TestSilentRenewalInfo: a CA that doesn't answer holds nobody up, and is asked again later.
func TestSilentRenewalInfo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testbed.CAConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "renewalInfo") {
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(rw, r)
		})
	}})
	p := w.start()
	p.look()
	p.askNow()
	begin := time.Now()
	p.look()
	if took := time.Since(begin); took >= 2*askTimeout {
		t.Errorf("it took %v", took)
	}
	if again := p.ari().AskAgain; time.Until(again) < askDefault-time.Minute {
		t.Errorf("the CA is asked again in %v", time.Until(again))
	}
}

// TestExplanationIsAPage: what a CA sends is shown on terminals.
func TestExplanationIsAPage(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	for n, explanation := range []string{`\u001b[2Jhttps://ca.test/`, `https://ca.test/?\u009b2J`, `javascript:alert(1)`, `https:///nowhere`} {
		p.answers(strings.Replace(window(time.Hour, time.Duration(n+2)*time.Hour), "https://ca.test/why", explanation, 1))
		p.askNow()
		p.look()
		if s := p.ari(); s.Explanation != "" || s.Start.IsZero() {
			t.Errorf("%s: the suggestion is %+v", explanation, s)
		}
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
		{"no start", `{"suggestedWindow": {"end": "2026-01-01T00:00:00Z"}}`},
		{"no end", `{"suggestedWindow": {"start": "2026-01-01T00:00:00Z"}}`},
		{"no times", `{"suggestedWindow": {"start": "soon", "end": "later"}}`},
		{"a list", `[1, 2]`},
		{"null", `null`},
		{"numbers for times", `{"suggestedWindow": {"start": 1767225600, "end": 1767312000}}`},
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
