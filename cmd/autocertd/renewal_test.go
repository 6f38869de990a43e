//go:build linux

package main

import (
	"cmp"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

// longEnv asks for the test that takes ten minutes.
const longEnv = "AUTOCERTD_LONG"

// TestShortLived looks all the time whether there is a certificate that can be used, while the daemon renews it again
// and again.
func TestShortLived(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		lifetime time.Duration
		renewals int           // of each certificate, at least
		watch    time.Duration // at least
		schedule string        // "" is every second
		long     bool
	}{
		{name: "12 seconds, renewed three times", lifetime: 12 * time.Second, renewals: 3},
		{name: "36 seconds, which can't wait for the first of January", lifetime: 36 * time.Second, renewals: 1, schedule: "@yearly"},
		{name: "90 seconds, for ten minutes", lifetime: 90 * time.Second, renewals: 10, watch: 10 * time.Minute, long: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.long && os.Getenv(longEnv) != "1" {
				t.Skip("for those who have the time: " + longEnv + "=1")
			}
			t.Parallel()
			s := newSite(t, siteConfig{ca: testbed.CAConfig{Lifetime: tt.lifetime}})
			s.hostnames = hosts(3)
			s.schedule = cmp.Or(tt.schedule, s.schedule)
			d := s.start(t)
			s.deployed(t, s.hostnames...)
			seen := s.watch(t, tt.watch, tt.renewals)
			d.stop(t)
			s.clean(t, zone)
			t.Logf("renewals: %v", seen)
		})
	}
}

// watch looks at all certificates every 50 ms, until each was renewed so often and the time is over. A certificate that
// can't be used at any of these moments fails the test. It returns how often each was renewed.
func (s *site) watch(t *testing.T, atLeast time.Duration, renewals int) map[string]int {
	t.Helper()
	begin, looks, gap := time.Now(), 0, time.Duration(0)
	last, seen := map[string]*x509.Certificate{}, map[string]int{}
	done := func() bool {
		for _, name := range s.hostnames {
			if seen[name] < renewals {
				return false
			}
		}
		return time.Since(begin) >= atLeast
	}
	for previous := begin; !done(); time.Sleep(50 * time.Millisecond) {
		for _, name := range s.hostnames {
			leaf, err := s.pair(name)
			if err != nil {
				t.Fatalf("after %s and %d renewals (longest time between two looks %s): %v", time.Since(begin), seen[name], gap, err)
			}
			if last[name] != nil && !leaf.Equal(last[name]) {
				seen[name]++
			}
			last[name] = leaf
		}
		if time.Since(begin) > atLeast+patience {
			t.Fatalf("renewed too seldom: %v", seen)
		}
		gap, previous = max(gap, time.Since(previous)), time.Now()
		looks++
	}
	t.Logf("%d looks in %s, the longest time between two was %s", looks, time.Since(begin).Round(time.Millisecond), gap.Round(time.Millisecond))
	return seen
}
