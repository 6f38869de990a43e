package deploy

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"autocertd/internal/state"
)

// failure applies the bundle, demands exactly one *Error with the cause and the words, and returns it.
func failure(t *testing.T, d *Deployer, b Bundle, o Output, cause error, words ...string) *Error {
	t.Helper()
	res, err := d.Apply(t.Context(), b, []Output{o}, nil)
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	if cause != nil && !errors.Is(e, cause) {
		t.Errorf("got %v, want %v", e, cause)
	}
	for _, w := range words {
		if !strings.Contains(e.Error()+"\n"+e.Cure(), w) {
			t.Errorf("the error lacks %q: %v", w, e)
		}
	}
	if len(res.Pending) != 1 {
		t.Errorf("pending %q, want one sentence", res.Pending)
	}
	if strings.Contains(err.Error(), "PRIVATE KEY") {
		t.Error("the error holds a key")
	}
	return e
}

func TestRefused(t *testing.T) {
	b := newBundle(t, host)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"linked/cert.pem", "bundles/" + host + ".pem", "taken/.current"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		out   Output
		cause error
		words []string
	}{
		"unknown group":    {Output{Group: "no-such-group"}, user.UnknownGroupError("no-such-group"), []string{"no-such-group", "create the group"}},
		"unknown owner":    {Output{Owner: "no-such-user"}, user.UnknownUserError("no-such-user"), []string{"no-such-user", "create the user"}},
		"impossible id":    {Output{Owner: "4294967295"}, nil, []string{"4294967295"}},
		"unknown format":   {Output{Format: "p7b"}, nil, []string{"p7b", "pem", "combined"}},
		"file with folder": {Output{Format: FormatCombined, File: "../x.pem"}, nil, []string{"../x.pem"}},
		"relative":         {Output{Dir: "certs"}, nil, []string{"absolute"}},
		"dir is a file":    {Output{Dir: filepath.Join(dir, "plain")}, syscall.ENOTDIR, []string{"plain", "move away"}},
		"below a file":     {Output{Dir: filepath.Join(dir, "plain", "{name}")}, syscall.ENOTDIR, []string{"plain"}},
		"file is a dir":    {Output{Dir: filepath.Join(dir, "linked")}, syscall.EISDIR, []string{"cert.pem"}},
		"current is a dir": {Output{Dir: filepath.Join(dir, "taken")}, syscall.EISDIR, []string{".current"}},
		"combined is a dir": {Output{Dir: filepath.Join(dir, "bundles"), Format: FormatCombined}, syscall.EISDIR,
			[]string{host + ".pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			if row.out.Dir == "" {
				row.out.Dir = filepath.Join(dir, "out")
			}
			failure(t, New(Config{}), b, row.out, row.cause, row.words...)
		})
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", ".*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q (%v)", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused output wrote something: %v", err)
	}
}

func TestRefusedBundles(t *testing.T) {
	good := newBundle(t, host)
	for name, spoil := range map[string]func(*Bundle){
		"no name":           func(b *Bundle) { b.Name = "" },
		"name climbs":       func(b *Bundle) { b.Name = ".." },
		"name with slash":   func(b *Bundle) { b.Name = "a/b" },
		"short fingerprint": func(b *Bundle) { b.Fingerprint = "abcdef" },
		"path as print":     func(b *Bundle) { b.Fingerprint = "../../../../etc" },
		"foreign key":       func(b *Bundle) { b.Key = newBundle(t, host).Key },
		"no key":            func(b *Bundle) { b.Key = nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := good
			spoil(&b)
			st := State{"x": state.Done{Steps: []string{"y"}}}
			res, err := New(Config{}).Apply(t.Context(), b, []Output{{Dir: dir}}, st)
			if err == nil {
				t.Error("accepted")
			}
			if entries, _ := os.ReadDir(dir); len(entries) > 0 {
				t.Errorf("wrote %v", entries)
			}
			if len(res.State[dir].Steps) > 0 {
				t.Errorf("marked as done: %v", res.State)
			}
		})
	}
}

// TestOneFails deploys to a bad output between two good ones, and twice to the same place.
func TestOneFails(t *testing.T) {
	b := newBundle(t, host)
	first, last := Output{Dir: t.TempDir()}, Output{Dir: t.TempDir()}
	twin := first
	twin.Mode = 0o640
	inside := Output{Dir: first.Dir, Format: FormatCombined, File: "cert.pem"}
	bad := Output{Dir: t.TempDir(), Group: "no-such-group"}
	res, err := New(Config{}).Apply(t.Context(), b, []Output{first, bad, twin, inside, last}, nil)
	if err == nil || len(res.Pending) != 3 {
		t.Errorf("error %v, pending %q; want three things", err, res.Pending)
	}
	wantDeployed(t, first, b)
	wantDeployed(t, last, b)
	if len(res.State) != 2 || !finished(res, first) || !finished(res, last) {
		t.Errorf("state %v, want the good ones", res.State)
	}
}

// openDir is a temporary directory that others can reach, with the mode.
func openDir(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, mode)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asNobody calls f with the file rights of a user who is nobody, on a thread that ends with it.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	asUser(t, 65534, f)
}

