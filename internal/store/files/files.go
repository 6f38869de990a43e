// Package files keeps objects and locks in a local directory: an object is a file, a lock an flock(2). What objects mean,
// and who may work on them at a time, is its callers' business.
package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"autocertd/internal/durable"
	"autocertd/internal/store"
)

// maxObject bounds an object, in bytes; ours are a few KiB.
const maxObject = 16 << 20

// StaleAge is the age from which on a temporary file is of a write that died: no write takes that long.
const StaleAge = 10 * time.Minute

// Store is a directory: an object is a file (0600) below the root, a lease an flock(2).
type Store struct {
	root      string
	command   string // names this process to those who find its leases
	views     bool   // makes nothing
	syncer    durable.Syncer
	polls     bool // watches without inotify
	lookAgain time.Duration
}

// Open opens the state directory, which is made when it is missing. The command is what others see of the holder of a
// lease.
func Open(root, command string) (*Store, error) {
	f := &Store{root: root, command: command, lookAgain: lookAgain}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(root, lockFolder), 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", f.refused(filepath.Join(root, lockFolder), err))
	}
	return f, nil
}

// View is Open for those who only look: nothing is made, and what isn't there is absent.
func View(root string) *Store { return &Store{root: root, views: true, lookAgain: lookAgain} }

// RemoveStale removes the temporaries of writes that died long ago.
func (f *Store) RemoveStale() error { return durable.RemoveStale(f.root, StaleAge) }

// Load implements store.Reader.
func (f *Store) Load(_ context.Context, key string) ([]byte, error) {
	path, err := f.path(key)
	if err != nil {
		return nil, err
	}
	data, err := durable.Read(path, maxObject)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", key, f.refused(path, err))
	}
	return data, nil
}

// Save implements store.Writer.
func (f *Store) Save(_ context.Context, key string, data []byte) error {
	return f.write(key, data, durable.File{Sync: &f.syncer})
}

// SaveLazily implements store.Writer.
func (f *Store) SaveLazily(_ context.Context, key string, data []byte) error {
	return f.write(key, data, durable.File{Lazy: true})
}

func (f *Store) write(key string, data []byte, how durable.File) error {
	path, err := f.path(key)
	if err != nil {
		return err
	}
	err = how.Write(path, data)
	if errors.Is(err, fs.ErrNotExist) { // the first object in its folder
		if err = f.makeFolder(filepath.Dir(path)); err == nil {
			err = how.Write(path, data)
		}
	}
	if err != nil {
		return fmt.Errorf("saving %s: %w", key, f.refused(path, err))
	}
	return nil
}

// Overwrite implements store.Overwriter.
func (f *Store) Overwrite(key string, data []byte) error {
	path, err := f.path(key)
	if err != nil {
		return err
	}
	w, err := durable.Open(path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("saving %s: %w", key, err)
	}
	info, err := w.Stat()
	if err == nil && info.Size() > int64(len(data)) { // cut off afterwards, readers would see the end of the old one
		data = append(slices.Clone(data), bytes.Repeat([]byte(" "), int(info.Size())-len(data))...)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("saving %s: %w", key, err)
	}
	return nil
}

// makeFolder makes a folder durably: an object's fsync says nothing of the folders above its own.
func (f *Store) makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for dir != f.root {
		dir = filepath.Dir(dir)
		if err := f.syncer.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements store.Writer.
func (f *Store) Delete(_ context.Context, key string) error {
	path, err := f.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting %s: %w", key, f.refused(path, err))
	}
	return nil
}

// List implements store.Reader.
func (f *Store) List(ctx context.Context, prefix string) ([]string, error) {
	folder, err := f.path(prefix)
	if err != nil {
		return nil, err
	}
	var keys []string
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case path == folder && !entry.IsDir(), entry.Type().IsRegular() && !strings.HasPrefix(entry.Name(), "."):
			keys = append(keys, filepath.ToSlash(strings.TrimPrefix(path, f.root+string(filepath.Separator))))
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", prefix, f.refused(folder, err))
	}
	slices.Sort(keys)
	return keys, nil
}

// Scan implements store.Reader.
func (f *Store) Scan(ctx context.Context, prefixes ...string) iter.Seq2[store.Object, error] {
	return store.ScanByLoad(ctx, &single{f, map[string][]byte{}}, prefixes...)
}

// single is a Store during a scan. Most prefixes are keys, whose objects it loads at once, without a look at folders.
type single struct {
	store  *Store
	loaded map[string][]byte
}

func (s *single) List(ctx context.Context, prefix string) ([]string, error) {
	data, err := s.store.Load(ctx, prefix)
	if err != nil {
		return s.store.List(ctx, prefix)
	}
	s.loaded[prefix] = data
	return []string{prefix}, nil
}

func (s *single) Load(ctx context.Context, key string) ([]byte, error) {
	if data, ok := s.loaded[key]; ok {
		return data, nil
	}
	return s.store.Load(ctx, key)
}

// refused adds the cure to a permission that the owner of the root lacks: something below it is another user's, since
// somebody ran a command or restored a copy as another user.
func (f *Store) refused(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	var root, st unix.Stat_t
	if unix.Stat(f.root, &root) != nil || int(root.Uid) != os.Geteuid() {
		return err
	}
	for ; len(path) > len(f.root); path = filepath.Dir(path) {
		if unix.Lstat(path, &st) == nil && st.Uid != root.Uid {
			return fmt.Errorf("%w: %s belongs to %s; give it back: chown -R %s: %s", err, path, userName(st.Uid), userName(root.Uid), f.root)
		}
	}
	return err
}

// userName is the name of a user, or the number of one who has no name.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func (f *Store) path(key string) (string, error) {
	if err := store.CheckKey(key); err != nil {
		return "", err
	}
	return filepath.Join(f.root, filepath.FromSlash(key)), nil
}
