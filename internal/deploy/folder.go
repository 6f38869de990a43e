package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"autocertd/internal/durable"
	"autocertd/internal/printable"
)

// folder is an open directory. All that is done in it goes by its descriptor and a name without a slash, and follows no link:
// who may write to the directory, or above it, can lead nothing to another place, however fast names are changed.
type folder struct {
	fd   int
	path string // for messages
}

func (f *folder) close() { _ = unix.Close(f.fd) }

func (f *folder) join(name string) string { return filepath.Join(f.path, name) }

// fail is an error as the package os has it.
func (f *folder) fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: f.join(name), Err: err}
}

// openAt opens a name in the folder with the flags.
func (f *folder) openAt(name string, flags int, perm uint32) (int, error) {
	fd, err := durable.Retry(func() (int, error) { return unix.Openat(f.fd, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, perm) })
	if err != nil {
		return -1, f.fail("open", name, err)
	}
	return fd, nil
}

// folder opens a directory in the folder.
func (f *folder) folder(name string) (*folder, error) {
	fd, err := f.openAt(name, onlyPath|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &folder{fd, f.join(name)}, nil
}

// file opens the folder itself as a file, for a sync or to list it.
func (f *folder) file() (*os.File, error) {
	fd, err := f.openAt(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.path), nil
}

// stat looks at the folder itself.
func (f *folder) stat() (st unix.Stat_t, err error) {
	if err = unix.Fstat(f.fd, &st); err != nil {
		err = &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	return st, err
}

// lstat looks at what has a name in the folder.
func (f *folder) lstat(name string) (st unix.Stat_t, err error) {
	if err = unix.Fstatat(f.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		err = f.fail("lstat", name, err)
	}
	return st, err
}

// exists reports whether there is something of the name. In doubt there is: a marker too many costs one reload.
func (f *folder) exists(name string) bool {
	_, err := f.lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// target returns where a symbolic link points, and "" when there is none of the name.
func (f *folder) target(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := durable.Retry(func() (int, error) { return unix.Readlinkat(f.fd, name, buf) })
	switch {
	case err == nil:
		return string(buf[:n]), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL):
		return "", nil
	}
	return "", f.fail("readlink", name, err)
}

// same reports whether the name is a regular file with the wanted content, mode and owner. A file that can't be opened, and
// differs in what can be seen all the same, is put right.
func (f *folder) same(want file, o owner) (bool, error) {
	fd, err := f.openAt(want.name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		st, lerr := f.lstat(want.name)
		switch {
		case errors.Is(err, fs.ErrNotExist), lerr == nil && !want.fits(&st, o):
			return false, nil
		case errors.Is(err, fs.ErrPermission) && o.uid == keep && want.mode&0o400 != 0:
			return false, nil // somebody took it from us; the next one is ours again
		}
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, f.fail("stat", want.name, err)
	}
	if !want.fits(&st, o) {
		return false, nil
	}
	got := make([]byte, len(want.data)+1)
	for n := 0; ; {
		m, err := durable.Retry(func() (int, error) { return unix.Read(fd, got[n:]) })
		if err != nil {
			return false, f.fail("read", want.name, err)
		}
		if n += m; m == 0 || n >= len(want.data) {
			return bytes.Equal(got[:n], want.data), nil
		}
	}
}

// fits reports whether a file is a regular one with the wanted mode, size and owner.
func (f file) fits(st *unix.Stat_t, o owner) bool {
	return uint32(st.Mode) == unix.S_IFREG|uint32(f.mode) && st.Size == int64(len(f.data)) && o.owns(st)
}

// Bounds for what may lie in a folder whose owner isn't trusted.
const (
	maxEntries   = 100_000 // that are looked through for old versions
	maxLeftovers = 100     // in one thing of ours that is removed
	maxDepth     = 3
)

// list calls each with the entries of the folder, up to maxEntries of them.
func (f *folder) list(each func(fs.DirEntry)) error {
	dir, err := f.file()
	if err != nil {
		return err
	}
	defer dir.Close()
	for n := 0; n < maxEntries; {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			each(e)
		}
		if n += len(entries); errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errForeign = errors.New("it holds more than autocertd puts there; move it away")

// removeAll removes what has the name, with all that is in it, as far as it can be something of ours.
func (f *folder) removeAll(name string) error {
	left := maxLeftovers
	return f.removeTree(name, &left, maxDepth)
}

func (f *folder) removeTree(name string, left *int, depth int) error {
	if *left--; *left < 0 || depth < 0 {
		return f.fail("remove", name, errForeign)
	}
	err := unix.Unlinkat(f.fd, name, 0)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return f.fail("remove", name, err)
	}
	// An empty one needs no reading; it may be one that we can't read.
	if unix.Unlinkat(f.fd, name, unix.AT_REMOVEDIR) == nil {
		return nil
	}
	sub, ferr := f.folder(name)
	if ferr != nil {
		return f.fail("remove", name, err)
	}
	defer sub.close()
	var names []string
	if err := sub.list(func(e fs.DirEntry) {
		if len(names) <= *left {
			names = append(names, e.Name())
		}
	}); err != nil {
		return err
	}
	for _, n := range names {
		if err := sub.removeTree(n, left, depth-1); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(f.fd, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.fail("remove", name, err)
	}
	return nil
}

// errForeignLink says that the way to a folder goes by a link which somebody may change who is neither root nor we.
var errForeignLink = errors.New("is a symbolic link in a folder that others may write, so it isn't followed")

// openFolder opens the directory at an absolute path. Links on the way are followed where only root and we can have made
// them: an administrator's. Whoever else may write to a folder on the way would lead us anywhere by one.
//
// absent is called for what is missing, with the folder that it is missing in; nil: that is an error.
func openFolder(path string, absent func(in *folder, name string) (*folder, error)) (*folder, error) {
	if fd, err := openPlain(path); err == nil { // nearly always: there is no link on the way
		return &folder{fd, path}, nil
	} else if errors.Is(err, fs.ErrNotExist) && absent == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return walk(path, absent)
}

// walker goes down a path, one name after another.
type walker struct {
	way    []*folder // from / to where it is
	closed []bool    // of each, whether only root and we can change what its names stand for
	todo   []string  // the names ahead
	links  int       // followed so far
}

func walk(path string, absent func(in *folder, name string) (*folder, error)) (*folder, error) {
	fd, err := durable.Retry(func() (int, error) { return unix.Open("/", onlyPath|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	w := &walker{way: []*folder{{fd, "/"}}, closed: []bool{true}, todo: strings.Split(path, "/")}
	defer func() {
		for _, f := range w.way {
			f.close()
		}
	}()
	for len(w.todo) > 0 {
		if err := w.step(absent); err != nil {
			return nil, err
		}
	}
	last := len(w.way) - 1
	here := w.way[last]
	w.way = w.way[:last]
	here.path = path
	return here, nil
}

// step takes the next name.
func (w *walker) step(absent func(in *folder, name string) (*folder, error)) error {
	name := w.todo[0]
	w.todo = w.todo[1:]
	last := len(w.way) - 1
	switch name {
	case "", ".":
		return nil
	case "..": // only links have it
		if last > 0 {
			w.way[last].close()
			w.way, w.closed = w.way[:last], w.closed[:last]
		}
		return nil
	}
	here := w.way[last]
	st, err := here.lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && absent != nil:
		next, err := absent(here, name)
		if err != nil {
			return err
		}
		return w.enter(next)
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return w.follow(name, &st)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return here.fail("open", name, unix.ENOTDIR)
	}
	next, err := here.folder(name)
	if err != nil {
		return err
	}
	return w.enter(next)
}

// enter goes into a folder.
func (w *walker) enter(next *folder) error {
	st, err := next.stat()
	w.way = append(w.way, next)
	w.closed = append(w.closed, w.closed[len(w.closed)-1] && onlyOurs(&st))
	return err
}

// follow goes on where a link leads, if it may be followed.
func (w *walker) follow(name string, link *unix.Stat_t) error {
	last := len(w.way) - 1
	here := w.way[last]
	dir, err := here.stat()
	if err != nil {
		return err
	}
	if sticky := dir.Mode&unix.S_ISVTX != 0; !w.closed[last] || sticky && !isOurs(link.Uid) {
		return here.fail("open", name, errForeignLink)
	}
	const most = 40 // as the kernel has it
	if w.links++; w.links > most {
		return here.fail("open", name, unix.ELOOP)
	}
	target, err := here.target(name)
	if err != nil {
		return err
	}
	if strings.HasPrefix(target, "/") {
		for _, f := range w.way[1:] {
			f.close()
		}
		w.way, w.closed = w.way[:1], w.closed[:1]
	}
	w.todo = append(strings.Split(target, "/"), w.todo...)
	return nil
}

// onlyOurs reports whether only root and we can change what the names in a folder stand for. In one with the sticky bit
// everybody changes what is theirs.
func onlyOurs(st *unix.Stat_t) bool {
	others := st.Mode & 0o022
	if st.Gid == 0 { // root's own group
		others &= 0o002
	}
	return isOurs(st.Uid) && (others == 0 || st.Mode&unix.S_ISVTX != 0)
}

func isOurs(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// nearest opens the directory, or the nearest above it that exists.
func nearest(dir string) (*folder, error) {
	for {
		f, err := openFolder(dir, nil)
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return f, err
		}
		dir = filepath.Dir(dir)
	}
}

// folderMode is the mode of the folders that we make.
const folderMode = 0o755

// mkdir makes a directory in the folder, with [durable.FreshMode].
func (f *folder) mkdir(name string) error {
	if err := unix.Mkdirat(f.fd, name, durable.FreshMode); err != nil {
		return f.fail("mkdir", name, err)
	}
	return nil
}

// fresh opens a directory that mkdir made a moment ago, and gives it folderMode whatever the umask is.
func (f *folder) fresh(name string) (*folder, error) {
	fd, err := f.openAt(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	err = durable.Fresh(fd)
	if err == nil {
		err = unix.Fchmod(fd, folderMode)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, f.fail("chmod", name, err)
	}
	return &folder{fd, f.join(name)}, nil
}

// rename gives what has the name old in the folder another name there, over whatever stands there.
func (f *folder) rename(old, name string) error {
	if err := unix.Renameat(f.fd, old, f.fd, name); err != nil {
		return &os.LinkError{Op: "rename", Old: f.join(old), New: f.join(name), Err: err}
	}
	return nil
}

// symlink makes a symbolic link where nothing stands.
func (f *folder) symlink(target, name string) error {
	if err := unix.Symlinkat(target, f.fd, name); err != nil {
		return &os.LinkError{Op: "symlink", Old: target, New: f.join(name), Err: err}
	}
	return nil
}

// mark creates a marker that names a change, or leaves whatever is there. A power loss may leave it empty.
func (f *folder) mark(name, change string) error {
	fd, err := f.openAt(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	w := os.NewFile(uintptr(fd), f.join(name))
	_, err = w.WriteString(change)
	return errors.Join(err, w.Close())
}

// marked returns the change that a marker names, "" where there is none, and unknownChange for whatever else is there.
func (f *folder) marked(name string) string {
	if !f.exists(name) {
		return ""
	}
	change, err := durable.ReadAt(f.fd, name, f.join(name), 64)
	if err != nil || len(change) == 0 {
		return unknownChange
	}
	return printable.Line(string(change))
}

// unknownChange stands for a change of which no state knows.
const unknownChange = "?"

// create makes a new file, which the caller closes. It is 0600 until it has its owner, so that nobody else reads a key
// meanwhile.
func (f *folder) create(want file, o owner) (w *os.File, err error) {
	fd, err := f.openAt(want.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	w = os.NewFile(uintptr(fd), f.join(want.name))
	if _, err := w.Write(want.data); err != nil {
		return w, err
	}
	if o.uid != keep || o.gid != keep {
		if err := w.Chown(o.uid, o.gid); err != nil {
			return w, err
		}
	}
	if err := w.Chmod(want.mode); err != nil {
		return w, err
	}
	return w, nil
}

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
