package dns01

import (
	"sync"
)

// tasks are the solver's goroutines. Unlike with a sync.WaitGroup, new ones may begin while somebody waits for the end.
type tasks struct {
	mu      sync.Mutex
	running int
	waiting []chan struct{}
	closed  bool
}

// run starts f and reports true, or reports false after close.
func (t *tasks) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running++
	go func() {
		defer t.done()
		f()
	}()
	return true
}

func (t *tasks) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running--; t.running == 0 {
		t.release()
	}
}

// release tells those who wait; mu is held.
func (t *tasks) release() {
	for _, c := range t.waiting {
		close(c)
	}
	t.waiting = nil
}

// idle returns a channel that is closed as soon as nothing runs.
func (t *tasks) idle() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := make(chan struct{})
	t.waiting = append(t.waiting, c)
	if t.running == 0 {
		t.release()
	}
	return c
}

// close lets nothing begin any more.
func (t *tasks) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}
