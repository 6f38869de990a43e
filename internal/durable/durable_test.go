package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"autocertd/internal/durable"
)

func TestWrite(t *testing.T) {
	tests := []struct {
		name string
		file durable.File
		mode fs.FileMode
	}{
		{"private by default", durable.File{}, 0o600},
		{"the mode asked for", durable.File{Mode: 0o644}, 0o644},
		{"lazily", durable.File{Lazy: true}, 0o600},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "object")
			for _, content := range []string{"old and rather longer", "new"} {
				if err := tt.file.Write(path, []byte(content)); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(path)
				if err != nil || string(got) != content {
					t.Fatalf("read %q, %v; want %q", got, err, content)
				}
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != tt.mode {
				t.Errorf("mode %v, want %v", info.Mode(), tt.mode)
			}
			onlyFile(t, filepath.Dir(path), "object")
		})
	}
}

func TestWriteFailureLeavesTheOldFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "object")
	if err := (durable.File{}).Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("no such group")
	err := durable.File{Own: func(*os.File) error { return refused }}.Write(path, []byte("new"))
	if !errors.Is(err, refused) {
		t.Fatalf("got %v, want %v", err, refused)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("the file holds %q, want the old content", got)
	}
	onlyFile(t, filepath.Dir(path), "object")
}

func TestRemoveStale(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"object", ".tmp-old", ".tmp-fresh"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"object", ".tmp-old"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.RemoveStale(dir, time.Minute); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, dir, ".tmp-fresh", "object")
}

func onlyFile(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) {
		t.Fatalf("the folder holds %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("the folder holds %v, want %v", got, want)
		}
	}
}
