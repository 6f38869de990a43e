//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"autocertd/internal/testbed"
)

// TestBadCA starts the daemon while the CA has a bad day.
func TestBadCA(t *testing.T) {
	tests := []struct {
		name   string
		bad    http.HandlerFunc
		want   string // in the error
		itself bool   // the daemon tries again soon, without being told
	}{
		{
			name: "it says that it is overloaded",
			bad:  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
			want: "CA test: account: ",
		},
		{
			name: "it says when it will be back",
			bad: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(http.StatusServiceUnavailable)
			},
			want:   "503",
			itself: true,
		},
		{
			name: "it drops connections",
			bad:  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			want: "CA test: ",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var well atomic.Bool
			s := newSite(t, siteConfig{ca: testbed.CAConfig{Wrap: func(ca http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if well.Load() {
						ca.ServeHTTP(w, r)
					} else {
						tt.bad(w, r)
					}
				})
			}}})
			s.hostnames = hosts(1)
			d := s.start(t)
			status := s.failing(t, s.hostnames[0])
			t.Logf("tried again after %s: %s", status.Issue.RetryAt.Sub(status.Issue.At), status.Issue.Error)
			if !strings.Contains(status.Issue.Error, tt.want) {
				t.Errorf("status doesn't tell %q", tt.want)
			}
			well.Store(true)
			if !tt.itself {
				s.renewed(t, s.hostnames[0])
			}
			s.deployed(t, s.hostnames...)
			d.stop(t)
			s.clean(t, zone)
		})
	}
}

// TestCAComesBack starts the daemon while there is no CA. The one that comes later knows nobody.
func TestCAComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = []string{"a." + zone}
	s.start(t)
	s.deployed(t, "a."+zone)
	addr := strings.TrimPrefix(s.ca.Directory(), "https://")
	addr, _, _ = strings.Cut(addr, "/")
	if err := s.ca.Close(); err != nil {
		t.Fatal(err)
	}
	s.hostnames = append(s.hostnames, "b."+zone)
	s.write(t)
	if status := s.failing(t, "b."+zone); !strings.Contains(status.Issue.Error, addr+" can't be reached") {
		t.Errorf("status doesn't tell that %s can't be reached: %s", addr, status.Issue.Error)
	}
	old := s.root
	s.startCA(t, testbed.CAConfig{Listen: addr, DNS: s.bind.Addr()})
	s.renewed(t, "b."+zone)
	s.deployed(t, "b."+zone)
	s.root = old
	s.deployed(t, "a."+zone)
	s.clean(t, zone)
}

// TestBadServers takes DNS servers away: a secondary that is dead and one that hangs, then the primary.
func TestBadServers(t *testing.T) {
	t.Parallel()
	cfg := company()
	cfg.bind.Zones = []testbed.BINDZone{{Name: zone}, {Name: "other.test"}}
	cfg.validator = 0
	s := newSite(t, cfg)
	servers := s.bind.Servers()
	if err := errors.Join(s.bind.Kill(1), s.bind.Stop(2)); err != nil {
		t.Fatal(err)
	}
	patient := s.provider("all", `zones = ["example.test"]`)
	other := s.provider("one", `zones = ["other.test"]`, nameservers(s.bind.Addr()))
	s.providers = []string{s.provider("all", `zones = ["example.test"]`, `propagation_timeout = "2s"`), other}
	s.hostnames = []string{"a." + zone, "a.other.test"}
	d := s.start(t)
	status := s.failing(t, "a."+zone)
	for _, want := range []string{servers[1], "connection refused", servers[2]} {
		if !strings.Contains(status.Issue.Error, want) {
			t.Errorf("status doesn't tell %q: %s", want, status.Issue.Error)
		}
	}
	s.deployed(t, "a.other.test")
	s.clean(t, zone)

	if err := errors.Join(s.bind.Restart(t.Context(), 1), s.bind.Continue(2)); err != nil {
		t.Fatal(err)
	}
	s.providers = []string{patient, other}
	s.write(t)
	s.renewed(t, "a."+zone)
	s.deployed(t, "a."+zone)

	if err := s.bind.Kill(0); err != nil {
		t.Fatal(err)
	}
	s.hostnames = append(s.hostnames, "b."+zone)
	s.write(t)
	if status := s.failing(t, "b."+zone); !strings.Contains(status.Issue.Error, servers[0]) {
		t.Errorf("status doesn't name the primary %s: %s", servers[0], status.Issue.Error)
	}
	if err := s.bind.Restart(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s.renewed(t, "b."+zone)
	s.deployed(t, s.hostnames...)
	d.stop(t)
	s.clean(t, zone)
	s.clean(t, "other.test")
}

// TestFullDisk takes the room away from a running daemon's state directory, and gives it back.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.mountState(t)
	s.hostnames = []string{"a." + zone}
	told := s.systemd(t)
	d := s.start(t)
	s.deployed(t, "a."+zone)
	s.clean(t, zone)
	before, err := s.pair("a." + zone)
	if err != nil {
		t.Fatal(err)
	}

	const full = "no space left on device"
	filler := s.path("state", "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the state directory isn't full: %v", err)
	}
	if r := s.command(t, "renew", "--force", "a."+zone); r.status != exitFailed || !strings.Contains(r.stderr, full) {
		t.Errorf("renew ends with %d and doesn't say %q:\n%s", r.status, full, r.stderr)
	}
	s.hostnames = append(s.hostnames, "b."+zone)
	s.write(t)
	d.tells(t, full)
	d.tells(t, "the state directory can't be written")
	eventually(t, func() error {
		if r := s.command(t, "status"); !strings.Contains(r.stderr, "the state directory can't be written, so that nothing is issued") || !strings.Contains(r.stderr, full) {
			return fmt.Errorf("status doesn't tell of the disk:\n%s", r.stderr)
		}
		return nil
	})
	eventually(t, told("the state directory can't be written", full))
	if report := s.report(t); report.Daemon == nil || !strings.Contains(report.Daemon.StateError, full) {
		t.Errorf("the daemon doesn't tell of the disk: %+v", report.Daemon)
	}
	if n := strings.Count(d.says(t), "level=ERROR"); n > 3 {
		t.Errorf("%d errors in the log for one disk", n)
	}
	if after, err := s.pair("a." + zone); err != nil || !after.Equal(before) {
		t.Errorf("a full disk changed the certificate (%v)", err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if report := s.report(t); report.StateError != "" || report.Daemon.StateError != "" {
			return fmt.Errorf("status still says %q, the daemon %q", report.StateError, report.Daemon.StateError)
		} else if len(report.NotTakenOver) > 0 {
			return fmt.Errorf("status says that %v isn't taken over, which couldn't be noted on a full disk", report.NotTakenOver)
		}
		return nil
	})
	s.renewed(t, "--force", "a."+zone)
	if after, err := s.pair("a." + zone); err != nil || after.Equal(before) {
		t.Errorf("with room again, renew left the old certificate (%v)", err)
	}
	s.deployed(t, "b."+zone) // nobody need tell the daemon
	d.stop(t)
	s.clean(t, zone)
}

// mountState puts the state directory on a file system of its own with room for 1 MiB.
func (s *site) mountState(t *testing.T) {
	t.Helper()
	if err := os.Mkdir(s.path("state"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", s.path("state"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m,mode=755"); err != nil {
		t.Skipf("this machine lets nobody mount a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.path("state"), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
