package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/state"
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

// daemonHealth returns what the running daemon says of itself, nil when none runs.
func daemonHealth(ctx context.Context, objects state.Store) *health {
	h := new(health)
	for try := 0; ; try++ {
		data, err := objects.Load(ctx, healthObject)
		if err != nil {
			return nil
		}
		if json.Unmarshal(data, h) == nil {
			break
		}
		if try == 2 {
			return nil
		}
		time.Sleep(50 * time.Millisecond) // it is just being written over, see reporter.saveLocked
	}
	if holder, err := objects.Holder(ctx, daemonLock); err == nil && holder == nil {
		return nil
	}
	return h
}
