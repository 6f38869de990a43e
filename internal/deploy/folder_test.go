package deploy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// victim is what the owner of an output's folder would like to reach: a folder and a file of the daemon's.
type victim struct {
	dir, file string
	before    map[string]any
}

func newVictim(t *testing.T) *victim { return newVictimIn(t, t.TempDir()) }

func newVictimIn(t *testing.T, base string) *victim {
	t.Helper()
	dir := filepath.Join(base, "accounts")
	v := &victim{dir: dir, file: filepath.Join(dir, "key.pem")}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(v.file, []byte("secret"), 0o600)); err != nil {
		t.Error(err)
	}
	v.before = snapshot(t, dir)
	return v
}

// wantWell demands that nothing about the victim has changed: modes, owners, times, content, what is in the folder.
func (v *victim) wantWell(t *testing.T) {
	t.Helper()
	wantUntouched(t, v.dir, v.before)
}

// plants are what somebody can put at a name, beside files of his own.
func (v *victim) plants() map[string]func(path string) error {
	return map[string]func(path string) error{
		"a link to a file":      func(path string) error { return os.Symlink(v.file, path) },
		"a link to a folder":    func(path string) error { return os.Symlink(v.dir, path) },
		"a link to /dev/zero":   func(path string) error { return os.Symlink("/dev/zero", path) },
		"a link to nowhere":     func(path string) error { return os.Symlink(filepath.Join(v.dir, "new"), path) },
		"a link to itself":      func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"a hard link to a file": func(path string) error { return os.Link(v.file, path) },
		"a pipe":                func(path string) error { return unix.Mkfifo(path, 0o666) },
		"an empty folder":       func(path string) error { return os.Mkdir(path, 0o777) },
		"a folder": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o777), os.Symlink(v.dir, filepath.Join(path, "x")), unix.Mkfifo(filepath.Join(path, ".pending"), 0o600))
		},
		"a socket": func(path string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			here, err := os.Getwd()
			if err != nil {
				return err
			}
			// Its name may have 107 bytes.
			return errors.Join(os.Chdir(filepath.Dir(path)), unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Base(path)}), os.Chdir(here))
		},
	}
}

// TestPlanted puts each of them at every name that an output has or uses on the way, on a fresh output and on one that is
// renewed. Whatever becomes of the output, nothing hangs, nothing else is changed, and once the owner has cleared his folder all is well.
func TestPlanted(t *testing.T) {
	old, renewed := newBundle(t, host), newBundle(t, host)
	versionOf := func(b Bundle) string { return ".autocertd-" + b.Fingerprint[:12] }
	names := map[string][]string{
		FormatPEM: {"cert.pem", "privkey.pem", ".current", ".autocertd-.current.tmp", ".autocertd-privkey.pem.tmp", versionOf(renewed), versionOf(renewed) + "-2",
			".current/.pending", ".current/privkey.pem", ".current/cert.pem", "."},
		FormatCombined: {"FILE", ".autocertd-FILE.tmp", ".autocertd-FILE.pending", "."},
	}
	for format := range formats("") {
		for _, name := range names[format] {
			for kind := range (&victim{}).plants() {
				t.Run(format+"/"+strings.ReplaceAll(name, "/", "_")+"/"+kind, func(t *testing.T) {
					v := newVictim(t)
					if kind == "a hard link to a file" { // its count of links is changed by planting it
						defer func() { v.before = nil }()
					}
					dir := filepath.Join(openDir(t, 0o777), "tls")
					o := formats(dir)[format].out
					o.Dir = dir
					d := New(Config{Run: &counter{}})
					apply(t, d, old, o, nil)
					path := filepath.Join(dir, strings.ReplaceAll(name, "FILE", o.file(host)))
					if name == "." {
						path = dir
					}
					if err := errors.Join(os.RemoveAll(path), v.plants()[kind](path)); err != nil {
						t.Fatal(err)
					}
					v.before = snapshot(t, v.dir)
					for range 2 {
						if _, err := d.Apply(t.Context(), renewed, []Output{o}, nil); err != nil && strings.Contains(err.Error(), "PRIVATE") {
							t.Error(err)
						}
					}
					if kind != "a hard link to a file" {
						v.wantWell(t)
					} else if st, err := os.Stat(v.file); err != nil || st.Mode() != 0o600 || st.Size() != 6 {
						t.Errorf("%v, %v", st, err)
					}
					if err := o.CheckFiles(host); err != nil {
						t.Log(err)
					}
					if err := os.RemoveAll(dir); err != nil {
						t.Fatal(err)
					}
					apply(t, d, renewed, o, nil)
					wantDeployed(t, o, renewed)
					wantClean(t, dir)
				})
			}
		}
	}
}

