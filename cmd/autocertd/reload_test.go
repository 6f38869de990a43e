//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"autocertd/internal/state"
	"autocertd/internal/store/files"
)

// TestReload changes the files of a running daemon in all the ways that people and programs do.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.schedule = "@every 1h" // so that no tick helps
	s.hostnames = []string{"first." + zone}
	d := s.start(t)
	s.deployed(t, s.hostnames...)

	dropIn := func(hostname string) string { return fmt.Sprintf("hostnames = [%q]\n", hostname+"."+zone) }
	link := s.path("list.txt") // outside of the folders that are watched, by the name at least
	changes := []struct {
		name string
		host string
		make func(host string) error
	}{
		{"the file is written anew in place", "inplace", func(host string) error {
			s.hostnames = append(s.hostnames, host+"."+zone)
			return os.WriteFile(s.config(), []byte(s.text()), 0o644)
		}},
		{"the file is replaced by another", "renamed", func(host string) error {
			s.hostnames = append(s.hostnames, host+"."+zone)
			return errors.Join(os.WriteFile(s.path(".config.toml.swp"), []byte(s.text()), 0o644),
				os.Rename(s.path(".config.toml.swp"), s.config()))
		}},
		{"conf.d appears with a file in it", "dropin", func(host string) error {
			return errors.Join(os.Mkdir(s.path("new"), 0o755), os.WriteFile(s.path("new", "10.toml"), []byte(dropIn(host)), 0o644),
				os.Rename(s.path("new"), s.path("conf.d")))
		}},
		{"a file is added to conf.d", "later", func(host string) error {
			return os.WriteFile(s.path("conf.d", "20.toml"), []byte(dropIn(host)), 0o644)
		}},
		{"a link is added to conf.d", "linked", func(host string) error {
			return errors.Join(os.WriteFile(link, []byte(dropIn(host)), 0o644), os.Symlink(link, s.path("conf.d", "30.toml")))
		}},
		{"what the link leads to changes", "target", func(host string) error {
			return os.WriteFile(link, []byte(dropIn(host)), 0o644)
		}},
		{"a drop-in is linked into a release of a checkout", "release", func(host string) error {
			return errors.Join(os.Mkdir(s.path("r1"), 0o755), os.Symlink("r1", s.path("now")),
				os.WriteFile(s.path("r1", "list.toml"), []byte(dropIn(host)), 0o644), os.Symlink("../now/list.toml", s.path("conf.d", "40.toml")))
		}},
		{"the next release", "swapped", func(host string) error {
			return errors.Join(os.Mkdir(s.path("r2"), 0o755), os.WriteFile(s.path("r2", "list.toml"), []byte(dropIn(host)), 0o644),
				os.Symlink("r2", s.path("now.new")), os.Rename(s.path("now.new"), s.path("now")))
		}},
		{"conf.d is a volume of a ConfigMap", "volume", func(host string) error {
			return errors.Join(os.CopyFS(s.path("volume", "..v1"), os.DirFS(s.path("conf.d"))), os.Symlink("..v1", s.path("volume", "..data")),
				os.WriteFile(s.path("volume", "..v1", "50.toml"), []byte(dropIn(host)), 0o644), os.Symlink("..data/50.toml", s.path("volume", "50.toml")),
				os.Rename(s.path("conf.d"), s.path("before")), os.Symlink("volume", s.path("conf.d")))
		}},
		{"it is updated", "updated", func(host string) error {
			return errors.Join(os.Mkdir(s.path("volume", "..v2"), 0o755), os.WriteFile(s.path("volume", "..v2", "50.toml"), []byte(dropIn(host)), 0o644),
				os.Symlink("..v2", s.path("volume", "..tmp")), os.Rename(s.path("volume", "..tmp"), s.path("volume", "..data")))
		}},
		{"the folder that links lead to is replaced", "replaced", func(host string) error {
			return errors.Join(os.CopyFS(s.path("volume.new"), os.DirFS(s.path("volume"))), os.Rename(s.path("volume"), s.path("volume.old")),
				os.WriteFile(s.path("volume.new", "60.toml"), []byte(dropIn(host)), 0o644), os.Rename(s.path("volume.new"), s.path("volume")))
		}},
		{"that folder goes away and comes back", "back", func(host string) error {
			err := os.Rename(s.path("volume"), s.path("away"))
			d.tells(t, `removed="certificate replaced.`)
			return errors.Join(err, os.Rename(s.path("away"), s.path("volume")), os.WriteFile(s.path("volume", "70.toml"), []byte(dropIn(host)), 0o644))
		}},
		{"it is written once more", "again", func(host string) error {
			return os.WriteFile(s.path("volume", "70.toml"), []byte(dropIn(host)), 0o644)
		}},
		{"nothing, and SIGHUP says so", "again", func(string) error { return d.cmd.Process.Signal(syscall.SIGHUP) }},
	}
	for _, c := range changes {
		begin := time.Now()
		if err := c.make(c.host); err != nil {
			t.Fatal(err)
		}
		s.deployed(t, c.host+"."+zone)
		t.Logf("%s: certificate after %s", c.name, time.Since(begin).Round(time.Millisecond))
	}
	d.tells(t, `msg="configuration taken over"`, "why="+s.path("conf.d", "50.toml"), `added="certificate updated.`+zone+`"`, `removed="certificate volume.`+zone+`"`)
	d.tells(t, `msg="configuration taken over" why=SIGHUP certificates=6`+"\n")
	if r := s.report(t); len(r.NotTakenOver) > 0 {
		t.Errorf("status says %v wasn't taken over", r.NotTakenOver)
	}
	d.stop(t)
	s.clean(t, zone)
}

