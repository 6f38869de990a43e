//go:build !linux

package deploy

import "golang.org/x/sys/unix"

// onlyPath opens a folder to go through it.
const onlyPath = unix.O_RDONLY

// openPlain is what Linux can do: elsewhere each name of the path is looked at.
func openPlain(string) (int, error) { return -1, unix.ENOSYS }

// fixedBy knows of nothing but rights that may be in the way.
func fixedBy(string) string { return "" }
