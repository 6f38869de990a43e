package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"autocertd/internal/store"
)

// Memory is a storage in memory, for tests. The zero value is empty and ready.
type Memory struct {
	Objects map[string][]byte // by key

	mu       sync.Mutex
	leases   map[string]*memoryLease
	watchers map[*memoryWatch]bool
}

// Load implements store.Reader.
func (m *Memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.Objects[key]
	if !ok {
		return nil, fmt.Errorf("loading %s: %w", key, fs.ErrNotExist)
	}
	return bytes.Clone(data), nil
}

// List implements store.Reader.
func (m *Memory) List(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.Sorted(maps.Keys(m.Objects))
	return slices.DeleteFunc(keys, func(key string) bool { return !below(key, prefix) }), nil
}

func below(key, prefix string) bool { return key == prefix || strings.HasPrefix(key, prefix+"/") }

// Scan implements store.Reader.
func (m *Memory) Scan(_ context.Context, prefixes ...string) iter.Seq2[store.Object, error] {
	var objects []store.Object
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(m.Objects)) {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return below(key, prefix) }) {
			objects = append(objects, store.Object{Key: key, Data: bytes.Clone(m.Objects[key])})
		}
	}
	return func(yield func(store.Object, error) bool) {
		for _, o := range objects {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// Save implements store.Writer.
func (m *Memory) Save(_ context.Context, key string, data []byte) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setLocked(key, append([]byte{}, data...))
	return nil
}

// SaveLazily implements store.Writer.
func (m *Memory) SaveLazily(ctx context.Context, key string, data []byte) error {
	return m.Save(ctx, key, data)
}

// Delete implements store.Writer.
func (m *Memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setLocked(key, nil)
	return nil
}

// setLocked replaces an object, or deletes it when data is nil, and tells those who watch.
func (m *Memory) setLocked(key string, data []byte) {
	if m.Objects == nil {
		m.Objects = map[string][]byte{}
	}
	if m.Objects[key] = data; data == nil {
		delete(m.Objects, key)
	}
	for w := range m.watchers {
		if below(key, w.prefix) {
			w.keys[key] = true
			select {
			case w.more <- struct{}{}:
			default:
			}
		}
	}
}

// memoryLease is a lease on a Memory.
type memoryLease struct {
	m      *Memory
	name   string
	holder store.Holder
	ctx    context.Context
	end    context.CancelCauseFunc
}

// Acquire implements store.Leaser.
func (m *Memory) Acquire(ctx context.Context, name string) (store.Lease, error) {
	for {
		lease, err := m.Try(ctx, name)
		if err == nil {
			return lease, nil
		}
		m.mu.Lock()
		holder := m.leases[name]
		m.mu.Unlock()
		if holder == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-holder.ctx.Done():
		}
	}
}

// Try implements store.Leaser.
func (m *Memory) Try(_ context.Context, name string) (store.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.leases[name]; l != nil {
		return nil, &store.HeldError{Lease: name, Holder: l.holder}
	}
	if m.leases == nil {
		m.leases = map[string]*memoryLease{}
	}
	l := &memoryLease{m: m, name: name, holder: store.Here("a test")}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	m.leases[name] = l
	return l, nil
}

// Holder implements store.Leaser.
func (m *Memory) Holder(_ context.Context, name string) (*store.Holder, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.leases[name]; l != nil {
		return &l.holder, nil
	}
	return nil, nil
}

// Lose takes a lease from its holder.
func (m *Memory) Lose(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.leases[name]; l != nil {
		l.loseLocked()
	}
}

func (l *memoryLease) loseLocked() {
	if l.m.leases[l.name] == l {
		delete(l.m.leases, l.name)
	}
	l.end(fmt.Errorf("%s: %w", l.name, store.ErrLost))
}

func (l *memoryLease) Context() context.Context { return l.ctx }

func (l *memoryLease) Release() {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.loseLocked()
}

func (l *memoryLease) write(key string, data []byte) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := context.Cause(l.ctx); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	l.m.setLocked(key, data)
	return nil
}

func (l *memoryLease) Save(_ context.Context, key string, data []byte) error {
	return l.write(key, append([]byte{}, data...))
}

func (l *memoryLease) SaveLazily(_ context.Context, key string, data []byte) error {
	return l.write(key, append([]byte{}, data...))
}

func (l *memoryLease) Delete(_ context.Context, key string) error { return l.write(key, nil) }

// memoryWatch is one watch of a Memory.
type memoryWatch struct {
	prefix string
	keys   map[string]bool // changed and not yet sent; guarded by the Memory's mu
	more   chan struct{}
}

// Watch implements store.Watcher.
func (m *Memory) Watch(ctx context.Context, prefix string) (<-chan []string, error) {
	w := &memoryWatch{prefix: prefix, keys: map[string]bool{}, more: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watchers == nil {
		m.watchers = map[*memoryWatch]bool{}
	}
	m.watchers[w] = true
	keys := make(chan []string)
	go func() { // ends with ctx
		defer close(keys)
		for {
			select {
			case <-ctx.Done():
				m.mu.Lock()
				delete(m.watchers, w)
				m.mu.Unlock()
				return
			case <-w.more:
			}
			m.mu.Lock()
			list := slices.Sorted(maps.Keys(w.keys))
			clear(w.keys)
			m.mu.Unlock()
			select {
			case <-ctx.Done():
			case keys <- list:
			}
		}
	}()
	return keys, nil
}
