package proc

import (
	"errors"

	"golang.org/x/sys/unix"
)

// awaitExit waits until a child has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		// A signal came.
	}
}
