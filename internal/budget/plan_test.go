package budget

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/knownca"
)

func TestPlan(t *testing.T) {
	few := knownca.Limits{Orders: knownca.Rate{Count: 4, Per: 4 * time.Hour}, Domain: knownca.Rate{Count: 2, Per: 4 * time.Hour}, Failures: knownca.Rate{Count: 1, Per: 4 * time.Hour}}
	ledger := func() *Ledger { return &Ledger{Limits: few} }
	claim := func(l *Ledger, name string, due time.Duration, urgency float64, keys ...Key) Claim {
		return Claim{Name: name, Due: noon().Add(due), Urgency: urgency, Ledger: l, Keys: keys}
	}
	const a, b = Key("domain a.test"), Key("domain b.test")
	tests := []struct {
		what   string
		claims func(l *Ledger) []Claim
		want   string // name, hours, limit
	}{
		{"nothing", func(*Ledger) []Claim { return nil }, ""},
		{"what isn't due waits until it is", func(l *Ledger) []Claim {
			return []Claim{claim(l, "later", 5*time.Hour, 1, a), claim(l, "past", -time.Hour, 1, a)}
		}, "past 0, later 5"},
		{"a domain has room for two, then for one every two hours", func(l *Ledger) []Claim {
			return []Claim{claim(l, "1", 0, 1, a), claim(l, "2", 0, 1, a), claim(l, "3", 0, 1, a), claim(l, "4", 0, 1, a)}
		}, "1 0, 2 0, 3 2 domain a.test, 4 4 domain a.test"},
		{"the most urgent first", func(l *Ledger) []Claim {
			return []Claim{claim(l, "1", 0, 0.9, a), claim(l, "2", 0, 0.8, a), claim(l, "3", 0, 0.3, a), claim(l, "4", 0, 0.2, a)}
		}, "4 0, 3 0, 2 2 domain a.test, 1 4 domain a.test"},
		{"another domain isn't held up by the first", func(l *Ledger) []Claim {
			return []Claim{claim(l, "1", 0, 1, orders, a), claim(l, "2", 0, 1, orders, a), claim(l, "3", 0, 1, orders, a), claim(l, "4", 0, 1, orders, b)}
		}, "1 0, 2 0, 4 0, 3 2 domain a.test"},
		{"orders are one queue", func(l *Ledger) []Claim {
			return []Claim{claim(l, "1", 0, 1, orders), claim(l, "2", 0, 1, orders), claim(l, "3", 0, 1, orders), claim(l, "4", 0, 1, orders),
				claim(l, "5", 0, 1, orders), claim(l, "6", 0, 1, orders, b)}
		}, "1 0, 2 0, 3 0, 4 0, 5 1 orders, 6 2 orders"},
		{"who comes later and is more urgent goes before those that wait", func(l *Ledger) []Claim {
			return []Claim{claim(l, "1", 0, 1, a), claim(l, "2", 0, 1, a), claim(l, "3", 0, 1, a), claim(l, "4", 0, 1, a), claim(l, "hot", time.Hour, 0, a)}
		}, "1 0, 2 0, hot 2 domain a.test, 3 4 domain a.test, 4 6 domain a.test"},
		{"and who comes last waits behind all of them", func(l *Ledger) []Claim {
			return []Claim{claim(l, "1", 0, 1, a), claim(l, "2", 0, 1, a), claim(l, "3", 0, 1, a), claim(l, "4", 0, 1, a), claim(l, "hot", time.Hour, 0, a),
				claim(l, "last", 5*time.Hour, 1, a)}
		}, "1 0, 2 0, hot 2 domain a.test, 3 4 domain a.test, 4 6 domain a.test, last 8 domain a.test"},
		{"the exempt wait for nobody", func(l *Ledger) []Claim {
			return []Claim{claim(l, "1", 0, 1, a), claim(l, "2", 0, 1, a), claim(l, "3", 0, 1, a), claim(l, "free", 0, 2)}
		}, "1 0, 2 0, free 0, 3 2 domain a.test"},
		{"a hostname that failed waits, and takes nothing for it", func(l *Ledger) []Claim {
			l.Spend([]Key{"failures h"}, noon())
			return []Claim{{Name: "h", Due: noon(), Ledger: l, Keys: []Key{a}, Needs: []Key{"failures h"}}, {Name: "twin", Due: noon(), Ledger: l, Keys: []Key{a}, Needs: []Key{"failures h"}}}
		}, "h 4 failures h, twin 4 failures h"},
		{"no ledger, no limits", func(*Ledger) []Claim { return []Claim{claim(nil, "1", 0, 1, a, orders)} }, "1 0"},
	}
	for _, tt := range tests {
		l := ledger()
		claims := tt.claims(l)
		before := l.Clone()
		var got []string
		for _, turn := range Plan(noon(), claims) {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %g %s", turn.Name, turn.At.Sub(noon()).Hours(), turn.Tight)))
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.what, strings.Join(got, ", "), tt.want)
		}
		if len(l.Full) != len(before.Full) {
			t.Errorf("%s: the plan changed the ledger", tt.what)
		}
	}
}

