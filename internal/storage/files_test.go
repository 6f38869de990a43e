package storage_test

import (
	"os"
	"path/filepath"
	"testing"

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
