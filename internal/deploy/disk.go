package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"autocertd/internal/durable"
)

const (
	publicMode fs.FileMode = 0o644 // of files without a key
	secretMode fs.FileMode = 0o600 // of files with one, unless the output says another

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
	// before, if set, is called ahead of each change and can refuse it. Tests count, fail, race and die here.
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

// makeDir opens a directory, which it makes with its parents where they are missing. Those that exist stay as they are.
func (d *disk) makeDir(dir string) (*folder, error) {
	if f, err := openFolder(dir, nil); err == nil {
		return f, nil
	}
	d.dirs.Lock()
	defer d.dirs.Unlock()
	return openFolder(dir, func(in *folder, name string) (made *folder, err error) {
		// It gets its name last: dying before its mode is set would leave a directory that services can't enter.
		err = d.swap(in, name, func(tmp string) error {
			made, err = d.mkdir(in, tmp)
			return err
		})
		switch {
		case errors.Is(err, fs.ErrExist): // another process was faster; that is as well
			if made != nil {
				made.close()
			}
			if made, err = in.folder(name); err != nil {
				return nil, err
			}
		case err != nil:
			if made != nil {
				made.close()
			}
			return nil, err
		}
		made.path = in.join(name)
		if err := d.sync(in); err != nil {
			made.close()
			return nil, err
		}
		return made, nil
	})
}

// mkdir makes and opens one directory, with mode 0755 whatever the umask is.
func (d *disk) mkdir(in *folder, name string) (made *folder, err error) {
	if err := d.do("mkdir", in.join(name), func() error { return in.mkdir(name) }); err != nil {
		return nil, err
	}
	// Dying here leaves a folder that only we can enter, under a name that the next try or the next pruning removes.
	err = d.do("chmod", in.join(name), func() error {
		made, err = in.fresh(name)
		return err
	})
	return made, err
}

// create writes new files into a folder, and waits once for the disk to have them and the names in the folders: file systems
// with a journal commit them together then, and not one by one.
func (d *disk) create(in *folder, o owner, files []file, folders ...*folder) (err error) {
	written := make([]*os.File, 0, len(files)+len(folders))
	defer func() {
		for _, w := range written {
			if cerr := w.Close(); err == nil {
				err = cerr
			}
		}
	}()
	for _, f := range files {
		err := d.do("create", in.join(f.name), func() error {
			w, err := in.create(f, o)
			if w != nil {
				written = append(written, w)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, f := range folders {
		w, err := f.file()
		if err != nil {
			return err
		}
		written = append(written, w)
	}
	return d.syncFiles(written...)
}

// mark creates a marker, or leaves whatever is there.
func (d *disk) mark(in *folder, name, change string) error {
	return d.do("touch", in.join(name), func() error { return in.mark(name, change) })
}

// replace writes a file beside its place and renames it over whatever stands there. The folder isn't synced yet.
func (d *disk) replace(in *folder, f file, o owner) error {
	return d.swap(in, f.name, func(tmp string) error {
		f.name = tmp
		return d.create(in, o, []file{f})
	})
}

// link makes the name a symbolic link, replacing whatever file or link stands there. The folder isn't synced yet.
func (d *disk) link(in *folder, target, name string) error {
	return d.swap(in, name, func(tmp string) error { return d.symlink(in, target, tmp) })
}

// symlink makes a symbolic link where nothing stands.
func (d *disk) symlink(in *folder, target, name string) error {
	return d.do("symlink", in.join(name), func() error { return in.symlink(target, name) })
}

// swap lets build make something new beside the name, and puts it in place by one rename. The temporary name is always the
// same, so that what a crash left there is removed by the next try.
func (d *disk) swap(in *folder, name string, build func(tmp string) error) error {
	tmp := ours + name + ".tmp"
	if in.exists(tmp) {
		if err := d.removeAll(in, tmp); err != nil {
			return err
		}
	}
	err := build(tmp)
	if err == nil {
		err = d.do("rename", in.join(name), func() error { return in.rename(tmp, name) })
	}
	if err != nil {
		// A second failure here leaves what is temporary to the next try.
		_ = in.removeAll(tmp)
	}
	return err
}

// remove removes a file of ours, or what stands in its place; an absent one is fine.
func (d *disk) remove(in *folder, name string) error {
	if !in.exists(name) {
		return nil
	}
	return d.removeAll(in, name)
}

// removeAll removes a folder of ours with all that is in it.
func (d *disk) removeAll(in *folder, name string) error {
	return d.do("remove", in.join(name), func() error { return in.removeAll(name) })
}

// sync makes the names in a folder durable.
func (d *disk) sync(in *folder) error { return d.create(in, owner{}, nil, in) }

// syncFiles waits for the disk, once for all of the files.
func (d *disk) syncFiles(files ...*os.File) error {
	for _, f := range files {
		if err := d.do("fsync", f.Name(), func() error { return nil }); err != nil {
			return err
		}
	}
	return d.syncer.Sync(files...)
}

// parent opens the directory that holds dir, which it makes where it is missing.
func (d *disk) parent(dir string) (in *folder, name string, err error) {
	in, err = d.makeDir(filepath.Dir(dir))
	return in, filepath.Base(dir), err
}
