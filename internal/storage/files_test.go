package storage_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
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
