package scheduler

import (
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

func TestRenewAt(t *testing.T) {
	issued := date(t, "2026-05-01T12:00:00Z") // a Friday
	tests := []struct {
		name      string
		lifetime  time.Duration
		suggested time.Duration // after issuance; zero is none
		chosen    time.Duration // after issuance
		window    string
		schedule  string
		emergency time.Duration
		now       time.Duration // after issuance; zero asks for the plan
		earliest  time.Duration // after issuance; zero is none
		want      time.Duration // after issuance
		why       string
	}{
		{name: "90 days: two thirds", lifetime: 90 * day, want: 60 * day, why: "two thirds of the lifetime"},
		{name: "45 days: two thirds", lifetime: 45 * day, want: 30 * day, why: "two thirds of the lifetime"},
		{name: "10 days: two thirds", lifetime: 10 * day, want: 160 * time.Hour, why: "two thirds of the lifetime"},
		{name: "160 hours: half", lifetime: 160 * time.Hour, want: 80 * time.Hour, why: "half of the lifetime"},
		{name: "10 minutes: half", lifetime: 10 * time.Minute, want: 5 * time.Minute, why: "half of the lifetime"},
		{name: "90 seconds: half", lifetime: 90 * time.Second, want: 45 * time.Second, why: "half of the lifetime"},
		{name: "no lifetime at all: at once", lifetime: 0, want: 0, why: "half of the lifetime"},
		{name: "the CA's suggestion comes first", lifetime: 90 * day, suggested: 59 * day, chosen: day, want: 59 * day, why: "suggested by the CA"},
		{name: "also when it's early", lifetime: 90 * day, suggested: 5 * day, chosen: day, want: 5 * day, why: "suggested by the CA"},
		{name: "a suggestion beyond the emergency moment is too late", lifetime: 90 * day, suggested: 89 * day, chosen: day, want: 75 * day, why: "leaves too little"},
		{name: "a smaller emergency lets it be later", lifetime: 90 * day, suggested: 80 * day, chosen: day, emergency: 5 * day, want: 80 * day, why: "suggested by the CA"},
		{name: "a large emergency brings no suggestion forward", lifetime: 90 * day, suggested: 61 * day, chosen: day, emergency: 40 * day, want: 61 * day, why: "suggested by the CA"},

		{name: "the window moves it", lifetime: 90 * day, window: "22:00-04:00", want: 60*day + 10*time.Hour, why: "two thirds of the lifetime, then the window"},
		{name: "the window moves a suggestion too", lifetime: 90 * day, suggested: 59 * day, chosen: day, window: "22:00-04:00", want: 59*day + 10*time.Hour, why: "suggested by the CA, then the window"},
		{name: "inside the window it stays", lifetime: 90 * day, window: "10:00-14:00", want: 60 * day, why: "two thirds of the lifetime"},
		{name: "a window at 160 hours", lifetime: 160 * time.Hour, window: "03:00-04:00", want: 87 * time.Hour, why: "then the window"},
		{name: "160 hours can't wait for a weekly window", lifetime: 160 * time.Hour, window: "Mon 13:00-14:00", want: 160*time.Hour - 160*time.Hour/6, why: "too little lifetime"},
		{name: "10 minutes can't wait for the night", lifetime: 10 * time.Minute, window: "22:00-04:00", want: 10*time.Minute - 100*time.Second, why: "too little lifetime"},
		{name: "90 seconds can't wait for the night", lifetime: 90 * time.Second, window: "22:00-04:00", want: 75 * time.Second, why: "too little lifetime"},
		{name: "an emergency below the default waits longer", lifetime: 160 * time.Hour, window: "Thu 13:00-14:00", emergency: 12 * time.Hour, want: 145 * time.Hour, why: "then the window"},
		{name: "an emergency longer than what is left switches the window off", lifetime: 90 * day, window: "22:00-04:00", emergency: 40 * day, want: 60 * day, why: "too little lifetime"},
		{name: "an emergency longer than the lifetime does the same", lifetime: 10 * time.Minute, window: "22:00-04:00", emergency: 30 * day, want: 5 * time.Minute, why: "too little lifetime"},
		{name: "a negative emergency is the default", lifetime: 90 * time.Second, window: "22:00-04:00", emergency: -time.Hour, want: 75 * time.Second, why: "too little lifetime"},

		{name: "asked before, the plan is the same", lifetime: 90 * day, window: "22:00-04:00", now: 60*day + 9*time.Hour, want: 60*day + 10*time.Hour, why: "then the window"},
		{name: "while the window is open it stays due", lifetime: 90 * day, window: "22:00-04:00", now: 60*day + 15*time.Hour, want: 60*day + 10*time.Hour, why: "then the window"},
		{name: "a window that was missed is over", lifetime: 90 * day, window: "22:00-04:00", now: 60*day + 16*time.Hour, want: 61*day + 10*time.Hour, why: "then the window"},
		{name: "missed for a week", lifetime: 90 * day, window: "22:00-04:00", now: 67 * day, want: 67*day + 10*time.Hour, why: "then the window"},
		{name: "missed for a week, and open now: due since the first", lifetime: 90 * day, window: "22:00-04:00", now: 67*day + 11*time.Hour, want: 60*day + 10*time.Hour, why: "then the window"},
		{name: "a moment inside the window, which closed before anybody looked", lifetime: 90 * day, window: "10:00-14:00", now: 60*day + 3*time.Hour, want: 60*day + 22*time.Hour, why: "then the window"},
		{name: "a suggestion that passed while nobody looked", lifetime: 90 * day, suggested: 59 * day, chosen: day, window: "22:00-04:00", now: 59*day + 20*time.Hour, want: 60*day + 10*time.Hour, why: "suggested by the CA, then the window"},
		{name: "missed until the emergency", lifetime: 90 * day, window: "22:00-04:00", now: 80 * day, want: 75 * day, why: "too little lifetime"},
		{name: "missed, and the next would be after the emergency", lifetime: 160 * time.Hour, window: "Tue 00:00-02:00", now: 110 * time.Hour, want: 160*time.Hour - 160*time.Hour/6, why: "too little lifetime"},
		{name: "a mass revocation beats a window that was missed", lifetime: 90 * day, suggested: 10 * day, chosen: 11 * day, window: "22:00-04:00", now: 12 * day, want: 10 * day, why: "the CA asks for it now"},

		{name: "a tick starts it", lifetime: 90 * day, schedule: "0 3 * * *", want: 60*day + 15*time.Hour, why: "two thirds of the lifetime, then the schedule"},
		{name: "a tick at its very moment", lifetime: 90 * day, schedule: "0 12 * * *", want: 60 * day, why: "two thirds of the lifetime"},
		{name: "a tick that was missed still holds", lifetime: 90 * day, schedule: "0 3 * * *", now: 63 * day, want: 60*day + 15*time.Hour, why: "then the schedule"},
		{name: "a yearly tick comes too late", lifetime: 90 * day, schedule: "@yearly", want: 75 * day, why: "too little lifetime left to wait for the schedule"},
		{name: "and far too late for minutes", lifetime: 10 * time.Minute, schedule: "@yearly", want: 10*time.Minute - 100*time.Second, why: "too little lifetime left to wait for the schedule"},
		{name: "a schedule that has ended", lifetime: 90 * day, schedule: "over", want: 75 * day, why: "too little lifetime left to wait for the schedule"},
		{name: "an early emergency switches the schedule off", lifetime: 90 * day, schedule: "@yearly", emergency: 40 * day, want: 60 * day, why: "too little lifetime"},
		{name: "a mass revocation waits for no tick", lifetime: 90 * day, suggested: 10 * day, chosen: 11 * day, schedule: "@yearly", want: 10 * day, why: "the CA asks for it now"},
		{name: "the window's opening is a tick", lifetime: 90 * day, window: "22:00-04:00", schedule: "@yearly", want: 60*day + 10*time.Hour, why: "then the window"},
		{name: "its next opening, when it is open already", lifetime: 90 * day, window: "10:00-14:00", schedule: "@yearly", want: 60*day + 22*time.Hour, why: "then the window"},
		{name: "a tick while it is open", lifetime: 90 * day, window: "10:00-14:00", schedule: "0 13 * * *", want: 60*day + time.Hour, why: "then the schedule"},
		{name: "a tick while it is closed is none", lifetime: 90 * day, window: "10:00-14:00", schedule: "0 15 * * *", want: 60*day + 22*time.Hour, why: "then the window"},
		{name: "a tick in tomorrow's window comes after its opening", lifetime: 90 * day, window: "10:00-12:30", schedule: "0 11 * * *", want: 60*day + 22*time.Hour, why: "then the window"},
		{name: "at its very opening", lifetime: 90 * day, window: "12:00-14:00", schedule: "@yearly", want: 60 * day, why: "two thirds of the lifetime"},
		{name: "a window and a tick that were missed", lifetime: 90 * day, window: "10:00-14:00", schedule: "0 13 * * *", now: 60*day + 3*time.Hour, want: 60*day + 22*time.Hour, why: "then the window"},
		{name: "missed for a week, and open now: due since the first tick", lifetime: 90 * day, window: "10:00-14:00", schedule: "0 13 * * *", now: 67 * day, want: 60*day + time.Hour, why: "then the schedule"},
		{name: "always open, and a tick", lifetime: 90 * day, window: "00:00-24:00", schedule: "0 13 * * *", want: 60*day + time.Hour, why: "then the schedule"},

		{name: "not before the earliest", lifetime: 90 * day, suggested: time.Hour, chosen: time.Minute, now: 2 * time.Hour, earliest: 6 * time.Hour, want: 6 * time.Hour, why: "though not right after it was issued"},
		{name: "the window moves the earliest too", lifetime: 90 * day, suggested: time.Hour, chosen: time.Minute, window: "22:00-04:00", now: 2 * time.Hour, earliest: 6 * time.Hour, want: 10 * time.Hour, why: "then the window"},
		{name: "a mass revocation waits for the earliest", lifetime: 90 * day, suggested: -time.Hour, chosen: time.Hour, now: 2 * time.Hour, earliest: 6 * time.Hour, want: 6 * time.Hour, why: "the CA asks for it now"},

		{name: "a mass revocation beats the window", lifetime: 90 * day, suggested: 10 * day, chosen: 10*day + time.Hour, window: "22:00-04:00", want: 10 * day, why: "the CA asks for it now"},
		{name: "it may come before the beginning", lifetime: 90 * day, suggested: -time.Hour, chosen: time.Hour, window: "22:00-04:00", want: -time.Hour, why: "the CA asks for it now"},
		{name: "a moment chosen to be now is now", lifetime: 90 * day, suggested: 60 * day, chosen: 60 * day, window: "22:00-04:00", want: 60 * day, why: "the CA asks for it now"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			window, err := ParseWindow(tt.window)
			if err != nil {
				t.Fatal(err)
			}
			f := Facts{NotBefore: issued, NotAfter: issued.Add(tt.lifetime), Window: window, Emergency: tt.emergency}
			if tt.schedule == "over" {
				f.Schedule = scheduleFunc(func(time.Time) time.Time { return time.Time{} })
			} else if tt.schedule != "" {
				if f.Schedule, err = ParseSchedule(tt.schedule); err != nil {
					t.Fatal(err)
				}
			}
			if tt.suggested != 0 {
				f.Suggested, f.Chosen = issued.Add(tt.suggested), issued.Add(tt.chosen)
			}
			if tt.now != 0 {
				f.Now = issued.Add(tt.now)
			}
			if tt.earliest != 0 {
				f.Earliest = issued.Add(tt.earliest)
			}
			at, why := RenewAt(f)
			if got := at.Sub(issued); got != tt.want {
				t.Errorf("renewal after %s, want after %s", got, tt.want)
			}
			if !strings.Contains(why, tt.why) {
				t.Errorf("why = %q, want %q", why, tt.why)
			}
		})
	}
}

