//go:build linux

package bench_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

const zone = "corp.example.com"

// world is the real BIND, one primary, and Pebble. Both sides share the machine with them, and Pebble's guard lets in one
// request at a time.
type world struct {
	dir  string // for configurations and states
	bind *testbed.BIND
	ca   ca
}

// newWorld starts the servers. dir is where states are written.
func newWorld(b *testing.B, dir string) *world {
	b.Helper()
	w := &world{dir: dir}
	var err error
	if w.bind, err = testbed.StartBIND(b.Context(), testbed.BINDConfig{Dir: dir, Zones: []testbed.BINDZone{{Name: zone}}}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { check(b, w.bind.Close()) })
	w.ca = startCA(b, w.bind.Addr())
	check(b, os.WriteFile(filepath.Join(w.dir, "roots.pem"), w.ca.Roots, 0o600))
	return w
}

// config writes a configuration with a state directory of its own and returns the path.
func (w *world) config(b *testing.B, name string, hostnames []string) string {
	b.Helper()
	return writeConfig(b, filepath.Join(w.dir, name), hostnames, fmt.Sprintf(`
[ca.pebble]
directory    = %q
accept_terms = true
roots        = [%q]

[provider.bind]
type     = "rfc2136"
server   = %q
key_file = %q
`, w.ca.Directory, filepath.Join(w.dir, "roots.pem"), w.bind.Addr(), w.bind.KeyFile("acme-key")))
}

// writeConfig makes a folder with a configuration: hostnames, a state directory in the folder, and the rest.
func writeConfig(b *testing.B, dir string, hostnames []string, rest string) string {
	b.Helper()
	text := fmt.Sprintf("hostnames = [\n\t\"%s\",\n]\nstate_dir = %q\n%s",
		strings.Join(hostnames, "\",\n\t\""), stateDir(dir), rest)
	path := filepath.Join(dir, "config.toml")
	check(b, errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, []byte(text), 0o600)))
	return path
}

func stateDir(dir string) string { return filepath.Join(dir, "state") }

// hosts returns n hostnames of the zone that nothing else uses.
func hosts(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d.%s", prefix, i, zone)
	}
	return names
}

// issued fails the benchmark unless each hostname has its files.
func (w *world) issued(b *testing.B, config string, hostnames []string) {
	b.Helper()
	for _, h := range hostnames {
		if _, err := os.Stat(filepath.Join(stateDir(filepath.Dir(config)), "live", h, "fullchain.pem")); err != nil {
			b.Fatal(err)
		}
	}
}

// clean fails the benchmark when a TXT record is left in the zone.
func (w *world) clean(b *testing.B) {
	b.Helper()
	if left, err := w.bind.TXT(b.Context(), zone); err != nil || len(left) > 0 {
		b.Fatalf("%d TXT records are left (%v)", len(left), err)
	}
}

// updates returns how many update messages reach BIND while f runs.
func (w *world) updates(b *testing.B, f func()) int {
	b.Helper()
	before := w.bind.UpdateMessages()
	f()
	after := w.bind.UpdateMessages()
	if before < 0 || after < 0 {
		b.Fatal("BIND doesn't tell how many update messages it got")
	}
	return after - before
}

// timed returns how long f took.
func timed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
