package deploy

import "golang.org/x/sys/unix"

// onlyPath opens a folder to go through it, which needs no right to read it.
const onlyPath = unix.O_PATH

// openPlain opens a directory if no symbolic link is on the way to it (Linux 5.6).
func openPlain(path string) (int, error) {
	how := unix.OpenHow{Flags: onlyPath | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	return retry(func() (int, error) { return unix.Openat2(unix.AT_FDCWD, path, &how) })
}
