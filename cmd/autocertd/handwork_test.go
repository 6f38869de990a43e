//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/store/files"
)

// TestFailureByHandIsTriedAgain lets renew meet a failure beside a daemon that knows of none.
func TestFailureByHandIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	name := "hook." + zone
	s.hostnames = []string{name}
	hook, broken, log := s.path("hook"), s.path("broken"), s.path("log")
	s.tables = fmt.Sprintf("[[output]]\nmatch = [\"*\"]\ndir = %q\nrun = [[%q]]\n", s.path("out", "{name}"), hook)
	script := fmt.Sprintf("#!/bin/sh\n[ ! -e %s ] || exit 3\necho done >>%s\n", broken, log)
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ran := func(times int) func() error {
		return func() error {
			text, _ := os.ReadFile(log)
			if n := strings.Count(string(text), "done"); n < times {
				return fmt.Errorf("the hook has succeeded %d times", n)
			}
			return nil
		}
	}
	d := s.start(t)
	eventually(t, ran(1))
	eventually(t, func() error { // and the daemon thinks that nothing is to be done for an hour
		if state := s.state(t, name); state.NextLook.Before(time.Now().Add(time.Minute)) {
			return fmt.Errorf("next look at %s", state.NextLook)
		}
		return nil
	})

	s.writeFile(t, "broken", "")
	if r := s.command(t, "renew", "--force"); r.status != exitFailed {
		t.Fatalf("renew ends with %d:\n%s", r.status, r.stderr)
	}
	if d := s.deployment(t, name); d.Trouble.Failures != 1 {
		t.Fatalf("the state says of the failed hook: %+v", d.Trouble)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	eventually(t, ran(2))
	d.stop(t)
}

// TestRefusedFileBecomesRight gives a key the wrong rights and then the right ones, while no TOML file changes.
func TestRefusedFileBecomesRight(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = []string{"before." + zone}
	d := s.start(t)
	s.deployed(t, s.hostnames...)

	key := s.bind.KeyFile("acme-key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	s.hostnames = append(s.hostnames, "after."+zone)
	s.write(t)
	d.tells(t, "not taken over")
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	s.deployed(t, s.hostnames...)
	d.stop(t)
}

// TestRestartRetries mends a hook while no daemon runs. The next one runs it at once, though the back-off has an hour to go.
func TestRestartRetries(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	name := "hook." + zone
	s.hostnames = []string{name}
	hook := s.path("hook")
	s.tables = fmt.Sprintf("[[output]]\nmatch = [\"*\"]\ndir = %q\nrun = [[%q]]\n", s.path("out", "{name}"), hook)
	if err := os.WriteFile(hook, []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := s.start(t)
	d.tells(t, "certificate not deployed")
	d.stop(t)
	later, known := s.state(t, name), s.deployment(t, name)
	later.NextLook = time.Now().Add(time.Hour).UTC()
	later.Revision += 10 // than what was saved with the bundle
	known.Trouble.RetryAt = later.NextLook
	data, err := json.Marshal(later)
	host, herr := json.Marshal(known)
	if err = errors.Join(err, herr); err == nil {
		err = errors.Join(os.WriteFile(s.path("state", "states", name+".json"), data, 0o600),
			os.WriteFile(s.path("state", "deployments", "local", name+".json"), host, 0o600))
	}
	if err = errors.Join(err, os.WriteFile(hook, []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	d = s.startAgain(t)
	d.tells(t, "certificate deployed")
	d.stop(t)
}

// TestStatusFollowsRenew has a person mend a failure with renew. systemd hears of it, though no tick of the schedule is near.
func TestStatusFollowsRenew(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = []string{"hook." + zone}
	hook := s.path("hook")
	s.tables = fmt.Sprintf("[[output]]\nmatch = [\"*\"]\ndir = %q\nrun = [[%q]]\n", s.path("out", "{name}"), hook)
	s.schedule = "@every 24h"
	if err := os.WriteFile(hook, []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	told := s.systemd(t)
	d := s.start(t)
	eventually(t, told("1 failing"))
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.renewed(t)
	eventually(t, told("0 failing"))
	d.stop(t)
}

// systemd makes the site's daemons tell their status to a socket. It returns an error for as long as the last status hasn't
// all the words.
func (s *site) systemd(t *testing.T) (told func(words ...string) func() error) {
	t.Helper()
	path := s.path("notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	s.env = append(s.env, "NOTIFY_SOCKET="+path)
	var last atomic.Value
	last.Store("")
	go func() {
		message := make([]byte, 4096)
		for {
			n, err := socket.Read(message)
			if err != nil {
				return // closed
			}
			if line, ok := strings.CutPrefix(string(message[:n]), "STATUS="); ok {
				last.Store(line)
			}
		}
	}()
	return func(words ...string) func() error {
		return func() error {
			line := last.Load().(string)
			for _, w := range words {
				if !strings.Contains(line, w) {
					return fmt.Errorf("the status is %q, want %q in it", line, w)
				}
			}
			return nil
		}
	}
}

// state is what the state directory remembers of a certificate.
func (s *site) state(t *testing.T, name string) *state.Certificate {
	t.Helper()
	c, err := state.LoadFacts(t.Context(), files.View(s.path("state")), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deployment returns the stored facts about a certificate's files on this host.
func (s *site) deployment(t *testing.T, name string) *state.Deployment {
	t.Helper()
	d, err := state.LoadDeployment(t.Context(), files.View(s.path("state")), state.LocalNode, name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestHandworkIsTold has what renew did by hand in the line "Status:", though the daemon looks by itself only in an hour.
func TestHandworkIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.schedule = "@every 1h"
	name := "hook." + zone
	s.hostnames = []string{name}
	hook, broken := s.path("hook"), s.path("broken")
	s.tables = fmt.Sprintf("[[output]]\nmatch = [\"*\"]\ndir = %q\nrun = [[%q]]\n", s.path("out", "{name}"), hook)
	if err := os.WriteFile(hook, []byte(fmt.Sprintf("#!/bin/sh\n[ ! -e %s ]\n", broken)), 0o755); err != nil {
		t.Fatal(err)
	}
	path := s.path("notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	s.env = []string{"NOTIFY_SOCKET=" + path}
	says := func(words string) {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(scriptPatience)); err != nil {
			t.Fatal(err)
		}
		for message := make([]byte, 4096); ; {
			n, err := socket.Read(message)
			if err != nil {
				t.Fatalf("the status never says %q: %v", words, err)
			}
			if strings.Contains(string(message[:n]), "STATUS=") && strings.Contains(string(message[:n]), words) {
				return
			}
		}
	}
	d := s.start(t)
	eventually(t, func() error {
		if s.about(t, name).NextLook.IsZero() {
			return errors.New("not looked at yet")
		}
		return nil
	})
	says("0 failing, 0 in progress")

	s.writeFile(t, "broken", "")
	if r := s.command(t, "renew", "--force"); r.status != exitFailed {
		t.Fatalf("renew ends with %d:\n%s", r.status, r.stderr)
	}
	says("1 failing")
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if r := s.command(t, "renew", "--force"); r.status != exitDone {
		t.Fatalf("renew ends with %d:\n%s", r.status, r.stderr)
	}
	says("0 failing")
	d.stop(t)
}
