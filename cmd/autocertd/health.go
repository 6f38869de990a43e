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

	"autocertd/internal/cure"
	"autocertd/internal/printable"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
)

const healthObject = "daemon.json"

// health is what the daemon tells of itself, for status.
type health struct {
	mu            sync.Mutex
	PID           int       `json:"pid"`
	Started       time.Time `json:"started"`
	ConfigError   string    `json:"config_error,omitempty"` // why the files on disk aren't what runs
	ConfigCure    string    `json:"config_cure,omitempty"`
	ConfigErrorAt time.Time `json:"config_error_at,omitzero"`
	StateError    string    `json:"state_error,omitempty"` // why the state directory can't be written
	StateCure     string    `json:"state_cure,omitempty"`
	StateErrorAt  time.Time `json:"state_error_at,omitzero"`

	saved []byte // as it is in the storage
	told  error  // the last of saving it
}

// configured notes whether the last reading of the configuration went well.
func (h *health) configured(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ConfigError, h.ConfigCure, h.ConfigErrorAt = "", "", time.Time{}
	if err != nil {
		h.ConfigError, h.ConfigCure, h.ConfigErrorAt = err.Error(), cure.Of(err), time.Now().UTC()
	}
}

// report tells status and systemd how the daemon is.
func (d *daemonProcess) report(ctx context.Context) {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	d.health.stateDir(d.program.manager.DiskTrouble())
	stats := d.scheduler.Stats()
	line := fmt.Sprintf("%d certificates, %d failing, %d in progress", stats.Items, d.program.manager.Failing(), stats.Running)
	if d.health.ConfigError != "" {
		line = "configuration has mistakes, the one before is in force; " + line
	}
	if d.health.StateError != "" {
		line = "the state directory can't be written: " + printable.Short(d.health.StateError, 200) + "; " + line
	}
	notifySystemd("STATUS=" + line)
	data, err := json.Marshal(&d.health)
	if err == nil && !bytes.Equal(data, d.health.saved) { // mostly nothing changed since the last tick
		if err = d.saveHealth(ctx, data); err == nil {
			d.health.saved = data
		}
	}
	if err == nil && d.health.StateError == "" {
		err = d.doings.save(ctx, d.store)
	}
	if err != nil && !d.program.manager.NoteDisk(err) && d.health.untold(err) {
		d.logger.Error("the state directory can't be written", "err", err)
	}
}

// saveHealth replaces what status reads, and writes over it where there is no room for another.
func (d *daemonProcess) saveHealth(ctx context.Context, data []byte) error {
	err := d.store.SaveLazily(ctx, healthObject, data)
	if err == nil || !store.Unwritable(err) {
		return err
	}
	if d.program.manager.NoteDisk(err); d.health.StateError == "" { // found out just now
		d.health.stateDir(d.program.manager.DiskTrouble())
		if changed, err := json.Marshal(&d.health); err == nil {
			data = changed
		}
	}
	if d.store.Overwrite(healthObject, data) == nil {
		d.health.saved = nil // to be replaced as soon as there is room
	}
	return err
}

// stateDir takes over what the disk of the state directory is in for.
func (h *health) stateDir(since time.Time, err error) {
	h.StateError, h.StateCure, h.StateErrorAt = "", "", time.Time{}
	if err != nil {
		h.StateError, h.StateCure, h.StateErrorAt = err.Error(), cure.Of(err), since.UTC()
	}
}

// untold reports whether an error is another than the last.
func (h *health) untold(err error) bool {
	if cure.Same(h.told, err) {
		return false
	}
	h.told = err
	return true
}

// daemonHealth returns what the running daemon says of itself, nil when none runs. Its lock is looked at only when a
// process of its number lives, since looking means to hold it for a moment.
func daemonHealth(ctx context.Context, state *files.Store) *health {
	h := new(health)
	for try := 0; ; try++ {
		data, err := state.Load(ctx, healthObject)
		if err != nil {
			return nil
		}
		if json.Unmarshal(data, h) == nil {
			break
		}
		if try == 2 {
			return nil
		}
		time.Sleep(50 * time.Millisecond) // it is just being written over, see saveHealth
	}
	if errors.Is(syscall.Kill(h.PID, 0), syscall.ESRCH) {
		return nil
	}
	if _, err := state.LockFile(daemonLock); errors.Is(err, store.ErrNotExist) {
		return h // somebody removed it, and the daemon takes it again at its next tick
	}
	if release, err := state.TryLock(ctx, daemonLock); err == nil {
		release()
		return nil
	}
	return h
}
