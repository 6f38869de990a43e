package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"autocertd/internal/store"
	"autocertd/internal/store/files"
)

// daemonLock is held by the one daemon of a state directory.
const daemonLock = "daemon"

// daemonLockWait is longer than status holds the lock to see whether a daemon does.
const daemonLockWait = 2 * time.Second

// heldLock is the lock of the daemon that this process is.
type heldLock struct {
	store    *files.Store
	stateDir string
	logger   *slog.Logger
	file     fs.FileInfo // of the lock; nil when it couldn't be seen
	releases []func()    // of each file that the lock had
	stolen   chan error  // another daemon has the lock
}

// holdLock takes the daemon's lock.
func holdLock(ctx context.Context, s *session, logger *slog.Logger) (*heldLock, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonLockWait)
	defer cancel()
	l := &heldLock{store: s.store, stateDir: s.stateDir, logger: logger, stolen: make(chan error, 1)}
	release, err := s.store.Lock(ctx, daemonLock)
	if held, ok := errors.AsType[*store.HeldError](err); ok {
		return nil, l.anotherDaemon(held)
	}
	if err != nil {
		return nil, err
	}
	l.releases = []func(){release}
	l.look()
	return l, nil
}

// run ends when another daemon has the lock.
func (l *heldLock) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-l.stolen:
		return err
	}
}

// keep sees to it that the lock is that of the file which others would take. It reports whether this is still the daemon.
func (l *heldLock) keep(ctx context.Context) bool {
	if l.file != nil && l.store.IsLockFile(daemonLock, l.file) {
		return true
	}
	release, err := l.store.TryLock(ctx, daemonLock)
	if held, ok := errors.AsType[*store.HeldError](err); ok {
		select {
		case l.stolen <- l.anotherDaemon(held):
		default:
		}
		return false
	}
	if err != nil {
		l.logger.Error("the lock of the daemon was removed, and can't be taken again", "err", err)
		return true
	}
	l.logger.Warn("the file of the daemon's lock was removed or replaced; taken again")
	l.releases = append(l.releases, release)
	l.look()
	return true
}

func (l *heldLock) release() {
	for _, release := range l.releases {
		release()
	}
}

// look remembers the file of the lock.
func (l *heldLock) look() { l.file, _ = l.store.LockFile(daemonLock) }

func (l *heldLock) anotherDaemon(held *store.HeldError) error {
	return fmt.Errorf("another daemon runs on %s: process %d, since %s", l.stateDir, held.Holder.PID, held.Holder.Since.Format(time.RFC3339))
}