// TestBrokenConfiguration makes a mistake in the file of a running daemon, and then puts it right.
func TestBrokenConfiguration(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = []string{"before." + zone}
	d := s.start(t)
	s.deployed(t, s.hostnames...)
	before, err := s.pair(s.hostnames[0])
	if err != nil {
		t.Fatal(err)
	}

	mistake := "config.toml:1: hostnmaes"
	s.writeFile(t, "config.toml", strings.Replace(s.text(), "hostnames", "hostnmaes", 1))
	d.tells(t, "not taken over", mistake)
	if r := s.command(t, "status"); !strings.Contains(r.stderr, mistake) {
		t.Errorf("status doesn't tell of the mistake:\n%s", r.stderr)
	}
	s.renewBroken(t)
	after, err := s.pair(s.hostnames[0])
	if err != nil || !after.Equal(before) {
		t.Errorf("a broken file changed the certificate: %v", err)
	}

	s.hostnames = append(s.hostnames, "after."+zone)
	s.write(t)
	s.deployed(t, s.hostnames...)
	eventually(t, func() error {
		if r := s.report(t); r.Daemon == nil || r.Daemon.ConfigError != "" {
			return fmt.Errorf("status says of the daemon: %+v", r.Daemon)
		}
		return nil
	})
	d.stop(t)
}

// renewBroken runs renew, which must refuse a configuration with mistakes as wrong usage.
func (s *site) renewBroken(t *testing.T) {
	t.Helper()
	if r := s.command(t, "renew"); r.status != exitUsage {
		t.Errorf("renew with a broken file ends with %d:\n%s", r.status, r.stderr)
	}
}

// TestHangupDuringTheStart: SIGHUP before the daemon is ready ends nothing, and the configuration is read again afterwards.
func TestHangupDuringTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &site{dir: dir, schedule: "@every 1h"}
	text := fmt.Sprintf("state_dir = %q\nschedule = \"@every 1h\"\nhostnames = []\n[ca.test]\ndirectory = \"https://127.0.0.1:1/dir\"\naccept_terms = true\n"+
		"[provider.people]\ntype = \"manual\"\n", s.path("state"))
	s.writeFile(t, "config.toml", text)
	store, err := files.Open(s.path("state"), "test")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := store.Acquire(t.Context(), state.DaemonLock) // the daemon waits for it
	if err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, s.path("state", "locks", state.DaemonLock+".lock"), unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	d := s.begin(t)
	eventually(t, func() error { // it opens the lock's file when it has read the configuration
		_, err := unix.Read(watch, make([]byte, 4096))
		return err
	})
	d.signal(t, syscall.SIGHUP)
	lease.Release()
	d.tells(t, "msg=started")
	d.tells(t, `msg="configuration taken over" why=SIGHUP`)
	d.stop(t)
}

// TestWay: all links on the way to a file count, and so does the first folder that is missing.
func TestWay(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"etc", "srv/v1", "srv/deep/er"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"etc/config.toml": "..data/config.toml", "etc/..data": "../srv/now", "srv/now": dir + "/srv/v1", "srv/v1/config.toml": "../deep/er/file",
		"etc/loop": "loop", "etc/up": "../srv/deep/../v1"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"etc/plain.toml":      "etc/plain.toml",
		"etc/config.toml":     "etc/config.toml etc/..data srv/now srv/v1/config.toml srv/deep/er/file",
		"srv/now/config.toml": "srv/now srv/v1/config.toml srv/deep/er/file",
		"etc/up/other":        "etc/up srv/v1/other",
		"etc/none/at/all":     "etc/none etc/none/at etc/none/at/all",
	} {
		if got := strings.ReplaceAll(strings.Join(way(filepath.Join(dir, path)), " "), dir+"/", ""); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if n := len(way(filepath.Join(dir, "etc/loop"))); n > 50 {
		t.Errorf("a link to itself has a way of %d", n)
	}
}