func asUser(t *testing.T, id int, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f() // we are bound by modes as it is
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread dies with its rights
		if err := syscall.Setfsgid(id); err != nil {
			t.Error(err)
			return
		}
		if err := syscall.Setfsuid(id); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func TestReadOnlyDirectory(t *testing.T) {
	b := newBundle(t, host)
	for format := range formats("") {
		t.Run(format, func(t *testing.T) {
			dir := openDir(t, 0o555)
			o := formats(dir)[format].out
			d := New(Config{Run: &counter{}})
			asNobody(t, func() { failure(t, d, b, o, fs.ErrPermission, "/.autocertd-", dir, "runs as", "ReadWritePaths="+dir) })
			if entries, _ := os.ReadDir(dir); len(entries) > 0 {
				t.Errorf("left %v", entries)
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			apply(t, d, b, o, nil)
			wantDeployed(t, o, b)
		})
	}
}

// TestForeignOwner asks for an owner that an ordinary user can't give.
func TestForeignOwner(t *testing.T) {
	b := newBundle(t, host)
	dir := openDir(t, 0o777)
	asNobody(t, func() {
		failure(t, New(Config{}), b, Output{Dir: dir, Owner: "root"}, fs.ErrPermission, "leave owner out")
		failure(t, New(Config{}), b, Output{Dir: dir, Group: "daemon"}, fs.ErrPermission, "sudo usermod -aG daemon ")
	})
	if n := versions(t, dir); n > 0 {
		t.Errorf("left %d versions", n)
	}
}

// TestOwners gives files away, and takes back what somebody gave away.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to others")
	}
	b := newBundle(t, host)
	for format := range formats("") {
		t.Run(format, func(t *testing.T) {
			f := formats(t.TempDir())[format]
			o := f.out
			o.Owner, o.Group, o.Mode = "65534", "root", 0o640
			d := New(Config{Run: &counter{}})
			key := filepath.Join(o.Dir, f.key)
			for range 2 {
				res := apply(t, d, b, o, nil)
				wantDeployed(t, o, b)
				var st unix.Stat_t
				if err := unix.Stat(key, &st); err != nil {
					t.Fatal(err)
				}
				if !(owner{65534, 0}).owns(&st) {
					t.Errorf("wrong owner: %+v", st)
				}
				before := snapshot(t, o.Dir)
				apply(t, d, b, o, res.State)
				wantUntouched(t, o.Dir, before)
				if err := os.Chown(key, 1, 1); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestTakenAway removes our right to read our own file.
func TestTakenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to others")
	}
	b := newBundle(t, host)
	o := Output{Dir: openDir(t, 0o777)}
	asNobody(t, func() {
		apply(t, New(Config{}), b, o, nil)
	})
	if err := os.Chown(filepath.Join(o.Dir, "privkey.pem"), 0, 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if res := apply(t, New(Config{}), b, o, nil); len(res.Changed) == 0 {
			t.Error("nothing was put right")
		}
	})
	wantDeployed(t, o, b)
}

// TestUnreadable can't compare a file that is as it has to be in all else. Rewriting it at every look would be worse.
func TestUnreadable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to others")
	}
	b := newBundle(t, host)
	o := Output{Dir: openDir(t, 0o777), Owner: "root"}
	apply(t, New(Config{}), b, o, nil)
	before := snapshot(t, o.Dir)
	asNobody(t, func() { failure(t, New(Config{}), b, o, fs.ErrPermission, "privkey.pem") })
	wantUntouched(t, o.Dir, before)
}

// mount gives a small file system of its own.
func mount(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk renews while there is no space: the old pair stays in use, and the renewal goes through once there is.
func TestFullDisk(t *testing.T) {
	for format := range formats("") {
		t.Run(format, func(t *testing.T) {
			dir := mount(t)
			old, renewed := newBundle(t, host), newBundle(t, host)
			o := formats(dir)[format].out
			d := New(Config{Run: &counter{}})
			st := apply(t, d, old, o, nil).State

			ballast := filepath.Join(dir, "ballast")
			if err := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("filling the disk: %v", err)
			}
			for range 20 { // it must not pile up either
				failure(t, d, renewed, o, syscall.ENOSPC, "free space", dir)
			}
			wantDeployed(t, o, old)
			if n := versions(t, dir); n > 1 {
				t.Errorf("%d versions left behind", n)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			res := apply(t, d, renewed, o, st)
			wantDeployed(t, o, renewed)
			wantClean(t, dir)
			if !slices.Equal(res.Reloaded, []string{"nginx.service"}) {
				t.Errorf("reloaded %q", res.Reloaded)
			}
		})
	}
}

// TestReadOnlyFileSystem is what ProtectSystem=strict looks like from inside.
func TestReadOnlyFileSystem(t *testing.T) {
	dir := mount(t)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	o := Output{Dir: filepath.Join(dir, "tls", "{name}", "x")}
	failure(t, New(Config{}), newBundle(t, host), o, syscall.EROFS, "ReadWritePaths="+filepath.Join(dir, "tls")+" ")
}

// TestUmask deploys under the umask of the daemon's unit: folders and modes must come out as they are wanted all the same.
func TestUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	o := Output{Dir: filepath.Join(t.TempDir(), "a", "b"), Mode: 0o640}
	d := New(Config{})
	b := newBundle(t, host)
	apply(t, d, b, o, nil)
	wantDeployed(t, o, b)
	for _, dir := range []string{o.Dir, filepath.Dir(o.Dir), filepath.Join(o.Dir, ".current")} {
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", dir, fi, err)
		}
	}
}
