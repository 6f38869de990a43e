package main

import (
	"sync"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/state"
)

// health holds what status shows of the daemon itself: whether its configuration and its state directory are in order.
type health struct {
	mu    sync.Mutex
	now   state.Daemon
	saved state.Daemon // as it is in the store
	told  error        // the last of saving it
}

// configured notes whether the last reading of the configuration went well.
func (h *health) configured(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.ConfigError, h.now.ConfigCure, h.now.ConfigErrorAt = "", "", time.Time{}
	if err != nil {
		h.now.ConfigError, h.now.ConfigCure, h.now.ConfigErrorAt = err.Error(), cure.Of(err), time.Now().UTC()
	}
}

// stateDir takes over what the disk of the state directory is in for.
func (h *health) stateDir(since time.Time, err error) {
	h.now.StateError, h.now.StateCure, h.now.StateErrorAt = "", "", time.Time{}
	if err != nil {
		h.now.StateError, h.now.StateCure, h.now.StateErrorAt = err.Error(), cure.Of(err), since.UTC()
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
