package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/store"
)

// daemonLockWait is longer than a look at the holder of the lease may keep it from others.
const daemonLockWait = 2 * time.Second

// daemonLockRetry is the time between two tries to take a lost lease again that can't be taken.
const daemonLockRetry = 10 * time.Second

// daemonLease is the lease of the daemon that this process is. After an error of run nobody has it.
type daemonLease struct {
	leases   store.Leaser
	stateDir string
	logger   *slog.Logger
	lease    store.Lease // only run uses it, and release after that
}

// holdLease takes the daemon's lease.
func holdLease(ctx context.Context, s *session, logger *slog.Logger) (l *daemonLease, err error) {
	ctx, cancel := context.WithTimeout(ctx, daemonLockWait)
	defer cancel()
	l = &daemonLease{leases: s.store, stateDir: s.stateDir, logger: logger}
	l.lease, err = l.leases.Acquire(ctx, state.DaemonLock)
	return l, l.anotherDaemon(err)
}

// run takes the lease again when it is lost. It fails when another daemon has it then.
func (l *daemonLease) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.lease.Context().Done():
		}
		lease, err := l.leases.Try(ctx, state.DaemonLock)
		if _, held := errors.AsType[*store.HeldError](err); held {
			return l.anotherDaemon(err)
		}
		if err != nil {
			l.logger.Error("the lock of the daemon was removed, and can't be taken again", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(daemonLockRetry):
				continue
			}
		}
		l.logger.Warn("the file of the daemon's lock was removed or replaced; taken again")
		l.lease = lease
	}
}

func (l *daemonLease) release() { l.lease.Release() }

// anotherDaemon returns the error of taking the lease, in words where another daemon has it.
func (l *daemonLease) anotherDaemon(err error) error {
	if held, ok := errors.AsType[*store.HeldError](err); ok {
		return fmt.Errorf("another daemon runs on %s: %s, since %s", l.stateDir, held.Holder.Process(), held.Holder.Since.Format(time.RFC3339))
	}
	return err
}
