package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notifyWait bounds the wait for a free place in systemd's socket; the message is dropped then.
const notifyWait = time.Second

// notifySystemd reports a change to systemd when it has started us and asks for that. Nothing depends on it, and nothing
// waits long for it: the socket's queue may be full, and a stop must come through.
func notifySystemd(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	if conn.SetWriteDeadline(time.Now().Add(notifyWait)) == nil {
		_, _ = conn.Write([]byte(state))
	}
}

// reloading returns the message that a reload begins, with the time stamp that Type=notify-reload wants (systemd 253 and later).
func reloading() string {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}

// keepWatchdog reports to systemd that the daemon is alive, twice per WatchdogSec, as long as alive returns.
func keepWatchdog(ctx context.Context, alive func()) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil // not wanted, or set up in a way that we can't serve
	}
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			alive()
			notifySystemd(daemon.SdNotifyWatchdog)
		}
	}
}
