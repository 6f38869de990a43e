//go:build linux

package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// diskEnv names the folder below which states are written, instead of a file system of their own.
const diskEnv = "AUTOCERTD_BENCH_DISK"

// diskDir makes a folder for state directories, away from /tmp: that is in memory on many machines, where an fsync costs
// nothing. Root gets a new ext4 with a journal, as servers have it; see the package's comment for what an old one does to
// the figures.
func diskDir(b *testing.B) string {
	b.Helper()
	const parent = "/var/tmp"
	if dir := os.Getenv(diskEnv); dir != "" {
		return tempDir(b, dir)
	}
	dir := tempDir(b, parent)
	if os.Geteuid() != 0 {
		b.Logf("only root can mount a new file system: the states are in %s", parent)
		return dir
	}
	image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	if err := mountNew(b, image, mounted); err != nil {
		b.Logf("no new file system, the states are in %s: %v", parent, err)
		return dir
	}
	b.Cleanup(func() { check(b, command("umount", mounted)) }) // before the folder is removed
	return mounted
}

// mountNew makes a file system in an image file and mounts it. Everything is initialised before that, so that the kernel
// doesn't do it while something is measured.
func mountNew(b *testing.B, image, dir string) error {
	b.Helper()
	const size = 2 << 30 // bytes, of which hardly any are written; it gives room for 130,000 files
	check(b, os.WriteFile(image, nil, 0o600))
	check(b, os.Truncate(image, size))
	check(b, os.Mkdir(dir, 0o755))
	if err := command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return err
	}
	return command("mount", "-o", "loop", image, dir)
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// memoryDir makes a folder for state directories where an fsync costs nothing.
func memoryDir(b *testing.B) string {
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		b.Skip("no file system in memory: ", err)
	}
	return tempDir(b, memory)
}

func tempDir(b *testing.B, parent string) string {
	b.Helper()
	dir, err := os.MkdirTemp(parent, "autocertd-bench-")
	check(b, err)
	b.Cleanup(func() { check(b, os.RemoveAll(dir)) })
	return dir
}
