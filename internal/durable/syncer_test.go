package durable_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/durable"
)

// TestSyncerServesEachCaller lets many callers wait at once, one of them for a file that can't be synced.
func TestSyncerServesEachCaller(t *testing.T) {
	for _, callers := range []int{1, 2, 100} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			dir := t.TempDir()
			syncer := new(durable.Syncer)
			results := make([]error, callers)
			var group errgroup.Group
			for i := range callers {
				group.Go(func() error {
					f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
					if err != nil {
						return err
					}
					if i == callers/2 {
						if err := f.Close(); err != nil {
							return err
						}
					} else {
						defer f.Close()
					}
					results[i] = syncer.Sync(f)
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			for i, err := range results {
				if failed := err != nil; failed != (i == callers/2) {
					t.Errorf("caller %d: %v", i, err)
				}
			}
			if err := syncer.SyncDir(dir); err != nil {
				t.Error(err)
			}
			if err := syncer.SyncDir(filepath.Join(dir, "absent")); err == nil {
				t.Error("a folder that isn't there was synced")
			}
		})
	}
}

// TestSyncerOverFileSystems has callers on two file systems, where there are two.
func TestSyncerOverFileSystems(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "autocertd-test-")
	if err != nil {
		t.Skip("no second file system: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	syncer := new(durable.Syncer)
	var group errgroup.Group
	for i := range 40 {
		group.Go(func() error {
			dir := []string{t.TempDir(), other}[i%2]
			return durable.File{Sync: syncer}.Write(filepath.Join(dir, fmt.Sprint(i)), []byte("x"))
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if entries, err := fs.ReadDir(os.DirFS(other), "."); err != nil || len(entries) != 20 {
		t.Errorf("%d files, %v; want 20", len(entries), err)
	}
}
