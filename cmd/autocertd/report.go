package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"autocertd/internal/lifecycle"
	"autocertd/internal/printable"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/scheduler"
)

// reportDelay is how long changes gather before they are reported.
const reportDelay = time.Second

// reporter reports how the daemon is: to systemd, and in objects that status reads.
type reporter struct {
	store     *files.Store
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
	if r.health.ConfigError != "" {
		line = "configuration has mistakes, the one before is in force; " + line
	}
	if r.health.StateError != "" {
		line = "the state directory can't be written: " + printable.Short(r.health.StateError, 200) + "; " + line
	}
	notifySystemd("STATUS=" + line)
	data, err := json.Marshal(&r.health)
	if err == nil && !bytes.Equal(data, r.health.saved) { // mostly nothing changed since the last tick
		if err = r.saveLocked(ctx, data); err == nil {
			r.health.saved = data
		}
	}
	if err == nil && r.health.StateError == "" {
		err = r.doings.save(ctx, r.store)
	}
	if err != nil && !r.manager.NoteDisk(err) && r.health.untold(err) {
		r.logger.Error("the state directory can't be written", "err", err)
	}
}

// saveLocked replaces what status reads, and writes over it where there is no room for another.
func (r *reporter) saveLocked(ctx context.Context, data []byte) error {
	err := r.store.SaveLazily(ctx, healthObject, data)
	if err == nil || !store.Unwritable(err) {
		return err
	}
	if r.manager.NoteDisk(err); r.health.StateError == "" { // found out just now
		r.health.stateDir(r.manager.DiskTrouble())
		if changed, err := json.Marshal(&r.health); err == nil {
			data = changed
		}
	}
	if r.store.Overwrite(healthObject, data) == nil {
		r.health.saved = nil // to be replaced as soon as there is room
	}
	return err
}
