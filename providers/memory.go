package providers

import (
	"maps"
	"sync"
	"time"
)

// memory remembers for a while what was seen.
type memory struct {
	keep time.Duration

	mu sync.Mutex
	at map[string]time.Time
}

func (m *memory) add(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil {
		m.at = make(map[string]time.Time)
	}
	maps.DeleteFunc(m.at, func(_ string, at time.Time) bool { return time.Since(at) > m.keep })
	m.at[what] = time.Now()
}

func (m *memory) remove(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.at, what)
}

func (m *memory) has(what string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.at[what]
	return ok && time.Since(at) <= m.keep
}
