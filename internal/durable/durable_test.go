package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// planted puts something that is no regular file at a path, each kind that an ordinary user can make, and devices.
var planted = map[string]func(path string) error{
	"a pipe": func(path string) error { return unix.Mkfifo(path, 0o600) },
	"a link to a pipe": func(path string) error {
		return errors.Join(unix.Mkfifo(path+".pipe", 0o600), os.Symlink(path+".pipe", path))
	},
	"a link to /dev/zero": func(path string) error { return os.Symlink("/dev/zero", path) },
	"a link to /dev/tty":  func(path string) error { return os.Symlink("/dev/tty", path) },
	"a link to itself":    func(path string) error { return os.Symlink(path, path) },
	"a folder":            func(path string) error { return os.Mkdir(path, 0o700) },
	"a socket": func(path string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Close(fd))
	},
}

// TestReadPlanted reads what others put in a file's place: nothing waits for a writer, and nothing is read without end.
func TestReadPlanted(t *testing.T) {
	for name, plant := range planted {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := plant(path); err != nil {
				t.Fatal(err)
			}
			if data, err := durable.Read(path, 100); !errors.Is(err, durable.ErrIrregular) {
				t.Errorf("read %d bytes, %v", len(data), err)
			}
			if f, _, err := durable.OpenRegular(path); !errors.Is(err, durable.ErrIrregular) {
				t.Errorf("opened %v, %v", f, err)
			}
			// A file replaces what stands there, or nothing happens.
			if err := (durable.File{}).Write(path, []byte("x")); err != nil && name != "a folder" {
				t.Error(err)
			}
		})
	}
}

func TestReadBounds(t *testing.T) {
	tests := []struct {
		name, content string
		limit         int
		large         bool
	}{
		{"empty", "", 0, false},
		{"at the limit", "12345", 5, false},
		{"below the limit", "1234", 5, false},
		{"above the limit", "123456", 5, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			data, err := durable.Read(path, tt.limit)
			if _, large := errors.AsType[*durable.TooLargeError](err); large != tt.large || !large && (err != nil || string(data) != tt.content) {
				t.Errorf("read %q, %v", data, err)
			}
		})
	}
	// Files of the kernel have no size.
	if data, err := durable.Read("/proc/self/status", 1<<20); err != nil || len(data) < 100 {
		t.Errorf("%d bytes of /proc/self/status, %v", len(data), err)
	}
	if _, err := durable.Read("/proc/self/status", 20); err == nil {
		t.Error("a file without size goes beyond the limit")
	}
	if _, err := durable.Read(filepath.Join(t.TempDir(), "absent"), 20); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestReadAt reads in an open folder, where a link leads nowhere, as it does when a whole path is read.
func TestReadAt(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600), os.Symlink("f", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if data, err := durable.ReadAt(int(folder.Fd()), "f", "shown", 10); err != nil || string(data) != "x" {
		t.Errorf("read %q, %v", data, err)
	}
	_, err = durable.ReadAt(int(folder.Fd()), "link", "shown", 10)
	if path, ok := errors.AsType[*fs.PathError](err); !errors.Is(err, durable.ErrIrregular) || !ok || path.Path != "shown" {
		t.Errorf("a link: %v", err)
	}
	if data, err := durable.Read(filepath.Join(dir, "link"), 10); err != nil || string(data) != "x" {
		t.Errorf("a link in a path: read %q, %v", data, err)
	}
}

// TestMakeFolder makes a folder under any umask, and nothing where something stands already.
func TestMakeFolder(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := durable.MakeFolder(path, os.Geteuid(), os.Getegid()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeDir|0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if err := durable.MakeFolder(path, os.Geteuid(), os.Getegid()); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	// Another folder of ours, moved there as fast as it can be, keeps its mode and its owner.
	private := filepath.Join(dir, "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for range 100_000 {
			select {
			case <-stop:
				return
			default:
			}
			if os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "away")) == nil {
				_ = os.Symlink(private, filepath.Join(dir, "new"))
				_ = os.Remove(filepath.Join(dir, "away"))
			}
		}
	}()
	for range 200 {
		_ = durable.MakeFolder(filepath.Join(dir, "new"), os.Geteuid(), os.Getegid())
		_ = os.Remove(filepath.Join(dir, "new"))
	}
	close(stop)
	<-done
	if info, err := os.Stat(private); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v, %v", info, err)
	}
}
