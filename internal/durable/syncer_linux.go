package durable

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// syncWhole syncs the file systems that the files are on, each once. When it reports false, nothing is known of any file:
// an fsync of each then tells which of them failed, and why.
func syncWhole(group []request) bool {
	if !syncfsTells() {
		return false
	}
	one := map[uint64]*os.File{} // a file of each file system
	for _, r := range group {
		for _, f := range r.files {
			var st unix.Stat_t
			if unix.Fstat(int(f.Fd()), &st) != nil {
				return false
			}
			one[uint64(st.Dev)] = f
		}
	}
	for _, f := range one {
		if unix.Syncfs(int(f.Fd())) != nil {
			return false
		}
	}
	return true
}

// syncfsTells reports whether syncfs(2) returns an error when a write to the disk failed, which it does since Linux 5.8.
var syncfsTells = sync.OnceValue(func() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	return tellsFrom(unix.ByteSliceToString(name.Release[:]))
})

// tellsFrom reports whether a kernel's release, as uname(2) returns it, is 5.8 or later.
func tellsFrom(release string) bool {
	var major, minor int
	_, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return err == nil && (major > 5 || major == 5 && minor >= 8)
}
