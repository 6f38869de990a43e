package budget

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"autocertd/internal/knownca"
)

func noon() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

func everybody(Running) bool { return true }
func nobody(Running) bool    { return false }

const day = 24 * time.Hour

// letsencrypt are its limits.
func letsencrypt() knownca.Limits {
	return knownca.Limits{Orders: knownca.Rate{Count: 300, Per: 3 * time.Hour}, Domain: knownca.Rate{Count: 50, Per: 7 * day},
		Set: knownca.Rate{Count: 5, Per: 7 * day}, Failures: knownca.Rate{Count: 5, Per: time.Hour}, FreeRenewals: true}
}

func TestKeys(t *testing.T) {
	set := setKey([]string{"a.example.com", "*.example.co.uk", "b.example.com"})
	tests := []struct {
		what      string
		hostnames []string
		renewal   bool
		want      []Key
	}{
		{"each registered domain counts once", []string{"b.example.com", "a.example.com", "*.example.co.uk"}, false,
			[]Key{"orders", "domain example.co.uk", "domain example.com", set}},
		{"a renewal counts for its set alone", []string{"b.example.com", "a.example.com", "*.example.co.uk"}, true, []Key{set}},
		{"a domain of a provider that is a public suffix", []string{"shop.blogspot.com"}, false,
			[]Key{"orders", "domain shop.blogspot.com", setKey([]string{"shop.blogspot.com"})}},
		{"a public suffix itself", []string{"co.uk"}, false, []Key{"orders", "domain co.uk", setKey([]string{"co.uk"})}},
		{"a single label", []string{"localhost"}, false, []Key{"orders", "domain localhost", setKey([]string{"localhost"})}},
	}
	for _, tt := range tests {
		if got := Keys(letsencrypt(), tt.hostnames, tt.renewal); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
	if got := Keys(knownca.Limits{}, []string{"a.example.com"}, false); got != nil {
		t.Errorf("without limits: %q", got)
	}
	if got := FailureKeys(letsencrypt(), []string{"*.a.test", "a.test", "b.test"}); !slices.Equal(got, []Key{"failures a.test", "failures b.test"}) {
		t.Errorf("failures: %q", got)
	}
}

func TestRoom(t *testing.T) {
	each := 7 * day / 50 // 3 h 21 min 36 s
	domain := Key("domain example.com")
	tests := []struct {
		what    string
		full    time.Duration // when the bucket is full, from noon; 0 for full
		running int
		ahead   int
		want    time.Duration // when there is room, from noon
	}{
		{"full", 0, 0, 0, 0},
		{"one left", 49 * each, 0, 0, 0},
		{"the last one was taken an hour ago", 50*each - time.Hour, 0, 0, each - time.Hour},
		{"empty", 50 * each, 0, 0, each},
		{"empty, two others come first", 50 * each, 0, 2, 3 * each},
		{"all are under way", 0, 50, 0, each},
		{"one left, which is under way", 49 * each, 1, 0, each},
		{"two left, one under way, and one comes first", 48 * each, 1, 1, each},
	}
	for _, tt := range tests {
		l := &Ledger{Limits: letsencrypt()}
		if tt.full > 0 {
			l.Full = map[Key]time.Time{domain: noon().Add(tt.full)}
		}
		for range tt.running {
			l.Begin(Running{Keys: []Key{orders, domain}})
		}
		at, tight := l.Room([]Key{domain, "set x"}, noon(), func(key Key) int {
			if key == domain {
				return tt.ahead
			}
			return 0
		})
		if at.Sub(noon()) != tt.want || (tight == domain) != (tt.want > 0) {
			t.Errorf("%s: room in %s (%q), want %s", tt.what, at.Sub(noon()), tight, tt.want)
		}
	}
}

func TestAdvance(t *testing.T) {
	domain, other := Key("domain example.com"), Key("domain example.net")
	each := 7 * day / 50
	tests := []struct {
		what   string
		ledger Ledger
		alive  func(Running) bool
		want   map[Key]time.Duration // from noon
		runs   int
	}{
		{"a bucket that is full is forgotten", Ledger{Full: map[Key]time.Time{domain: noon(), other: noon().Add(time.Hour)}}, everybody,
			map[Key]time.Duration{other: time.Hour}, 0},
		{"a clock that was a year ahead leaves an empty bucket", Ledger{Full: map[Key]time.Time{domain: noon().Add(365 * day)}}, everybody,
			map[Key]time.Duration{domain: 7 * day}, 0},
		{"what isn't limited any more is forgotten", Ledger{Full: map[Key]time.Time{"colour red": noon().Add(time.Hour)}}, everybody, nil, 0},
		{"what a dead process had under way is taken", Ledger{Running: []Running{{ID: "1", Since: noon(), Keys: []Key{domain}}}}, nobody,
			map[Key]time.Duration{domain: each}, 0},
		{"what a living one has stays under way", Ledger{Running: []Running{{ID: "1", Since: noon(), Keys: []Key{domain}}}}, everybody, nil, 1},
		{"not for ever", Ledger{Running: []Running{{ID: "1", Since: noon().Add(-2 * longestRun), Keys: []Key{domain}}}}, everybody,
			map[Key]time.Duration{domain: each - longestRun}, 0},
		{"but for an hour", Ledger{Running: []Running{{ID: "1", Since: noon().Add(-longestRun), Keys: []Key{domain}}}}, everybody, nil, 1},
		{"and by a clock that was an hour ahead", Ledger{Running: []Running{{ID: "1", Since: noon().Add(longestRun), Keys: []Key{domain}}}}, everybody, nil, 1},
		{"what ended some time ago is taken when it must have ended", Ledger{Running: []Running{{ID: "1", Since: noon().Add(-90 * time.Minute), Keys: []Key{domain}}}}, nobody,
			map[Key]time.Duration{domain: each - 30*time.Minute}, 0},
		{"or now, by a clock that was ahead", Ledger{Running: []Running{{ID: "1", Since: noon().Add(2 * time.Hour), Keys: []Key{domain}}}}, nobody,
			map[Key]time.Duration{domain: each}, 0},
	}
	for _, tt := range tests {
		l := tt.ledger
		l.Limits = letsencrypt()
		l.Advance(noon(), tt.alive)
		got := map[Key]time.Duration{}
		for key, full := range l.Full {
			got[key] = full.Sub(noon())
		}
		if !maps.Equal(got, tt.want) || len(l.Running) != tt.runs {
			t.Errorf("%s: %v and %d running, want %v and %d", tt.what, got, len(l.Running), tt.want, tt.runs)
		}
	}
}

func TestLeft(t *testing.T) {
	each := 7 * day / 50
	domain := Key("domain example.com")
	for full, want := range map[time.Duration]int{-each: 50, 0: 50, 1: 49, each: 49, each + 1: 48, 50 * each: 0, 51 * each: 0} {
		l := &Ledger{Limits: letsencrypt(), Full: map[Key]time.Time{domain: noon().Add(full)}}
		if got := l.Left(domain, noon()); got != want {
			t.Errorf("%d are left of a bucket that is full in %s, want %d", got, full, want)
		}
	}
	l := &Ledger{Limits: letsencrypt()}
	if got := l.Left(domain, noon()); got != 50 {
		t.Errorf("%d are left where nothing was taken", got)
	}
	if got := l.Left("colour red", noon()); got != 0 {
		t.Errorf("%d are left of what isn't limited", got)
	}
}

func TestReturn(t *testing.T) {
	domain := Key("domain example.com")
	l := &Ledger{Limits: letsencrypt()}
	l.Spend([]Key{orders, domain, "colour red"}, noon())
	l.Return(NoOrders([]Key{orders, domain, "colour red", "domain example.net"}))
	if o, d, other := l.Left(orders, noon()), l.Left(domain, noon()), l.Left("domain example.net", noon()); o != 299 || d != 50 || other != 50 || len(l.Full) != 2 {
		t.Errorf("left are %d orders, %d and %d certificates; %v", o, d, other, l.Full)
	}
	if got := OrdersOnly([]Key{domain, orders}); !slices.Equal(got, []Key{orders}) {
		t.Errorf("orders only: %q", got)
	}
	if got := OrdersOnly([]Key{domain}); got != nil {
		t.Errorf("no orders: %q", got)
	}
}

func TestDescribe(t *testing.T) {
	for key, want := range map[Key]string{
		orders:               "the CA allows 300 orders of this account in 3h",
		"domain example.com": "the CA allows 50 certificates for example.com in 7d",
		"set 0011":           "the CA allows 5 certificates for exactly these hostnames in 7d",
		"failures a.test":    "the CA allows 5 failed validations of a.test in 1h",
	} {
		if got := Describe(letsencrypt(), key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// TestNothingIsRefused lets orders take their time on the way to a CA that counts them when they arrive, from buckets that
// refill all the time. Killing the process in between loses nothing either.
func TestNothingIsRefused(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	limits := knownca.Limits{Orders: knownca.Rate{Count: 10, Per: time.Minute}}
	each := limits.Orders.Each()
	l := &Ledger{Limits: limits}
	var full time.Time // the CA's bucket
	type order struct {
		id             string
		arrives, heard time.Time
	}
	var way []order
	sent, now := 0, noon()
	for ; now.Before(noon().Add(time.Hour)); now = now.Add(100 * time.Millisecond) {
		for _, o := range slices.Clone(way) {
			if !o.arrives.After(now) && !o.arrives.IsZero() {
				if full = later(full, now).Add(each); full.Sub(now) > 10*each {
					t.Fatalf("seed %d: an order was refused at %s, the %dth", seed, now.Sub(noon()), sent)
				}
				way[slices.IndexFunc(way, func(x order) bool { return x.id == o.id })].arrives = time.Time{}
			}
			if !o.heard.After(now) {
				l.Spend(l.End(o.id), now)
				way = slices.DeleteFunc(way, func(x order) bool { return x.id == o.id })
			}
		}
		if random.IntN(3000) == 0 { // killed: what was on its way arrives, or not, and nobody hears of it
			data, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			l, _ = Open(data, limits)
			l.Advance(now, nobody)
			for _, o := range way {
				if !o.arrives.IsZero() {
					full = later(full, now).Add(each)
				}
			}
			way = nil
		}
		if at, _ := l.Room([]Key{orders}, now, nil); !at.After(now) {
			arrives := now.Add(time.Duration(1 + random.IntN(int(3*time.Second))))
			o := order{time.Duration(sent).String(), arrives, arrives.Add(time.Duration(random.IntN(int(3 * time.Second))))}
			l.Begin(Running{ID: o.id, Since: now, Keys: []Key{orders}})
			way = append(way, o)
			sent++
		}
	}
	if most := 10 + int(time.Hour/each); sent < most*9/10 {
		t.Errorf("seed %d: %d orders in an hour, and %d were allowed", seed, sent, most)
	}
	t.Logf("%d orders in an hour, of %d that were allowed", sent, 10+int(time.Hour/each))
}
