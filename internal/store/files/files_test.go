package files_test

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
	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m, backend(files.Open)) }

func TestFiles(t *testing.T) { storetest.Run(t, backend(files.Open)) }

// TestPolls watches where there is no inotify.
func TestPolls(t *testing.T) { storetest.Run(t, backend(files.OpenPolling)) }

// backend is a directory. A lease is lost there when its file is removed.
func backend(open func(root, command string) (*files.Store, error)) storetest.Backend {
	return storetest.Backend{
		New:  func(t *testing.T) string { return t.TempDir() },
		Open: func(where string) (storetest.Storage, error) { return open(where, "autocertd test") },
		Lose: func(where, name string) error { return os.Remove(filepath.Join(where, "locks", name+".lock")) },
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	s, err := files.Open(dir, "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), "accounts/ca", []byte("key")); err != nil {
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
			s, err := files.Open(dir, "autocertd test")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Save(t.Context(), "bundles/well", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"bundles/bad", "bundles/.tmp-bad", "locks/bad.lock"} {
				if err := plant(filepath.Join(dir, path)); err != nil {
					t.Fatal(err)
				}
			}
			if data, err := s.Load(t.Context(), "bundles/bad"); !errors.Is(err, durable.ErrIrregular) {
				t.Errorf("loaded %d bytes, %v", len(data), err)
			}
			if keys, err := s.List(t.Context(), "bundles"); err != nil || !slices.Contains(keys, "bundles/well") {
				t.Errorf("listed %q, %v", keys, err)
			}
			for range 2 { // whether it can be locked is all one
				if lease, err := s.Try(t.Context(), "bad"); err == nil {
					lease.Release()
				}
			}
			if err := s.RemoveStale(); err != nil {
				t.Error(err)
			}
			if err := s.Save(t.Context(), "bundles/bad", []byte("{}")); err != nil {
				t.Error(err)
			}
			if data, err := s.Load(t.Context(), "bundles/bad"); err != nil || string(data) != "{}" {
				t.Errorf("loaded %q, %v", data, err)
			}
		})
	}
}

// TestLocksHeal removes the folder of the locks from under a holder.
func TestLocksHeal(t *testing.T) {
	dir := t.TempDir()
	s, err := files.Open(dir, "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Try(t.Context(), "daemon")
	if err != nil {
		t.Fatal(err)
	}
	for _, take := range []func(context.Context, string) (store.Lease, error){s.Try, s.Acquire} {
		if err := os.RemoveAll(filepath.Join(dir, "locks")); err != nil {
			t.Fatal(err)
		}
		if _, err := files.View(dir).Try(t.Context(), "daemon"); err == nil {
			t.Error("one who only looks made the folder")
		}
		if err := lease.Save(t.Context(), "states/x", nil); !errors.Is(err, store.ErrLost) {
			t.Errorf("a write without the lock's file: %v", err)
		}
		next, err := take(t.Context(), "daemon")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Try(t.Context(), "daemon"); err == nil {
			t.Error("the lock keeps nobody out")
		}
		lease.Release()
		lease = next
	}
	lease.Release()
}

// TestHolderOfRemovedFile asks who holds a lease whose file was just removed, and whose holder takes it again.
func TestHolderOfRemovedFile(t *testing.T) {
	dir := t.TempDir()
	s, err := files.Open(dir, "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Try(t.Context(), "daemon")
	if err != nil {
		t.Fatal(err)
	}
	again := make(chan store.Lease)
	go func() {
		<-lease.Context().Done()
		next, err := s.Try(t.Context(), "daemon")
		if err != nil {
			t.Error(err)
		}
		again <- next
	}()
	if err := os.RemoveAll(filepath.Join(dir, "locks")); err != nil {
		t.Fatal(err)
	}
	if h, err := files.View(dir).Holder(t.Context(), "daemon"); h == nil || err != nil {
		t.Errorf("held by %v, %v", h, err)
	}
	(<-again).Release()
}

// TestOverwrite writes over objects of several lengths.
func TestOverwrite(t *testing.T) {
	s, err := files.Open(t.TempDir(), "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Overwrite("a", []byte("{}")); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("an object that isn't there: %v", err)
	}
	for _, old := range []string{"", "{}", `{"a": 1, "b": 2}`, "longer than all of that {}"} {
		if err := s.Save(t.Context(), "a", []byte(old)); err != nil {
			t.Fatal(err)
		}
		const text = `{"a": 1}`
		err := s.Overwrite("a", []byte(text))
		if data, _ := s.Load(t.Context(), "a"); err != nil || strings.TrimRight(string(data), " ") != text {
			t.Errorf("over %q: %q, %v", old, data, err)
		}
	}
}
