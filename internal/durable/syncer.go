package durable

import (
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// together is how many callers at a time are served by one sync of the whole file system, which is then far cheaper than
	// an fsync for each file. It isn't done for fewer, since such a sync waits for what everybody else wrote there too.
	together = 3
	// gather is how long the next group may grow after such a sync.
	gather = 3 * time.Millisecond
)

// Syncer makes files and folders durable for many callers at once. While the disk works for one of them the others gather,
// and those that have gathered are served together. Nobody who comes alone waits. The zero value is ready.
type Syncer struct {
	mu      sync.Mutex
	waiting []request
	busy    bool // run is at work
}

// request is what one caller wants made durable.
type request struct {
	files  []*os.File
	result chan<- error
}

// Sync returns nil when all of the files' content, and the names in those that are folders, would survive a power loss.
func (s *Syncer) Sync(files ...*os.File) error {
	result := make(chan error, 1)
	s.mu.Lock()
	s.waiting = append(s.waiting, request{files, result})
	if !s.busy {
		s.busy = true
		go s.run() // ends when nobody waits any more
	}
	s.mu.Unlock()
	return <-result
}

// SyncDir makes the names in a folder durable.
func (s *Syncer) SyncDir(dir string) error {
	d, err := Open(dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return s.Sync(d)
}

func (s *Syncer) run() {
	for {
		s.mu.Lock()
		group := s.waiting
		s.waiting = nil
		s.busy = len(group) > 0
		s.mu.Unlock()
		if len(group) == 0 {
			return
		}
		serve(group)
		if len(group) >= together {
			time.Sleep(gather)
		}
	}
}

// serve makes a group of requests durable, and tells each caller about its own files.
func serve(group []request) {
	whole := len(group) >= together && syncWhole(group)
	for _, r := range group {
		var err error
		if !whole {
			err = syncEach(r.files)
		}
		r.result <- err
	}
}

func syncEach(files []*os.File) error {
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("fsync of %s: %w", f.Name(), err)
		}
	}
	return nil
}
