package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"autocertd/internal/durable"
)

const (
	publicMode fs.FileMode = 0o644
	folderMode fs.FileMode = 0o755

	// ours begins the name of everything that we keep beside the files. Programs that read whole directories, HAProxy among
	// them, skip names with a leading dot.
	ours = ".autocertd-"
)

// file is a file as it has to be.
type file struct {
	name string
	data []byte
	mode fs.FileMode
}

// disk makes every change of this package to a file system.
type disk struct {
	// before, if set, is called ahead of each change and can refuse it. Tests count, fail and die here.
	before func(op, path string) error

	dirs   sync.Mutex // held while directories are created: certificates share parents
	syncer durable.Syncer
}

// do makes one change; op and path name it.
func (d *disk) do(op, path string, change func() error) error {
	if d.before != nil {
		if err := d.before(op, path); err != nil {
			return fmt.Errorf("%s %s: %w", op, path, err)
		}
	}
	return change()
}

// makeDir creates a directory and its parents, and leaves those that exist alone.
func (d *disk) makeDir(dir string) error {
	d.dirs.Lock()
	defer d.dirs.Unlock()
	return d.makeDirs(dir)
}

func (d *disk) makeDirs(dir string) error {
	fi, err := os.Stat(dir)
	if err == nil {
		if !fi.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := d.makeDirs(parent); err != nil {
		return err
	}
	// It gets its name last: dying before its mode is set would leave a directory that services can't enter.
	// Another process may have been faster; that is as well.
	if err := d.swap(dir, d.mkdir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.sync(parent)
}

// mkdir creates one directory, with mode 0755 whatever the umask is.
func (d *disk) mkdir(dir string) error {
	return d.do("mkdir", dir, func() error {
		if err := os.Mkdir(dir, folderMode); err != nil {
			return err
		}
		return os.Chmod(dir, folderMode)
	})
}

// create writes new files into a folder, and waits once for the disk to have them and the names in the folders: file systems
// with a journal commit them together then, and not one by one.
func (d *disk) create(dir string, o owner, files []file, folders ...string) (err error) {
	written := make([]*os.File, 0, len(files)+len(folders))
	defer func() {
		for _, w := range written {
			if cerr := w.Close(); err == nil {
				err = cerr
			}
		}
	}()
	for _, f := range files {
		w, err := d.createOne(filepath.Join(dir, f.name), f, o)
		if w != nil {
			written = append(written, w)
		}
		if err != nil {
			return err
		}
	}
	for _, folder := range folders {
		f, err := durable.Open(folder, os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		written = append(written, f)
	}
	return d.syncFiles(written...)
}

// createOne writes a new file. It is 0600 until it has its owner, so that nobody else reads a key meanwhile. The caller
// closes the file that is returned, on failure too.
func (d *disk) createOne(path string, f file, o owner) (w *os.File, err error) {
	err = d.do("create", path, func() error {
		if w, err = durable.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
		if o.uid != keep || o.gid != keep {
			if err := w.Chown(o.uid, o.gid); err != nil {
				return err
			}
		}
		return w.Chmod(f.mode)
	})
	return w, err
}

// touch creates an empty file, or leaves the one that is there.
func (d *disk) touch(path string) error {
	return d.do("touch", path, func() error {
		w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		return w.Close()
	})
}

// replace writes a file beside path and renames it over whatever stands there. The folder isn't synced yet.
func (d *disk) replace(path string, f file, o owner) error {
	return d.swap(path, func(tmp string) error {
		f.name = filepath.Base(tmp)
		return d.create(filepath.Dir(tmp), o, []file{f})
	})
}

// link makes path a symbolic link, replacing whatever file or link stands there. The folder isn't synced yet.
func (d *disk) link(target, path string) error {
	return d.swap(path, func(tmp string) error { return d.symlink(target, tmp) })
}

// symlink makes a symbolic link where nothing stands.
func (d *disk) symlink(target, path string) error {
	return d.do("symlink", path, func() error { return os.Symlink(target, path) })
}

// swap lets build make the new path beside the old one, and puts it in place by one rename. The temporary name is always the
// same, so that what a crash left there is removed by the next try.
func (d *disk) swap(path string, build func(tmp string) error) error {
	tmp := filepath.Join(filepath.Dir(path), ours+filepath.Base(path)+".tmp")
	if exists(tmp) {
		if err := d.removeAll(tmp); err != nil {
			return err
		}
	}
	err := build(tmp)
	if err == nil {
		err = d.do("rename", path, func() error { return os.Rename(tmp, path) })
	}
	if err != nil {
		// A second failure here leaves what is temporary to the next try.
		_ = os.RemoveAll(tmp)
	}
	return err
}

// remove removes a file; an absent one is fine.
func (d *disk) remove(path string) error {
	if !exists(path) {
		return nil
	}
	return d.do("remove", path, func() error { return os.Remove(path) })
}

// exists reports whether there is something at path. In doubt there is: a marker too many costs one reload.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// removeAll removes a folder of ours with all that is in it.
func (d *disk) removeAll(path string) error {
	return d.do("remove", path, func() error { return os.RemoveAll(path) })
}

// sync makes the names in a folder durable.
func (d *disk) sync(folder string) error { return d.create("", owner{}, nil, folder) }

// syncFiles waits for the disk, once for all of the files.
func (d *disk) syncFiles(files ...*os.File) error {
	for _, f := range files {
		if err := d.do("fsync", f.Name(), func() error { return nil }); err != nil {
			return err
		}
	}
	return d.syncer.Sync(files...)
}

// same reports whether the file at path is a regular one with the wanted content, mode and owner. It looks before it opens:
// a file that we may not even read is put right when its mode or owner is what differs.
func same(path string, want file, o owner) (bool, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if fi.Mode() != want.mode || fi.Size() != int64(len(want.data)) || !o.owns(fi) {
		return false, nil
	}
	got, err := durable.Read(path, len(want.data))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, fs.ErrPermission) && o.uid == keep && want.mode&0o400 != 0:
		return false, nil // somebody took it from us; the next one is ours again
	}
	return bytes.Equal(got, want.data), err
}

// linkTarget returns where a symbolic link points, and "" when there is none at path.
func linkTarget(path string) (string, error) {
	target, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EINVAL) {
		return "", nil
	}
	return target, err
}
