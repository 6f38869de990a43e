package lifecycle

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"autocertd/internal/event"
	"autocertd/internal/state"
	"autocertd/internal/store"
)

// diskRetry is when a certificate is tried again that a disk without room has stopped. A daemon is quicker, see TryDisk.
const diskRetry = 30 * time.Second

// disk is the trouble of the whole state directory, which is that of all certificates and is told once.
type disk struct {
	mu      sync.Mutex
	err     error // nil when there is none
	since   time.Time
	stopped map[string]bool // certificates that it has stopped
}

// diskFailed reports whether an error is that of the whole state directory, and notes whom it has stopped; "" is nobody.
func (m *Manager) diskFailed(name string, err error) bool {
	if !store.Unwritable(err) {
		return false
	}
	d := &m.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.since, d.stopped = time.Now(), map[string]bool{}
		m.cfg.Tell.Tell(event.Event{Kind: event.StoreUnwritable, Err: err})
	}
	if d.err = err; name != "" {
		d.stopped[name] = true
	}
	return true
}

// NoteDisk notes an error of a write to the state directory, and reports whether it is one that concerns all of it.
func (m *Manager) NoteDisk(err error) bool { return m.diskFailed("", err) }

// DiskTrouble returns since when the state directory can't be written, and why; nil when it can as far as is known.
func (m *Manager) DiskTrouble() (since time.Time, err error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.disk.since, m.disk.err
}

// room is how much a disk must take before it counts as one with room: some bundles.
const room = 64 << 10

// TryDisk tries whether the state directory can be written again, and returns the certificates then that it had stopped. It
// returns nothing when there was no trouble, or when there still is.
func (m *Manager) TryDisk(ctx context.Context) (stopped []string) {
	if _, err := m.DiskTrouble(); err == nil {
		return nil
	}
	err := m.cfg.Storage.SaveLazily(ctx, state.ProbeKey, make([]byte, room))
	if err == nil {
		err = m.cfg.Storage.Delete(ctx, state.ProbeKey)
	}
	if err != nil {
		return nil
	}
	d := &m.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	m.cfg.Tell.Tell(event.Event{Kind: event.StoreWritable, Details: []slog.Attr{
		slog.Duration("after", time.Since(d.since).Round(time.Second)), slog.Int("certificates", len(d.stopped))}})
	stopped = slices.Collect(maps.Keys(d.stopped))
	d.err, d.since, d.stopped = nil, time.Time{}, nil
	return stopped
}