// TestALongQueueIsNotLookedThroughAtEveryToken says when claims look for room again that find none at noon.
func TestALongQueueIsNotLookedThroughAtEveryToken(t *testing.T) {
	const a = Key("domain a.test")
	l := &Ledger{Limits: knownca.Limits{Domain: knownca.Rate{Count: 1, Per: 2 * time.Hour}}}
	l.Spend([]Key{a}, noon())
	p := newPlanner()
	p.ledgers[l] = l
	claims := map[string]*waiting{}
	for _, tt := range []struct {
		name    string
		urgency float64
		want    int // hours after noon; 0 is granted
	}{
		{"first", 1, 2},
		{"second, behind it", 1, 4},
		{"third, behind both", 2, 6},
		{"more urgent, so at the next token", 1.5, 2},
		{"as urgent as the last, so behind all", 2, 10},
		{"first", 1, 0},
		{"behind those that are left", 2, 12},
	} {
		w := claims[tt.name]
		if w == nil {
			w = &waiting{Claim: Claim{Name: tt.name, Urgency: tt.urgency, Ledger: l, Keys: []Key{a}}, at: noon()}
			claims[tt.name] = w
		}
		if _, granted := p.grant(w); granted != (tt.want == 0) || !granted && w.at.Sub(noon()) != time.Duration(tt.want)*time.Hour {
			t.Errorf("%s: granted is %t, looks again after %s, want %d h", tt.name, granted, w.at.Sub(noon()), tt.want)
		}
	}
}

// TestFirstRollOut is five hundred hosts of a company at Let's Encrypt.
func TestFirstRollOut(t *testing.T) {
	l := &Ledger{Limits: letsencrypt()}
	var claims []Claim
	for i := range 500 {
		host := fmt.Sprintf("h%03d.example.com", i)
		claims = append(claims, Claim{Name: host, Due: noon(), Urgency: 1, Ledger: l, Keys: Keys(l.Limits, []string{host}, false)})
	}
	turns := Plan(noon(), claims)
	if !slices.Equal(turns[49].Last, []Key{"domain example.com"}) || turns[49].At != noon() || turns[50].Tight != "domain example.com" {
		t.Errorf("the fiftieth takes %q at %s, the next waits for %q", turns[49].Last, turns[49].At.Sub(noon()), turns[50].Tight)
	}
	if last := turns[499]; last.Name != "h499.example.com" || last.At.Sub(noon()) != 450*7*day/50 {
		t.Errorf("the last is %s after %s", last.Name, last.At.Sub(noon()))
	}
}

func BenchmarkPlan(b *testing.B) {
	l := &Ledger{Limits: letsencrypt()}
	var claims []Claim
	for i := range 10_000 {
		host := fmt.Sprintf("h%04d.company%d.com", i, i%7)
		claims = append(claims, Claim{Name: host, Due: noon(), Urgency: 1, Ledger: l, Keys: Keys(l.Limits, []string{host}, false)})
	}
	for b.Loop() {
		if n := len(Plan(noon(), claims)); n != len(claims) {
			b.Fatal(n)
		}
	}
}
