//go:build linux

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/store/files"
	"autocertd/internal/testbed"
)

// trap goes in front of the CA. It kills a process at its first request for a path, before the CA has seen it or when it
// has answered.
type trap struct {
	path   string // "" for no trap
	after  bool
	victim chan *exec.Cmd // gets the process
	sprung atomic.Bool
}

func (tr *trap) wrap(ca http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tr.path == "" || r.URL.Path != tr.path || !tr.sprung.CompareAndSwap(false, true) {
			ca.ServeHTTP(w, r)
			return
		}
		if tr.after {
			ca.ServeHTTP(httptest.NewRecorder(), r)
		}
		_ = (<-tr.victim).Process.Kill()
		<-r.Context().Done() // the connection ends with the process, so that it never sees a reply
	})
}

// TestRolloverUnderTheDaemon kills account rollover with SIGKILL at its requests, while a daemon renews short-lived
// certificates. The daemon goes on with the account, and so does one that is started afterwards.
func TestRolloverUnderTheDaemon(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		trap *trap
	}{
		{"not killed", &trap{}},
		{"killed when the CA is told, before it has heard", &trap{path: "/rollover-account-key"}},
		{"killed when the CA is told, and it has the new key", &trap{path: "/rollover-account-key", after: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.trap.victim = make(chan *exec.Cmd, 1)
			s := newSite(t, siteConfig{ca: testbed.CAConfig{Lifetime: 12 * time.Second, Wrap: tt.trap.wrap}})
			s.hostnames = hosts(1)
			d := s.start(t)
			s.deployed(t, s.hostnames...)
			before := s.bundle(t)

			cmd := exec.Command("autocertd", "account", "rollover", "--config", s.config())
			cmd.SysProcAttr = dieWithTests()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			tt.trap.victim <- cmd
			if err := cmd.Wait(); (err != nil) != (tt.trap.path != "") || tt.trap.sprung.Load() != (tt.trap.path != "") {
				t.Fatalf("the rollover ends with %v, the trap is sprung: %t", err, tt.trap.sprung.Load())
			}
			s.renewedBy(t, before, 2) // the first may have been under way
			d.stop(t)
			d = s.startAgain(t)
			s.renewedBy(t, before, 1)
			d.stop(t)
			if r := s.command(t, "account", "show"); r.status != 0 || !strings.Contains(r.stdout, before.Account) || !strings.Contains(r.stdout, "valid") {
				t.Errorf("account show ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
			}
		})
	}
}

// bundle is what was issued for the first hostname.
func (s *site) bundle(t *testing.T) *state.Bundle {
	t.Helper()
	b, _, err := state.LoadBundle(t.Context(), files.View(s.path("state")), s.hostnames[0])
	if err != nil || b == nil {
		t.Fatalf("bundle %v, %v", b, err)
	}
	return b
}

// renewedBy waits until more certificates were issued, by the account of the one before.
func (s *site) renewedBy(t *testing.T, before *state.Bundle, more int) {
	t.Helper()
	last := s.bundle(t).Leaf
	for range more {
		eventually(t, func() error {
			if b := s.bundle(t); b.Leaf == last || b.Account != before.Account {
				return fmt.Errorf("issued at %s by %s", b.Issued, b.Account)
			}
			return nil
		})
		last = s.bundle(t).Leaf
	}
}
