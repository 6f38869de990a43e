package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"autocertd/internal/lifecycle"
	"autocertd/scheduler"
)

// diskLook is the time between two tries to write to a full state directory.
const diskLook = 5 * time.Second

// diskWatcher waits for a state directory that can't be written. The next tick of the schedule may be hours away.
type diskWatcher struct {
	manager   *lifecycle.Manager
	scheduler *scheduler.Scheduler
	reporter  *reporter
	reloader  *reloader
}

// run tries a state directory that can't be written until it can, and wakes the certificates then that it stopped.
func (w *diskWatcher) run(ctx context.Context) error {
	look := time.NewTicker(diskLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		w.reloader.saveAgain(ctx)
		if _, err := w.manager.DiskTrouble(); err == nil {
			continue
		}
		stopped := map[string]bool{}
		for _, name := range w.manager.TryDisk(ctx) {
			stopped[name] = true
		}
		if _, err := w.manager.DiskTrouble(); err == nil {
			w.scheduler.WakeWhere(func(name string) bool { return stopped[name] })
			w.reporter.report(ctx)
		}
	}
}

// diskOf returns the reason why no user can write to a state directory. It serves where no daemon runs that knows it.
func diskOf(dir string) error {
	if err := unix.Access(dir, unix.W_OK); errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && st.Blocks > 0 && st.Bavail == 0 {
		return fmt.Errorf("%s: %w", dir, unix.ENOSPC)
	}
	return nil
}
