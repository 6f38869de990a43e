//go:build linux

package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

// TestOutageEndsForAll: while a CA is broken three certificates wait for their next tries, a minute later. Then it works, and a
// hostname that is new finds that out: the three are issued without waiting for their turns.
func TestOutageEndsForAll(t *testing.T) {
	t.Parallel()
	var well atomic.Bool
	s := newSite(t, siteConfig{ca: testbed.CAConfig{Wrap: func(ca http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if well.Load() {
				ca.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(http.StatusBadGateway)
		})
	}}})
	all := hosts(4)
	s.hostnames = all[:3]
	d := s.start(t)
	var soonest time.Time
	for _, name := range s.hostnames {
		status := s.failing(t, name)
		if status.Issue.Silent != "CA test" {
			t.Errorf("%s waits for %q", name, status.Issue.Silent)
		}
		if soonest.IsZero() || status.Issue.RetryAt.Before(soonest) {
			soonest = status.Issue.RetryAt
		}
	}
	well.Store(true)
	s.hostnames = all
	s.write(t)
	s.deployed(t, all...)
	if now := time.Now(); now.After(soonest) {
		t.Skipf("this machine took until %s, and the first would have been tried again at %s in any case", now, soonest)
	}
	d.stop(t)
	s.clean(t, zone)
}

// TestRenewTellsWhyItWaits: a command that comes to nothing says why, though nobody was asked.
func TestRenewTellsWhyItWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{ca: testbed.CAConfig{Wrap: func(ca http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/order-plz") {
				ca.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "99999999999")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}`)
		})
	}}})
	s.hostnames = hosts(1)
	s.write(t)
	for n, want := range []string{`msg="certificate not issued"`, `msg="certificate waits"`, `msg="certificate waits"`} {
		r := s.command(t, "renew", s.hostnames[0])
		if r.status != exitFailed || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "too many (rateLimited)") {
			t.Errorf("try %d: status %d, %q doesn't say %q", n+1, r.status, r.stderr, want)
		}
	}
	if n := s.ca.Requests()["newOrder"]; n != 0 {
		t.Errorf("%d orders came through", n)
	}
}
