package durable

import (
	"errors"
	"io"
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
	for {
		fd, err := unix.Open(path, flag|unix.O_CLOEXEC, uint32(perm.Perm()))
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case !errors.Is(err, unix.EINTR):
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// Read is os.ReadFile for small regular files; see [Open].
func Read(path string) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// createTemp is os.CreateTemp, mode 0600, for names that RemoveStale knows; see [Open].
func createTemp(dir string) (f *os.File, err error) {
	const attempts = 1000 // as many names that are taken mean that something else is wrong
	for range attempts {
		name := tempPrefix + strconv.FormatUint(rand.Uint64(), 36)
		f, err = Open(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return f, err
}
