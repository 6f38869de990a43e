package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrIrregular says that a pipe, a device, a socket or a folder stands where a file should be.
var ErrIrregular = errors.New("isn't a regular file")

// A TooLargeError says that a file has more bytes than may be read of it.
type TooLargeError struct{ Limit int }

func (e *TooLargeError) Error() string { return fmt.Sprintf("is larger than %d bytes", e.Limit) }

// OpenRegular opens a regular file for reading. Whoever may write to a folder can put a pipe or a device in a file's place:
// that hangs nothing, and is an [fs.PathError] with [ErrIrregular].
func OpenRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, irregular(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrIrregular}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// Read returns the content of a regular file of at most limit bytes. It waits for nobody, and reads no more than that.
// The error is an [fs.PathError], with [ErrIrregular] or a [TooLargeError] where it isn't the system's.
//
// It is made for the dozen small files that a certificate has, so it makes do with few system calls.
func Read(path string, limit int) ([]byte, error) {
	return ReadAt(unix.AT_FDCWD, path, path, limit)
}

// ReadAt is [Read] for a name in the open folder dir, and follows no link there. shown is the name in errors.
func ReadAt(dir int, name, shown string, limit int) ([]byte, error) {
	flag := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	if dir != unix.AT_FDCWD {
		flag |= unix.O_NOFOLLOW
	}
	fd, err := Retry(func() (int, error) { return unix.Openat(dir, name, flag, 0) })
	if err != nil {
		return nil, irregular(&fs.PathError{Op: "open", Path: shown, Err: err})
	}
	defer unix.Close(fd)
	data, err := readFD(fd, limit)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: shown, Err: err}
	}
	return data, nil
}

func readFD(fd, limit int) ([]byte, error) {
	var st unix.Stat_t
	switch err := unix.Fstat(fd, &st); {
	case err != nil:
		return nil, err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, ErrIrregular
	case st.Size > int64(limit):
		return nil, &TooLargeError{limit}
	}
	data := make([]byte, 0, st.Size+1) // a byte more, so that the end is seen
	for {
		if len(data) == cap(data) { // it grew since, or it is a file of the kernel, which has no size
			data = append(data, 0)[:len(data)]
		}
		n, err := Retry(func() (int, error) { return unix.Read(fd, data[len(data):cap(data)]) })
		if err != nil {
			return nil, err
		}
		full := n == cap(data)-len(data)
		data = data[:len(data)+n]
		switch {
		case len(data) > limit:
			return nil, &TooLargeError{limit}
		case n == 0, !full && st.Size > 0: // a regular file gives less than was asked for at its end only
			return data, nil
		}
	}
}

// irregular says of what can't be opened for its kind what it is: a socket, or a link that isn't followed.
func irregular(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok && (errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ELOOP)) {
		return &fs.PathError{Op: path.Op, Path: path.Path, Err: ErrIrregular}
	}
	return err
}

// Retry calls again what a signal interrupted.
func Retry[T any](call func() (T, error)) (T, error) {
	for {
		if v, err := call(); !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}