func TestRenewAtWithoutCertificate(t *testing.T) {
	at, why := RenewAt(Facts{Window: Window{}})
	if !at.IsZero() || why != "no certificate yet" {
		t.Errorf("RenewAt = %s, %q; want at once", at, why)
	}
}

// Without the time of choice, a suggestion that passes while the window is awaited isn't a mass revocation.
func TestRenewAtWithoutChosen(t *testing.T) {
	issued := date(t, "2026-05-01T12:00:00Z")
	window, err := ParseWindow("22:00-04:00")
	if err != nil {
		t.Fatal(err)
	}
	at, _ := RenewAt(Facts{NotBefore: issued, NotAfter: issued.Add(90 * day), Suggested: issued.Add(day), Window: window})
	if want := issued.Add(day + 10*time.Hour); !at.Equal(want) {
		t.Errorf("RenewAt = %s, want %s", at, want)
	}
}

func TestBackoff(t *testing.T) {
	tests := []struct {
		name     string
		failures int
		random   float64
		want     time.Duration
	}{
		{"no failure, no wait", 0, 0.5, 0},
		{"a negative count is none", -1, 0.5, 0},
		{"the first", 1, 0.5, time.Minute},
		{"the second", 2, 0.5, 10 * time.Minute},
		{"the third", 3, 0.5, 100 * time.Minute},
		{"the fourth", 4, 0.5, day},
		{"the thousandth", 1000, 0.5, day},
		{"a fifth less at least", 1, 0, 48 * time.Second},
		{"a fifth more at most", 2, 1, 12 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Backoff(tt.failures, tt.random).Round(time.Millisecond); got != tt.want {
				t.Errorf("Backoff(%d, %g) = %s, want %s", tt.failures, tt.random, got, tt.want)
			}
		})
	}
}

