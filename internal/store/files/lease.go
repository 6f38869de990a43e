package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"autocertd/internal/durable"
	"autocertd/internal/store"
)

const (
	lockFolder = "locks"
	lockSuffix = ".lock"
	lockRetry  = 20 * time.Millisecond // how often a waiting Acquire tries again
	lockLook   = time.Second           // how often a lease looks whether its file is still there
	maxNote    = 4 << 10               // bytes of what a lock's file says of its holder
)

// lease is an flock(2) on a file in the folder of the locks. The file stays after the release: removing it would let two
// processes hold locks on two files of one name. Where a person removes it, the lease is lost, since it keeps nobody out.
type lease struct {
	store *Store
	name  string
	lock  *flock.Flock
	file  fs.FileInfo // that is locked
	ctx   context.Context
	end   context.CancelCauseFunc
	look  *time.Timer

	mu sync.RWMutex // read-locked during a write, locked by Release
}

// Acquire implements store.Leaser.
func (f *Store) Acquire(ctx context.Context, name string) (store.Lease, error) {
	for {
		l, err := f.Try(ctx, name)
		if _, held := errors.AsType[*store.HeldError](err); !held {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(lockRetry):
		}
	}
}

// Try implements store.Leaser.
func (f *Store) Try(_ context.Context, name string) (store.Lease, error) {
	lock, err := f.lockFile(name, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	for range 10 { // more removals in a row are no accident
		ok, err := lock.TryLock()
		if errors.Is(err, fs.ErrNotExist) && f.makeLocks() == nil {
			ok, err = lock.TryLock()
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("locking %s: %w", name, f.refused(lock.Path(), err))
		case !ok:
			return nil, &store.HeldError{Lease: name, Holder: readHolder(lock.Path())}
		}
		if l := f.newLease(name, lock); l != nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("locking %s: its file is removed all the time", name)
}

// newLease makes a lease of a lock that was just taken. It returns nil, and has given the lock back, when the file was
// removed between opening and locking it.
func (f *Store) newLease(name string, lock *flock.Flock) *lease {
	l := &lease{store: f, name: name, lock: lock}
	var err error
	if l.file, err = lock.Stat(); err != nil || !l.current() {
		_ = lock.Unlock()
		return nil
	}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	l.describe()
	l.mu.Lock() // keepLooking needs look
	defer l.mu.Unlock()
	l.look = time.AfterFunc(lockLook, l.keepLooking)
	return l
}

// Holder implements store.Leaser.
func (f *Store) Holder(ctx context.Context, name string) (*store.Holder, error) {
	lock, err := f.lockFile(name, 0)
	if err != nil {
		return nil, err
	}
	free, err := lock.TryRLock()
	if errors.Is(err, fs.ErrNotExist) { // removed perhaps from under a holder, who notices and takes it again
		select {
		case <-ctx.Done():
		case <-time.After(lockLook + lockLook/4):
		}
		free, err = lock.TryRLock()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("looking who holds %s: %w", name, f.refused(lock.Path(), err))
	case !free:
		h := readHolder(lock.Path())
		return &h, nil
	}
	_ = lock.Unlock()
	return nil, nil
}

// makeLocks makes the folder of the locks again when it was removed.
func (f *Store) makeLocks() error {
	if f.views {
		return fs.ErrNotExist
	}
	return os.MkdirAll(filepath.Join(f.root, lockFolder), 0o700)
}

func (f *Store) lockFile(name string, flag int) (*flock.Flock, error) {
	path, err := f.path(lockFolder + "/" + name)
	if err != nil {
		return nil, err
	}
	// Not blocking: opening a pipe that stands there would wait without end.
	return flock.New(path+lockSuffix, flock.SetPermissions(0o600), flock.SetFlag(flag|os.O_RDONLY|unix.O_NONBLOCK)), nil
}

// describe writes the holder into the lock's file. The note stays after the release, since it is read only while the lock is
// held. It is a help for people, so its failures don't matter.
func (l *lease) describe() {
	note, _ := json.Marshal(store.Here(l.store.command))
	// Written over the note before, whose end may be left: cutting it off costs more than all the rest.
	if w, err := durable.Open(l.lock.Path(), os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		_, _ = w.Write(note)
		_ = w.Close()
	}
}

func readHolder(path string) (h store.Holder) {
	if note, err := durable.Read(path, maxNote); err == nil {
		_ = json.NewDecoder(bytes.NewReader(note)).Decode(&h) // the first value only
	}
	return h
}

// current reports whether others would lock the same file.
func (l *lease) current() bool {
	now, err := os.Lstat(l.lock.Path())
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return os.SameFile(l.file, now)
}

// check returns nil while the lease holds, and ends its context when it doesn't.
func (l *lease) check() error {
	if l.ctx.Err() == nil && !l.current() {
		l.end(fmt.Errorf("%s: the file of the lock was removed or replaced: %w", l.name, store.ErrLost))
	}
	return context.Cause(l.ctx)
}

func (l *lease) keepLooking() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.check() == nil {
		l.look.Reset(lockLook)
	}
}

// Context implements store.Lease.
func (l *lease) Context() context.Context { return l.ctx }

// Save implements store.Writer.
func (l *lease) Save(ctx context.Context, key string, data []byte) error {
	return l.write(key, func() error { return l.store.Save(ctx, key, data) })
}

// SaveLazily implements store.Writer.
func (l *lease) SaveLazily(ctx context.Context, key string, data []byte) error {
	return l.write(key, func() error { return l.store.SaveLazily(ctx, key, data) })
}

// Delete implements store.Writer.
func (l *lease) Delete(ctx context.Context, key string) error {
	return l.write(key, func() error { return l.store.Delete(ctx, key) })
}

func (l *lease) write(key string, write func() error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if err := l.check(); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return write()
}

// Release implements store.Lease.
func (l *lease) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look.Stop()
	l.end(fmt.Errorf("%s: it was released: %w", l.name, store.ErrLost))
	_ = l.lock.Unlock()
}
