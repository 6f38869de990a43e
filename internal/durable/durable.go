// Package durable replaces files so that a reader, and a machine that loses power, finds the old content or the new,
// never a part. It knows nothing of what the files mean; who may see them is the caller's choice.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of the files that a write in progress leaves when it dies. RemoveStale knows them by it.
const tempPrefix = ".tmp-"

// File says how a file is to be replaced.
type File struct {
	Mode fs.FileMode          // permission bits; 0 means 0600
	Own  func(*os.File) error // sets owner and group before the name appears; nil leaves them
	Lazy bool                 // waits for no disk: after a power loss the old content, the new, or none may be there
	Sync *Syncer              // waits for the disk together with others; nil: alone
}

// Write replaces the file at path by data. When it returns nil and Lazy isn't set, the new content survives a power loss.
//
// Dying before the rename leaves the old file and a temporary beside it; dying after it leaves the new file.
func (f File) Write(path string, data []byte) (err error) {
	if f.Sync == nil {
		f.Sync = new(Syncer)
	}
	// The folder is opened once: whoever may write above it can't lead the rename to another place than the file.
	dir, err := Open(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	tmp, name, err := createTemp(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(unix.Unlinkat(int(dir.Fd()), name, 0)))
		}
	}()
	if err := f.fill(tmp, data); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := unix.Renameat(int(dir.Fd()), name, int(dir.Fd()), filepath.Base(path)); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp.Name(), New: path, Err: err}
	}
	if f.Lazy {
		return nil
	}
	return f.Sync.Sync(dir)
}

// fill writes the content and everything that must be right before the file gets its name.
func (f File) fill(tmp *os.File, data []byte) error {
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if f.Own != nil {
		if err := f.Own(tmp); err != nil {
			return err
		}
	}
	if mode := f.Mode.Perm(); mode != 0 && mode != 0o600 {
		if err := tmp.Chmod(mode); err != nil { // after the owner: a wider mode never meets the wrong group
			return err
		}
	}
	if f.Lazy {
		return nil
	}
	return f.Sync.Sync(tmp)
}

// RemoveStale removes temporaries below root that are older than age: what writes that died have left.
func RemoveStale(root string, age time.Duration) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone between listing and looking
			return nil
		case err != nil:
			return err
		case entry.IsDir() || !strings.HasPrefix(entry.Name(), tempPrefix):
			return nil
		}
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < age {
			return ignoreNotExist(err)
		}
		return ignoreNotExist(os.Remove(path))
	})
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