// TestMovedAway changes, right before each step of a deployment, what the step is about: the folder that was just made is
// moved away, and another one of the daemon's, or a link to one, stands in its place.
func TestMovedAway(t *testing.T) {
	b := newBundle(t, host)
	for format := range formats("") {
		for _, kind := range []string{"a link to a folder", "a link to a file", "a pipe", "a private folder"} {
			for _, op := range []string{"chmod", "create", "touch", "symlink", "rename", "fsync", "remove"} {
				t.Run(format+"/"+kind+"/"+op, func(t *testing.T) {
					v := newVictim(t)
					parent := openDir(t, 0o777)
					private := filepath.Join(parent, "private")
					if err := os.Mkdir(private, 0o700); err != nil {
						t.Fatal(err)
					}
					dir := filepath.Join(parent, "a", "b")
					o := formats(dir)[format].out
					o.Dir = dir
					d := New(Config{Run: &counter{}})
					left := 20
					d.disk.before = func(now, path string) error {
						if now != op || left == 0 || !strings.HasPrefix(path, parent+"/") {
							return nil
						}
						if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err != nil || real != filepath.Dir(path) {
							return nil // not by our own links
						}
						left--
						_ = os.Rename(path, path+".away")
						if plant := v.plants()[kind]; plant != nil {
							_ = plant(path)
						} else {
							_ = os.Rename(private, path)
						}
						return nil
					}
					for range 3 {
						_, _ = d.Apply(t.Context(), b, []Output{o}, nil) // whether it comes through is all one
					}
					v.wantWell(t)
					if err := filepath.WalkDir(parent, func(path string, e fs.DirEntry, err error) error {
						if fi, ierr := e.Info(); err == nil && ierr == nil && e.Name() == "private" && fi.Mode().Perm() != 0o700 {
							t.Errorf("%s has mode %v", path, fi.Mode())
						}
						return nil
					}); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestRace swaps the names of what is made as fast as it can, as the owner of the parent may, while certificates are deployed:
// by root, and by a daemon without rights whose group may write there.
func TestRace(t *testing.T) {
	b := newBundle(t, host)
	for name, as := range map[string]func(*testing.T, func()){"root": func(_ *testing.T, f func()) { f() }, "nobody": asNobody} {
		t.Run(name, func(t *testing.T) {
			var v *victim
			base := openDir(t, 0o777)
			as(t, func() { v = newVictimIn(t, base) })
			parent := openDir(t, 0o777)
			dir, tmp := filepath.Join(parent, "tls"), filepath.Join(parent, ".autocertd-tls.tmp")
			done := make(chan struct{})
			var attackers sync.WaitGroup
			fake := filepath.Join(parent, "fake")
			plants := []func() error{
				func() error { return os.Symlink(v.dir, tmp) },
				func() error { return errors.Join(os.Mkdir(fake, 0o777), os.Rename(fake, tmp)) },
			}
			for _, plant := range plants {
				attackers.Go(func() {
					asUser(t, 65533, func() { // who may write to the parent, and nothing else
						for range 200_000 {
							select {
							case <-done:
								return
							default:
							}
							if os.Rename(tmp, tmp+".away") == nil {
								_ = plant()
								_ = os.RemoveAll(tmp + ".away")
							}
						}
					})
				})
			}
			d := New(Config{Run: &counter{}})
			as(t, func() {
				for range 25 {
					_, _ = d.Apply(t.Context(), b, []Output{{Dir: dir, Reload: []string{"nginx.service"}}}, nil)
					_ = os.RemoveAll(dir)
					_ = os.Remove(tmp)
				}
			})
			close(done)
			attackers.Wait()
			v.wantWell(t)
		})
	}
}

// TestLinksOnTheWay has outputs whose folder is reached by a link: an administrator's is followed, anybody else's isn't.
func TestLinksOnTheWay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give folders to others")
	}
	b := newBundle(t, host)
	tests := []struct {
		name    string
		mode    fs.FileMode // of the folder with the link
		uid     int         // of that folder
		linkUID int
		follow  bool
	}{
		{"root's link in root's folder", 0o755, 0, 0, true},
		{"a link in another user's folder", 0o755, 65534, 0, false},
		{"in a folder that all may write", 0o777, 0, 0, false},
		{"in a folder that a group may write", 0o775, 0, 0, true}, // the group is root's
		{"root's link in a folder like /tmp", 0o777 | fs.ModeSticky, 0, 0, true},
		{"another user's link in a folder like /tmp", 0o777 | fs.ModeSticky, 0, 65534, false},
	}
	for _, tt := range tests {
		for _, where := range []string{"link/{name}", "link", "link/../other", "relative"} {
			t.Run(tt.name+"/"+strings.Trim(filepath.Base(where), "{}"), func(t *testing.T) {
				root := t.TempDir()
				open, real := filepath.Join(root, "open"), filepath.Join(root, "real")
				for name, target := range map[string]string{"link": real, "relative": "../real"} {
					if err := errors.Join(os.MkdirAll(open, 0o755), os.MkdirAll(filepath.Join(root, "other"), 0o755), os.MkdirAll(real, 0o755),
						os.Symlink(target, filepath.Join(open, name)), os.Lchown(filepath.Join(open, name), tt.linkUID, 0)); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(os.Chown(open, tt.uid, 0), os.Chmod(open, tt.mode)); err != nil {
					t.Fatal(err)
				}
				o := Output{Dir: open + "/" + where}
				if where == "link/../other" { // an administrator who writes this means the other way round
					o.Dir = root + "/real/../open/link"
				}
				if !tt.follow {
					e := failure(t, New(Config{}), b, o, errForeignLink, "isn't followed", "let only root write to "+open)
					if err := o.CheckFiles(host); !errors.Is(err, errForeignLink) {
						t.Errorf("%v, and the check says %v", e, err)
					}
					if entries, err := os.ReadDir(real); err != nil || len(entries) > 0 {
						t.Errorf("written through the link: %v, %v", entries, err)
					}
					return
				}
				apply(t, New(Config{}), b, o, nil)
				wantDeployed(t, o, b)
				if err := o.CheckFiles(host); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestFlood has an owner who fills his folder with names that look like ours.
func TestFlood(t *testing.T) {
	dir := t.TempDir()
	b := newBundle(t, host)
	big := filepath.Join(dir, ".autocertd-"+strings.Repeat("a", 12))
	if err := os.Mkdir(big, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Repeat([]string{"x"}, 2*maxLeftovers) {
		f, err := os.CreateTemp(big, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	failure(t, New(Config{}), b, Output{Dir: dir}, errForeign, big)
	wantDeployed(t, Output{Dir: dir}, b)
}
