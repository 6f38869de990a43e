package lifecycle

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/knownca"
	"autocertd/internal/state"
	"autocertd/issuer"
)

const planDay = 24 * time.Hour

// planned is a certificate as a plan sees it: issued so long ago for so long, or not issued at all.
func planned(t *testing.T, certificate string, age, lifetime time.Duration, change func(*state.Certificate)) facts {
	t.Helper()
	const directory = "https://ca.test/dir"
	iss, err := issuer.New(issuer.Config{Name: "one", Directory: directory})
	if err != nil {
		t.Fatal(err)
	}
	s := &Snapshot{CAs: map[string]config.CA{"one": {Name: "one", Directory: directory}, "two": {Name: "two", Directory: "https://other.test/dir"}},
		Issuers: map[string]*issuer.Issuer{"one": iss}}
	f := facts{&job{snapshot: s, state: &state.Certificate{Name: certificate}, cert: config.Certificate{Name: certificate,
		Hostnames: []string{certificate + ".example.com"}, CAs: []string{"one"}}}}
	if lifetime > 0 {
		from := planNow().Add(-age)
		f.state.Bundle = &state.Bundle{CA: "one", Directory: directory, Issued: from, Hostnames: f.cert.Hostnames}
		f.state.X509 = &x509.Certificate{NotBefore: from, NotAfter: from.Add(lifetime)}
		f.state.Leaf = state.Leaf{NotBefore: from, NotAfter: from.Add(lifetime)}
	}
	if change != nil {
		change(f.state)
	}
	return f
}

func planNow() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

func TestPlan(t *testing.T) {
	limits := knownca.Limits{Domain: knownca.Rate{Count: 1, Per: 10 * planDay}}
	after := func(d time.Duration) time.Time { return planNow().Add(d) }
	tests := []struct {
		what  string
		facts []facts
		want  string // name@day why, and marks
	}{
		{"nothing is configured", nil, ""},
		{"a new one now, a renewal when it is due", []facts{planned(t, "old", 30*planDay, 90*planDay, nil), planned(t, "new", 0, 0, nil)},
			"new@0 there is none yet (first, last)\nold@30 two thirds of the lifetime (last)"},
		{"two new ones take turns", []facts{planned(t, "a", 0, 0, nil), planned(t, "b", 0, 0, nil)},
			"a@0 there is none yet (first, last)\nb@10 there is none yet (first, held, last)"},
		{"who waits for longer comes first, as budgets have it", []facts{planned(t, "a", 0, 0, nil), planned(t, "b", 0, 0, func(s *state.Certificate) {
			s.Held = state.Held{CA: "one", Since: after(-planDay), Until: after(planDay)}
		})}, "b@0 there is none yet (first, last)\na@10 there is none yet (first, held, last)"},
		{"a renewal is more urgent than a new one", []facts{planned(t, "a", 0, 0, nil), planned(t, "z", 80*planDay, 90*planDay, nil)},
			"z@0 two thirds of the lifetime (last)\na@10 there is none yet (first, held, last)"},
		{"in the CA's window it is free", []facts{planned(t, "a", 0, 0, nil), planned(t, "z", 70*planDay, 90*planDay, func(s *state.Certificate) {
			s.ARI = state.Suggestion{Start: after(0), End: after(planDay), Moment: after(time.Hour), ChosenAt: after(-planDay)}
		})}, "a@0 there is none yet (first, last)\nz@0.0417 suggested by the CA (free)"},
		{"one that failed waits for its next try", []facts{planned(t, "a", 0, 0, func(s *state.Certificate) {
			s.Issue = state.Trouble{Failures: 2, RetryAt: after(6 * time.Hour)}
		})}, "a@0.25 there is none yet; the next try after a failure (first, last)"},
		{"one expires before its turn comes", []facts{planned(t, "a", 89*planDay, 90*planDay, nil), planned(t, "b", 88*planDay, 90*planDay, nil)},
			"a@0 two thirds of the lifetime (last)\nb@10 two thirds of the lifetime (held, last, late)"},
	}
	for _, tt := range tests {
		ledgers := map[string]*budget.Ledger{"one": {Limits: limits}}
		var lines []string
		for _, p := range plan(tt.facts, ledgers, planNow()) {
			var marks []string
			for mark, set := range map[string]bool{"first": p.First, "free": p.Exempt, "held": p.Held != "", "late": p.Late(), "last": len(p.Last) > 0} {
				if set {
					marks = append(marks, mark)
				}
			}
			lines = append(lines, fmt.Sprintf("%s@%.3g %s (%s)", p.Name, p.At.Sub(planNow()).Hours()/24, p.Why, strings.Join(slices.Sorted(slices.Values(marks)), ", ")))
		}
		if got := strings.Join(lines, "\n"); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.what, got, tt.want)
		}
	}
}

func TestSimulate(t *testing.T) {
	hours := func(n int) time.Duration { return time.Duration(n) * time.Hour }
	everyDay := knownca.Limits{Set: knownca.Rate{Count: 1, Per: planDay}, Orders: knownca.Rate{Count: 1, Per: planDay}}
	tests := []struct {
		what     string
		scenario Scenario
		limits   knownca.Limits
		facts    []facts
		want     string // outage in hours from now, who is first and how many hours are left then, expired of delayed
	}{
		{"nothing there", Scenario{Outage: hours(48)}, knownca.Limits{}, []facts{planned(t, "new", 0, 0, nil)}, "nil"},
		{"long lives don't mind", Scenario{Outage: hours(48)}, knownca.Limits{}, []facts{planned(t, "a", 0, 90*planDay, nil)},
			"1440 to 1488: a 672, 0 of 1"},
		{"short lives have a day and a half left", Scenario{Lifetime: hours(160), Outage: hours(48)}, knownca.Limits{}, []facts{planned(t, "a", 0, 0, nil)},
			"80 to 128: a 32, 0 of 1"},
		{"or too little", Scenario{Lifetime: hours(160), Outage: hours(100)}, knownca.Limits{}, []facts{planned(t, "a", 0, 0, nil), planned(t, "b", 0, 0, nil)},
			"80 to 180: a -20, 2 of 2"},
		{"the one with the least time left is first", Scenario{Outage: hours(48)}, knownca.Limits{},
			[]facts{planned(t, "a", 0, 90*planDay, nil), planned(t, "b", 0, hours(160), nil), planned(t, "c", 0, hours(170), nil)},
			"80 to 128: b 32, 0 of 2"},
		{"after the outage all queue", Scenario{Outage: hours(48)}, everyDay,
			[]facts{planned(t, "a", 0, hours(160), nil), planned(t, "b", 0, hours(160), nil), planned(t, "c", 0, hours(160), nil)},
			"80 to 128: c -16, 1 of 3"},
	}
	for _, tt := range tests {
		ledgers := map[string]*budget.Ledger{"one": {Limits: tt.limits}}
		rows := plan(tt.facts, map[string]*budget.Ledger{}, planNow())
		got := "nil"
		if s := simulate(tt.scenario, tt.facts, rows, ledgers); s != nil {
			at := func(when time.Time) float64 { return when.Sub(planNow()).Hours() }
			got = fmt.Sprintf("%g to %g: %s %g, %d of %d", at(s.From), at(s.To), s.First, s.Expires.Sub(s.Renewed).Hours(), s.Expired, s.Delayed)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}
