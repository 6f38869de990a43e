package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"autocertd/internal/lifecycle"
	"autocertd/internal/printable"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/scheduler"
)

// reportDelay gives changes time to gather, so that many are reported at once.
const reportDelay = time.Second

// reporter reports how the daemon is: to systemd, and in objects that status reads.
type reporter struct {
	store     stateStore
	manager   *lifecycle.Manager
	scheduler *scheduler.Scheduler
	logger    *slog.Logger
	health    health
	doings    *doings
	changed   chan struct{} // a certificate was looked at, or a step was taken
}

// run reports soon after a certificate was looked at, many of them at once.
func (r *reporter) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reportDelay):
			r.report(ctx)
		}
	}
}

// report reports now.
func (r *reporter) report(ctx context.Context) {
	r.health.mu.Lock()
	defer r.health.mu.Unlock()
	r.health.stateDir(r.manager.DiskTrouble())
	stats := r.scheduler.Stats()
	line := fmt.Sprintf("%d certificates, %d failing, %d in progress", stats.Items, r.manager.Failing(), stats.Running)
	if r.health.now.ConfigError != "" {
		line = "configuration has mistakes, the one before is in force; " + line
	}
	if r.health.now.StateError != "" {
		line = "the state directory can't be written: " + printable.Short(r.health.now.StateError, 200) + "; " + line
	}
	notifySystemd("STATUS=" + line)
	var err error
	if r.health.now != r.health.saved { // mostly nothing changed since the last tick
		err = r.saveLocked(ctx)
	}
	if err == nil && r.health.now.StateError == "" {
		err = r.doings.save(ctx, r.store)
	}
	if err != nil && !r.manager.NoteDisk(err) && r.health.untold(err) {
		r.logger.Error("the state directory can't be written", "err", err)
	}
}

// saveLocked replaces what status reads, and writes over it where there is no room for another.
func (r *reporter) saveLocked(ctx context.Context) error {
	err := state.SaveDaemon(ctx, r.store, r.health.now)
	if err == nil {
		r.health.saved = r.health.now
	}
	if !store.Unwritable(err) {
		return err
	}
	if r.manager.NoteDisk(err); r.health.now.StateError == "" { // found out just now
		r.health.stateDir(r.manager.DiskTrouble())
	}
	if state.OverwriteDaemon(r.store, r.health.now) == nil {
		r.health.saved = state.Daemon{} // to be replaced as soon as there is room
	}
	return err
}
