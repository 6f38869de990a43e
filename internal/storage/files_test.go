package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"autocertd/internal/durable"
	"autocertd/internal/storage"
	"autocertd/internal/storage/storagetest"
)

func TestFiles(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) func() storagetest.Both {
		dir := t.TempDir()
		return func() storagetest.Both {
			files, err := storage.OpenFiles(dir, "autocertd test")
			if err != nil {
				t.Fatal(err)
			}
			return files
		}
	})
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	files, err := storage.OpenFiles(dir, "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Save(t.Context(), "accounts/ca", []byte("key")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"accounts": 0o700 | os.ModeDir, "accounts/ca": 0o600, "locks": 0o700 | os.ModeDir} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

// TestFilesPlanted puts pipes and devices where objects, locks and temporaries are: each is a mistake of its own, and
// nothing waits or reads without end.
func TestFilesPlanted(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"a pipe":              func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link to /dev/zero": func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files, err := storage.OpenFiles(dir, "autocertd test")
			if err != nil {
				t.Fatal(err)
			}
			if err := files.Save(t.Context(), "bundles/well", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"bundles/bad", "bundles/.tmp-bad", "locks/bad.lock"} {
				if err := plant(filepath.Join(dir, path)); err != nil {
					t.Fatal(err)
				}
			}
			if data, err := files.Load(t.Context(), "bundles/bad"); !errors.Is(err, durable.ErrIrregular) {
				t.Errorf("loaded %d bytes, %v", len(data), err)
			}
			if keys, err := files.List(t.Context(), "bundles"); err != nil || !slices.Contains(keys, "bundles/well") {
				t.Errorf("listed %q, %v", keys, err)
			}
			for range 2 { // whether it can be locked is all one
				if release, err := files.TryLock(t.Context(), "bad"); err == nil {
					release()
				}
			}
			if err := files.RemoveStale(); err != nil {
				t.Error(err)
			}
			if err := files.Save(t.Context(), "bundles/bad", []byte("{}")); err != nil {
				t.Error(err)
			}
			if data, err := files.Load(t.Context(), "bundles/bad"); err != nil || string(data) != "{}" {
				t.Errorf("loaded %q, %v", data, err)
			}
		})
	}
}

// TestLocksHeal removes the folder of the locks, and the file of one that is held.
func TestLocksHeal(t *testing.T) {
	dir := t.TempDir()
	files, err := storage.OpenFiles(dir, "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	_, err = files.TryLock(t.Context(), "daemon")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := files.LockFile("daemon")
	if err != nil || !files.IsLockFile("daemon", mine) {
		t.Fatalf("the lock isn't that of its file: %v", err)
	}
	for _, take := range []func(context.Context, string) (func(), error){files.TryLock, files.Lock} {
		if err := os.RemoveAll(filepath.Join(dir, "locks")); err != nil {
			t.Fatal(err)
		}
		if files.IsLockFile("daemon", mine) {
			t.Error("the file is gone, and the lock is still that of it")
		}
		if _, err := storage.ViewFiles(dir).TryLock(t.Context(), "daemon"); err == nil {
			t.Error("one who only looks made the folder")
		}
		release, err := take(t.Context(), "daemon")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := files.TryLock(t.Context(), "daemon"); err == nil {
			t.Error("the lock keeps nobody out")
		}
		if files.IsLockFile("daemon", mine) {
			t.Error("another file passes for the one that was locked")
		}
		release()
	}
}

// TestOverwrite writes over objects of several lengths.
func TestOverwrite(t *testing.T) {
	files, err := storage.OpenFiles(t.TempDir(), "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Overwrite("a", []byte("{}")); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("an object that isn't there: %v", err)
	}
	for _, old := range []string{"", "{}", `{"a": 1, "b": 2}`, "longer than all of that {}"} {
		if err := files.Save(t.Context(), "a", []byte(old)); err != nil {
			t.Fatal(err)
		}
		const text = `{"a": 1}`
		err := files.Overwrite("a", []byte(text))
		if data, _ := files.Load(t.Context(), "a"); err != nil || strings.TrimRight(string(data), " ") != text {
			t.Errorf("over %q: %q, %v", old, data, err)
		}
	}
}
