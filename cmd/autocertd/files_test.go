//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestFilesComeBack takes files away from a daemon whose schedule looks once a year, and expects them back: with a kernel
// that reports what changes, and with one that has no room for that.
func TestFilesComeBack(t *testing.T) {
	// The limit is that of a user namespace, so that nobody else meets it.
	without := []string{"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_inotify_watches && exec "$@"`, "sh"}
	for how, under := range map[string][]string{"reported": nil, "looked for": without} {
		t.Run(how, func(t *testing.T) {
			if under != nil {
				if out, err := exec.Command(under[0], append(under[1:], "true")...).CombinedOutput(); err != nil {
					t.Skipf("no user namespace: %v: %s", err, out)
				}
			}
			const name = "www." + zone
			s := newSite(t, siteConfig{})
			s.schedule, s.hostnames, s.under = "0 0 1 1 *", []string{name}, under
			p := s.start(t)
			s.deployed(t, name)
			dir := s.path("state", "live", name)
			for _, harm := range []struct {
				name string
				do   func() error
			}{
				{"a file is deleted", func() error { return os.Remove(filepath.Join(dir, "cert.pem")) }},
				{"a key is overwritten", func() error { return os.Truncate(filepath.Join(dir, "privkey.pem"), 3) }},
				{"the folder is moved away", func() error { return os.Rename(dir, dir+".away") }},
			} {
				begin := time.Now()
				if err := harm.do(); err != nil {
					t.Fatal(err)
				}
				eventually(t, func() error {
					for _, file := range []string{"cert.pem", "privkey.pem", "fullchain.pem"} {
						if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Size() < 100 {
							return fmt.Errorf("%s: %s isn't back (%v)", harm.name, file, err)
						}
					}
					return nil
				})
				t.Logf("%s: back after %v", harm.name, time.Since(begin).Round(time.Millisecond))
			}
			s.deployed(t, name)
			if orders := s.ca.NewOrders(); orders != 1 {
				t.Errorf("%d orders", orders)
			}
			p.stop(t)
		})
	}
}