func TestRetryAt(t *testing.T) {
	now := date(t, "2026-05-01T12:00:00Z")
	tests := []struct {
		name       string
		failures   int
		random     float64
		retryAfter time.Duration // from now; zero is none
		left       time.Duration
		want       time.Duration // from now
	}{
		{name: "no certificate: the plain back-off", failures: 4, random: 0.5, want: day},
		{name: "an expired one: the plain back-off", failures: 4, random: 0.5, left: -time.Hour, want: day},
		{name: "30 days left: the plain back-off", failures: 4, random: 0.5, left: 30 * day, want: day},
		{name: "30 days left, first failure", failures: 1, random: 0.5, left: 30 * day, want: time.Minute},
		{name: "a day left: no longer than half of it", failures: 4, random: 1, left: day, want: 12 * time.Hour},
		{name: "the half is spread, downwards", failures: 4, random: 0, left: 20 * time.Hour, want: 8 * time.Hour},
		{name: "an hour left, first failure: the plain back-off", failures: 1, random: 0.5, left: time.Hour, want: time.Minute},
		{name: "an hour left, third failure: half", failures: 3, random: 1, left: time.Hour, want: 30 * time.Minute},
		{name: "ten minutes left: half", failures: 3, random: 1, left: 10 * time.Minute, want: 5 * time.Minute},
		{name: "a minute left: half", failures: 3, random: 1, left: time.Minute, want: 30 * time.Second},
		{name: "nothing much left: ten seconds", failures: 3, random: 1, left: time.Second, want: 10 * time.Second},
		{name: "the CA says three hours", failures: 1, random: 0, retryAfter: 3 * time.Hour, left: 30 * day, want: 3 * time.Hour},
		{name: "the CA says three hours, the back-off a day", failures: 4, random: 0.9, retryAfter: 3 * time.Hour, left: 30 * day, want: 3 * time.Hour},
		{name: "the CA says three days, the back-off a day", failures: 4, random: 0.9, retryAfter: 3 * day, left: 30 * day, want: 3 * day},
		{name: "the CA says later than the certificate lives", failures: 1, random: 0.9, retryAfter: 3 * time.Hour, left: time.Hour, want: 3 * time.Hour},
		{name: "the CA says 30 seconds", failures: 2, random: 0.9, retryAfter: 30 * time.Second, left: 30 * day, want: 30 * time.Second},
		{name: "the CA says 30 seconds again and again", failures: 3, random: 0.9, retryAfter: 30 * time.Second, left: 30 * day, want: time.Minute},
		{name: "the CA says 90 seconds again and again", failures: 9, random: 0.9, retryAfter: 90 * time.Second, left: 30 * day, want: 90 * time.Second},
		{name: "the CA says 30 seconds again and again, ten minutes left", failures: 3, random: 1, retryAfter: 30 * time.Second, left: 10 * time.Minute, want: time.Minute},
		{name: "the CA names the past: the back-off", failures: 2, random: 0.5, retryAfter: -time.Hour, left: 30 * day, want: 10 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var retryAfter time.Time
			if tt.retryAfter != 0 {
				retryAfter = now.Add(tt.retryAfter)
			}
			at := RetryAt(now, tt.failures, tt.random, retryAfter, tt.left)
			if got := at.Sub(now).Round(time.Millisecond); got != tt.want {
				t.Errorf("RetryAt = now + %s, want now + %s", got, tt.want)
			}
		})
	}
}

