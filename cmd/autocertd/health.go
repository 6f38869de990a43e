package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"autocertd/internal/storage"
)

const healthObject = "daemon.json"

// health is what the daemon tells of itself, for status.
type health struct {
	mu            sync.Mutex
	PID           int       `json:"pid"`
	Started       time.Time `json:"started"`
	ConfigError   string    `json:"config_error,omitempty"` // why the files on disk aren't what runs
	ConfigErrorAt time.Time `json:"config_error_at,omitzero"`

	saved []byte // as it is in the storage
}

// configured notes whether the last reading of the configuration went well.
func (h *health) configured(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ConfigError, h.ConfigErrorAt = "", time.Time{}
	if err != nil {
		h.ConfigError, h.ConfigErrorAt = err.Error(), time.Now().UTC()
	}
}

// report tells status and systemd how the daemon is.
func (d *daemonProcess) report(ctx context.Context) {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	stats := d.scheduler.Stats()
	line := fmt.Sprintf("%d certificates, %d failing, %d in progress", stats.Items, d.manager.Failing(), stats.Running)
	if d.health.ConfigError != "" {
		line = "configuration has mistakes, the one before is in force; " + line
	}
	notifySystemd("STATUS=" + line)
	data, err := json.Marshal(&d.health)
	if err == nil && !bytes.Equal(data, d.health.saved) { // mostly nothing changed since the last tick
		if err = d.store.SaveLazily(ctx, healthObject, data); err == nil {
			d.health.saved = data
		}
	}
	if err == nil {
		err = d.doings.save(ctx, d.store)
	}
	if err != nil {
		d.logger.Error("the state directory can't be written", "err", err)
	}
}

// daemonHealth returns what the running daemon says of itself, nil when none runs. Its lock is looked at only when a
// process of its number lives, since looking means to hold it for a moment.
func daemonHealth(ctx context.Context, store *storage.Files) *health {
	data, err := store.Load(ctx, healthObject)
	if err != nil {
		return nil
	}
	h := new(health)
	if json.Unmarshal(data, h) != nil || errors.Is(syscall.Kill(h.PID, 0), syscall.ESRCH) {
		return nil
	}
	if release, err := store.TryLock(ctx, daemonLock); err == nil {
		release()
		return nil
	}
	return h
}
