package budget

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/knownca"
)

// TestQueue lets certificates ask for one token an hour, which was taken at noon. Each row is one plan.
func TestQueue(t *testing.T) {
	l := &Ledger{Limits: knownca.Limits{Orders: knownca.Rate{Count: 1, Per: time.Hour}, Failures: knownca.Rate{Count: 1, Per: time.Hour}}}
	l.Spend([]Key{orders}, noon())
	urgency := map[string]float64{"a": 1, "b": 1, "c": 1, "old": 0.1, "at once": 1, "free": 1}
	const min = time.Minute
	tests := []struct {
		what  string
		at    time.Duration // from noon
		asks  string
		want  string // who asks, and the minutes that it is held for
		early string
		spend bool // those admitted take their tokens
	}{
		{"there is no room yet", 0, "a", "a 60", "", false},
		{"who comes later waits behind", 1 * min, "b", "b 119", "", false},
		{"and behind those", 2 * min, "c", "c 178", "", false},
		{"the most urgent comes first, though last to ask", 3 * min, "old", "old 57", "", false},
		{"a less urgent one is told its new turn", 4 * min, "a", "a 116", "", false},
		{"one that asks again keeps its place", 5 * min, "b a", "a 115, b 175", "", false},
		{"nothing else is limited", 5 * min, "free", "free 0", "", false},
		{"one that is less urgent doesn't take the token of one that is about to ask", 60 * min, "a", "a 60", "", false},
		{"whose turn has come, whatever it waits for", 61 * min, "old", "old 0", "", true},
		{"then the next waits", 61 * min, "a b c", "a 60, b 120, c 180", "", false},
		{"revoked ones wait for no room", 62 * min, "at once", "at once 0", "", false},
	}
	var q Queue
	for _, tt := range tests {
		now := noon().Add(tt.at)
		var asking []Claim
		for name := range strings.FieldsSeq(strings.ReplaceAll(tt.asks, "at once", "at_once")) {
			name = strings.ReplaceAll(name, "_", " ")
			w := Claim{Name: name, Urgency: urgency[name], Since: now, Keys: []Key{orders}, AtOnce: name == "at once"}
			if name == "free" {
				w.Keys = nil
			}
			asking = append(asking, w)
		}
		turns, early := q.Admit(now, l, asking)
		var got []string
		for name, turn := range turns {
			got = append(got, fmt.Sprintf("%s %g", name, turn.At.Sub(now).Round(time.Minute).Minutes()))
			if held := turn.At.After(now); held != q.Waits(name) || held && turn.Tight != orders {
				t.Errorf("%s: %s waits: %t; %+v", tt.what, name, q.Waits(name), turn)
			} else if !held && tt.spend {
				l.Spend([]Key{orders}, now)
			}
		}
		slices.Sort(got)
		if text := strings.Join(got, ", "); text != tt.want || strings.Join(early, ", ") != tt.early {
			t.Errorf("%s: %s, early %q; want %s, early %q", tt.what, text, early, tt.want, tt.early)
		}
	}
}

// TestATurnIsKeptForAWhile has a certificate whose turn came and that never asks: it was removed, or hangs.
func TestATurnIsKeptForAWhile(t *testing.T) {
	l := &Ledger{Limits: knownca.Limits{Orders: knownca.Rate{Count: 1, Per: time.Hour}}}
	ask := []Claim{{Name: "a", Urgency: 1, Since: noon(), Keys: []Key{orders}}}
	var q Queue
	q.Wait(Claim{Name: "gone", Since: noon().Add(-time.Hour), Keys: []Key{orders}}, noon())
	for _, tt := range []struct {
		after time.Duration
		held  bool
	}{{0, true}, {turnKept - 1, true}, {turnKept, false}} {
		turns, early := q.Admit(noon().Add(tt.after), l, ask)
		if held := turns["a"].At.After(noon().Add(tt.after)); held != tt.held || len(early) != 0 || q.Waits("gone") != tt.held || q.Len() == 0 != !tt.held {
			t.Errorf("after %s: held is %t, %d wait", tt.after, held, q.Len())
		}
	}
}

// TestRoomThatComesEarly: a failed order gives tokens back, and one that waits for later is woken for them.
func TestRoomThatComesEarly(t *testing.T) {
	l := &Ledger{Limits: knownca.Limits{Domain: knownca.Rate{Count: 1, Per: time.Hour}}}
	domain := []Key{"domain example.com"}
	l.Spend(domain, noon())
	var q Queue
	first := Claim{Name: "first", Urgency: 0, Since: noon(), Keys: domain}
	second := Claim{Name: "second", Urgency: 1, Since: noon(), Keys: domain}
	q.Admit(noon(), l, []Claim{first})
	if _, early := q.Admit(noon().Add(time.Minute), l, []Claim{second}); len(early) != 0 {
		t.Errorf("%q are early, and there is no room", early)
	}
	l.Return(domain)
	turns, early := q.Admit(noon().Add(2*time.Minute), l, []Claim{second})
	if !slices.Equal(early, []string{"first"}) || !turns["second"].At.After(noon().Add(2*time.Minute)) || !turns["second"].Since.Equal(noon()) {
		t.Errorf("%q are early, and the second is %+v", early, turns["second"])
	}
	if _, early := q.Admit(noon().Add(3*time.Minute), l, []Claim{second}); len(early) != 0 {
		t.Errorf("%q are woken once more", early)
	}
	// It hasn't come, so that the other may.
	if turns, _ := q.Admit(noon().Add(2*time.Minute+turnKept), l, []Claim{second}); turns["second"].At.After(noon().Add(2*time.Minute + turnKept)) {
		t.Errorf("the second is held for one that doesn't come: %+v", turns["second"])
	}
	q.Wait(first, noon())
	q.Leave(func(name string) bool { return name == "first" })
	if q.Len() != 0 {
		t.Errorf("%d wait", q.Len())
	}
}

// BenchmarkAdmit lets 128 of 20,000 that wait for a domain's token ask once more.
func BenchmarkAdmit(b *testing.B) {
	l := &Ledger{Limits: letsencrypt()}
	claims := make([]Claim, 20_000)
	for i := range claims {
		host := fmt.Sprintf("host-%d.example.com", i)
		claims[i] = Claim{Name: host, Urgency: 1, Since: noon(), Keys: Keys(l.Limits, []string{host}, false), Needs: FailureKeys(l.Limits, []string{host})}
	}
	var q Queue
	q.Admit(noon(), l, claims)
	for b.Loop() {
		q.Admit(noon(), l, claims[19_000:19_128])
	}
}
