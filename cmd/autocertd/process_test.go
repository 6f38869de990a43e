//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = hosts(1)
	d := s.start(t)
	s.deployed(t, s.hostnames...)

	second := s.command(t, "run")
	if pid := fmt.Sprintf("process %d,", d.cmd.Process.Pid); second.status != exitFailed || !strings.Contains(second.stderr, pid) {
		t.Errorf("a second daemon ends with %d and doesn't say %q:\n%s", second.status, pid, second.stderr)
	}
	before, err := s.pair(s.hostnames[0])
	if err != nil {
		t.Fatal(err)
	}
	s.renewed(t, "--force", s.hostnames[0])
	after, err := s.pair(s.hostnames[0])
	if err != nil || after.Equal(before) {
		t.Errorf("renew --force beside the daemon left the old certificate (%v)", err)
	}
	d.stop(t)
	s.clean(t, zone)
}

// TestNobodyReadsNotifications has a socket of systemd's whose queue is full: the daemon starts, reloads and stops all the same.
func TestNobodyReadsNotifications(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = hosts(1)
	path := s.path("notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	fill, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fill)
	for err == nil {
		err = unix.Sendto(fill, []byte("x"), 0, &unix.SockaddrUnix{Name: path})
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	s.env = []string{"NOTIFY_SOCKET=" + path}
	d := s.start(t)
	s.deployed(t, s.hostnames...)
	d.signal(t, syscall.SIGHUP)
	d.tells(t, "configuration taken over")
	d.stop(t)
}

// TestStopInTheMiddle ends the daemon while the records of all its orders are published, and a server that hasn't got
// them keeps the orders from going on.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	s := newSite(t, company())
	s.hostnames = hosts(20)
	if err := s.bind.Stop(2); err != nil {
		t.Fatal(err)
	}
	d := s.start(t)
	eventually(t, func() error {
		if values, err := s.bind.TXT(t.Context(), zone); err != nil || len(values) < len(s.hostnames) {
			return errors.Join(err, fmt.Errorf("%d records", len(values)))
		}
		return nil
	})
	eventually(t, func() error { // status says what is waited for
		for _, c := range s.report(t).Certificates {
			if c.Now == nil || !strings.HasSuffix(c.Now.Step, " servers have the records") || c.Now.Since.IsZero() {
				return fmt.Errorf("%s: %+v", c.Name, c.Now)
			}
		}
		return nil
	})
	// The primary hangs for a while, in which a daemon that doesn't wait for its removals would end.
	if err := s.bind.Stop(0); err != nil {
		t.Fatal(err)
	}
	d.signal(t, syscall.SIGTERM)
	select {
	case <-d.ended:
		t.Error("it ended before its removals were done")
	case <-time.After(300 * time.Millisecond):
	}
	if err := s.bind.Continue(0); err != nil {
		t.Fatal(err)
	}
	d.stop(t)
	if s.bundles(1) == nil {
		t.Error("it wasn't in the middle: there are certificates already")
	}
	if values, err := s.bind.TXT(t.Context(), zone); err != nil || len(values) > 0 {
		t.Errorf("%d names have records after the end (%v)", len(values), err)
	}
	if err := s.bind.Continue(2); err != nil {
		t.Fatal(err)
	}
	d = s.startAgain(t)
	s.deployed(t, s.hostnames...)
	if n := s.ca.NewOrders(); n != len(s.hostnames) {
		t.Errorf("%d orders for %d certificates: those that were open could be resumed", n, len(s.hostnames))
	}
	d.stop(t)
	s.clean(t, zone)
}
