package lifecycle

import (
	"crypto/x509"
	"testing"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/state"
)

// issuedJob is a look at a certificate.
func issuedJob(issued, notBefore, notAfter time.Time) *job {
	return &job{snapshot: &Snapshot{}, cert: config.Certificate{Name: name}, state: &state.Certificate{
		Name: name, Bundle: &state.Bundle{Issued: issued}, X509: &x509.Certificate{NotBefore: notBefore, NotAfter: notAfter}}}
}

// TestRenewal says when a certificate is renewed that was issued at noon. What the rule says is the scheduler's; here it
// is when the rule isn't followed.
func TestRenewal(t *testing.T) {
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	tests := []struct {
		what                string
		notBefore, notAfter time.Duration // from noon
		suggested, chosen   time.Duration // the CA's moment and when it was chosen; 0 for none
		now                 time.Duration
		want                time.Duration
	}{
		{"ninety days", 0, 90 * day, 0, 0, time.Hour, 60 * day},
		{"six days, at half", -time.Hour, 160*time.Hour - time.Hour, 0, 0, time.Hour, 79 * time.Hour},
		{"ninety seconds, at half", 0, 90 * time.Second, 0, 0, time.Second, 45 * time.Second},
		{"ten minutes, dated back by five, are kept for a while", -5 * time.Minute, 5 * time.Minute, 0, 0, 0, 100 * time.Second},
		{"a clock that is 70 days ahead makes no loop", -70 * day, 20 * day, 0, 0, 0, settled},
		{"a clock that was ten years ahead when it was issued", -3650 * day, -3560 * day, 0, 0, -3640 * day, -3590 * day},
		{"the CA wants a new certificate renewed", 0, 90 * day, time.Minute, 2 * time.Minute, 3 * time.Minute, hurried},
		{"the CA wants an old certificate renewed", 0, 90 * day, 10 * day, 11 * day, 11 * day, 10 * day},
		{"the CA suggests a moment", 0, 90 * day, 50 * day, 11 * day, 11 * day, 50 * day},
	}
	for _, tt := range tests {
		j := issuedJob(noon, noon.Add(tt.notBefore), noon.Add(tt.notAfter))
		if tt.suggested != 0 {
			j.state.ARI = state.Suggestion{Moment: noon.Add(tt.suggested), ChosenAt: noon.Add(tt.chosen)}
		}
		at, why := j.view().renewal(noon.Add(tt.now))
		if got := at.Sub(noon); got != tt.want || why == "" {
			t.Errorf("%s: renewed after %v (%s), want %v", tt.what, got, why, tt.want)
		}
	}
}

// TestShortLived renews certificates of tiny lifetimes again and again, with all that a tick may cost, and none expires.
func TestShortLived(t *testing.T) {
	for _, tt := range []struct{ lifetime, tick time.Duration }{
		{90 * time.Second, time.Second},
		{90 * time.Second, 15 * time.Second},
		{10 * time.Minute, time.Minute},
		{160 * time.Hour, time.Minute},
	} {
		now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
		j := issuedJob(now, now, now.Add(tt.lifetime))
		const renewals = 20
		for range renewals {
			j.plan(now)
			next := j.state.NextLook
			for now.Before(next) {
				now = now.Add(tt.tick)
			}
			if left := j.state.X509.NotAfter.Sub(now); left < tt.lifetime/4 {
				t.Fatalf("%v at ticks of %v: looked at when %v were left", tt.lifetime, tt.tick, left)
			}
			if at, _ := j.view().renewal(now); !now.Before(at) {
				j = issuedJob(now, now, now.Add(tt.lifetime))
			}
		}
	}
}

// TestSchedule says when a certificate is looked at next.
func TestSchedule(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	in := func(d time.Duration) time.Time { return now.Add(d) }
	for _, tt := range []struct {
		what   string
		change func(j *job)
		want   time.Duration // at least; a fifth more at most
	}{
		{"nothing is due", func(*job) {}, lookInterval},
		{"renewal soon", func(j *job) { j.state.X509.NotAfter = in(30*day + time.Minute); j.state.X509.NotBefore = in(-60 * day) }, 40 * time.Second},
		{"renewal soon, and it failed", func(j *job) {
			j.state.X509.NotAfter, j.state.X509.NotBefore = in(30*day), in(-60*day)
			j.state.Issue = state.Trouble{Failures: 1, RetryAt: in(10 * time.Minute)}
		}, 10 * time.Minute},
		{"the CA is to be asked", func(j *job) { j.state.ARI.AskAgain = in(2 * time.Minute) }, 2 * time.Minute},
		{"none yet, and it failed for days", func(j *job) {
			j.state.X509, j.state.Bundle = nil, nil
			j.state.Issue = state.Trouble{Failures: 9, RetryAt: in(day)}
		}, lookInterval},
	} {
		j := issuedJob(in(-50*day), in(-50*day), in(40*day))
		tt.change(j)
		j.plan(now)
		next := j.state.NextLook
		if wait := next.Sub(now); wait < tt.want || wait > tt.want*6/5 {
			t.Errorf("%s: the next look is in %v, want %v", tt.what, wait, tt.want)
		}
	}
}
