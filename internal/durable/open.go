package durable

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open is os.OpenFile for regular files and folders. os.OpenFile also tries to have the file watched for readiness, which
// regular files never are: six system calls more, for each of a dozen small files that a certificate has.
func Open(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return openAt(unix.AT_FDCWD, path, path, flag, perm)
}

// openAt opens a name in an open folder; shown is its name in errors.
func openAt(dir int, name, shown string, flag int, perm fs.FileMode) (*os.File, error) {
	fd, err := Retry(func() (int, error) { return unix.Openat(dir, name, flag|unix.O_CLOEXEC, uint32(perm.Perm())) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: shown, Err: err}
	}
	return os.NewFile(uintptr(fd), shown), nil
}

// FreshMode is the mode in which a folder is made, until [Fresh] has seen that it is the one that was made. No folder has it
// by chance: the sticky bit is for those that all may write.
const FreshMode = unix.S_ISVTX | 0o700

// ErrMoved says that a folder that we made a moment ago isn't where it was made.
var ErrMoved = errors.New("isn't the folder that was just made here; somebody moves things in the folder above it")

// Fresh returns [ErrMoved] when an open folder isn't one that was made with FreshMode a moment ago. Whoever may write to the
// folder above it may have put another in its place, one of ours too: that one has to keep its mode and its owner.
func Fresh(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_ISVTX == 0 || st.Mode&0o077 != 0 {
		return ErrMoved
	}
	return nil
}

// MakeFolder makes a folder with mode 0755 that belongs to a user and a group.
func MakeFolder(path string, uid, gid int) error {
	if err := unix.Mkdir(path, FreshMode); err != nil {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	f, err := Open(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := Fresh(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	return f.Chmod(0o755)
}

// createTemp makes a file in an open folder, mode 0600, under a name that RemoveStale knows; see [Open].
func createTemp(dir *os.File) (f *os.File, name string, err error) {
	const attempts = 1000 // as many names that are taken mean that something else is wrong
	for range attempts {
		name = tempPrefix + strconv.FormatUint(rand.Uint64(), 36)
		f, err = openAt(int(dir.Fd()), name, filepath.Join(dir.Name(), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return f, name, err
}