func TestOutage(t *testing.T) {
	for failures, want := range []time.Duration{time.Minute, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute} {
		if got := Outage(failures, 0.999999); got > want || got < want-time.Second {
			t.Errorf("after %d failures %s, want %s", failures, got, want)
		}
		if got := Outage(failures, 0); got != want*8/10 {
			t.Errorf("after %d failures at least %s, want %s", failures, got, want*8/10)
		}
	}
}

// As long as more than an hour is left, no hour has more than four tries, however the spread falls.
func TestRetryAtStaysBelowTheLimit(t *testing.T) {
	for left := time.Hour; left <= 4*day; left += 7 * time.Minute {
		for _, random := range []float64{0, 0.3, 0.999} {
			var tries []time.Time
			now := date(t, "2026-05-01T12:00:00Z")
			expiry := now.Add(left)
			for failures := 1; expiry.Sub(now) > time.Hour; failures++ {
				tries = append(tries, now)
				now = RetryAt(now, failures, random, time.Time{}, expiry.Sub(now))
			}
			for i := 4; i < len(tries); i++ {
				if span := tries[i].Sub(tries[i-4]); span <= time.Hour {
					t.Fatalf("five tries within %s, %s left at the first, random %g", span, left, random)
				}
			}
		}
	}
}

func TestLeft(t *testing.T) {
	issued := date(t, "2026-05-01T12:00:00Z")
	tests := []struct {
		name     string
		lifetime time.Duration
		now      time.Duration // after issuance
		want     float64
	}{
		{"a fresh one", 90 * day, 0, 1},
		{"two thirds gone", 90 * day, 60 * day, 1. / 3},
		{"half of ten minutes", 10 * time.Minute, 5 * time.Minute, 0.5},
		{"expired", 90 * day, 100 * day, 0},
		{"not valid yet", 90 * day, -day, 1},
		{"no lifetime", 0, -day, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Left(issued.Add(tt.now), issued, issued.Add(tt.lifetime)); got != tt.want {
				t.Errorf("Left = %g, want %g", got, tt.want)
			}
		})
	}
	if missing, due := Left(issued, time.Time{}, time.Time{}), Left(issued, issued.Add(-60*day), issued.Add(30*day)); missing <= due {
		t.Errorf("a missing one (%g) comes before one that is due (%g)", missing, due)
	}
}
