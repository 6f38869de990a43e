package deploy

import (
	"golang.org/x/sys/unix"

	"autocertd/internal/durable"
)

// onlyPath opens a folder to go through it, which needs no right to read it.
const onlyPath = unix.O_PATH

// openPlain opens a directory if no symbolic link is on the way to it (Linux 5.6).
func openPlain(path string) (int, error) {
	how := unix.OpenHow{Flags: onlyPath | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	return durable.Retry(func() (int, error) { return unix.Openat2(unix.AT_FDCWD, path, &how) })
}

// fixedBy returns the option of chattr that makes a file or folder changeable again, and "" where nothing but rights are in
// the way.
func fixedBy(path string) string {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MODE, &st) != nil {
		return ""
	}
	switch {
	case st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0:
		return "-i"
	case st.Attributes&unix.STATX_ATTR_APPEND != 0:
		return "-a"
	}
	return ""
}
