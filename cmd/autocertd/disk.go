package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"autocertd/internal/store"
	"autocertd/internal/store/files"
)

// diskLook is the time between two tries to write to a full state directory, and between two looks for notes of commands.
const diskLook = 5 * time.Second

// watchDisk tries a state directory that can't be written until it can, and wakes the certificates then that it stopped. It
// has a tick come early when a command has worked on certificates, so that systemd is told. The next tick of the schedule
// may be hours away.
func (d *daemonProcess) watchDisk(ctx context.Context) error {
	look := time.NewTicker(diskLook)
	defer look.Stop()
	handwork, _ := d.store.Load(ctx, handworkObject)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		if left, err := d.store.Load(ctx, handworkObject); err == nil && !bytes.Equal(left, handwork) {
			handwork = left
			d.scheduler.Wake()
		}
		d.mu.Lock()
		if d.unlisted {
			d.saveLists(ctx)
		}
		d.mu.Unlock()
		if _, err := d.program.manager.DiskTrouble(); err == nil {
			continue
		}
		stopped := map[string]bool{}
		for _, name := range d.program.manager.TryDisk(ctx) {
			stopped[name] = true
		}
		if _, err := d.program.manager.DiskTrouble(); err == nil {
			d.scheduler.WakeWhere(func(name string) bool { return stopped[name] })
			d.report(ctx)
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

// keepLock sees to it that the daemon's lock is that of the file which others would take. It returns an error when another
// daemon has it. Only tick calls it.
func (d *daemonProcess) keepLock(ctx context.Context) error {
	if d.lockFile != nil && d.store.IsLockFile(daemonLock, d.lockFile) {
		return nil
	}
	release, err := d.store.TryLock(ctx, daemonLock)
	if held, ok := errors.AsType[*store.HeldError](err); ok {
		return anotherDaemon(d.program.session.stateDir, held)
	}
	if err != nil {
		d.logger.Error("the lock of the daemon was removed, and can't be taken again", "err", err)
		return nil
	}
	d.logger.Warn("the file of the daemon's lock was removed or replaced; taken again")
	d.releases = append(d.releases, release)
	d.lockFile = lockFile(d.store)
	return nil
}

// lockFile returns the file of the daemon's lock; nil when it can't be seen.
func lockFile(store *files.Store) fs.FileInfo {
	info, err := store.LockFile(daemonLock)
	if err != nil {
		return nil
	}
	return info
}

func anotherDaemon(stateDir string, held *store.HeldError) error {
	return fmt.Errorf("another daemon runs on %s: process %d, since %s", stateDir, held.Holder.PID, held.Holder.Since.Format(time.RFC3339))
}
