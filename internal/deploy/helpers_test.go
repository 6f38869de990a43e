package deploy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// newBundle issues a certificate for name from a CA of its own.
func newBundle(t testing.TB, name string) Bundle {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: now, NotAfter: now.Add(time.Hour)}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(0xabc), DNSNames: []string{name}, NotBefore: now, NotAfter: now.Add(time.Hour)}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	sum := sha256.Sum256(leafDER)
	return Bundle{
		Name: name, Hostnames: []string{name, "www." + name},
		Key:      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		Leaf:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}),
		Chain:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		NotAfter: leaf.NotAfter,
		Serial:   "abc", Fingerprint: hex.EncodeToString(sum[:]),
	}
}

// counter is a Runner that counts, and fails the programs or units named in Fail.
type counter struct {
	Fail   map[string]error
	State  map[string]string // what systemd says of units; the others run
	Output string            // of those that fail

	mu   sync.Mutex
	runs [][]string
	envs [][]string
}

func (c *counter) Run(_ context.Context, args, env []string) ([]byte, error) {
	if isShow(args) {
		if state, ok := c.State[args[len(args)-1]]; ok {
			return []byte(state), nil
		}
		return []byte(running), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs = append(c.runs, args)
	c.envs = append(c.envs, env)
	for _, a := range args {
		if err := c.Fail[a]; err != nil {
			return []byte(c.Output), err
		}
	}
	return nil, nil
}

// running is what systemctl show prints of a unit that runs.
const running = "LoadState=loaded\nActiveState=active\n"

func isShow(args []string) bool { return len(args) > 1 && args[0] == "systemctl" && args[1] == "show" }

// taken returns what ran since the last call.
func (c *counter) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, args := range c.runs {
		out = append(out, strings.Join(args, " "))
	}
	c.runs, c.envs = nil, nil
	return out
}

// apply demands success.
func apply(t testing.TB, d *Deployer, b Bundle, o Output, st State) Result {
	t.Helper()
	res, err := d.Apply(t.Context(), b, []Output{o}, st)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if len(res.Pending) > 0 {
		t.Errorf("pending after success: %q", res.Pending)
	}
	return res
}

// finished reports whether all steps of an output are done.
func finished(res Result, o Output) bool {
	done := res.State[o.ID(host)]
	return len(done.Steps) == 1+len(o.Reload)+len(o.Run) && done.Change == ""
}

// wantDeployed demands that the files of the output hold the bundle, by what a service would read.
func wantDeployed(t testing.TB, o Output, b Bundle) {
	t.Helper()
	want := map[string][]byte{}
	dir := o.dir(b.Name)
	if o.Format == FormatCombined {
		want[o.file(b.Name)] = bytes.Join([][]byte{b.Leaf, b.Chain, b.Key}, nil)
	} else {
		want["cert.pem"], want["chain.pem"], want["privkey.pem"] = b.Leaf, b.Chain, b.Key
		want["fullchain.pem"] = bytes.Join([][]byte{b.Leaf, b.Chain}, nil)
	}
	secret := o.Mode
	if secret == 0 {
		secret = 0o600
	}
	for name, data := range want {
		path := filepath.Join(dir, name)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%s holds something else", path)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		mode := fs.FileMode(0o644)
		if bytes.Contains(data, []byte("PRIVATE KEY")) {
			mode = secret
		}
		if fi.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", path, fi.Mode(), mode)
		}
	}
}

// snapshot is everything below dir that a write would change: inode, times, mode, size and targets.
func snapshot(t testing.TB, dir string) map[string]any {
	t.Helper()
	out := map[string]any{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		target, _ := os.Readlink(path)
		out[path] = [...]any{st.Ino, st.Mtim, st.Ctim, st.Mode, st.Size, st.Uid, st.Gid, target}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantUntouched(t testing.TB, dir string, before map[string]any) {
	t.Helper()
	if after := snapshot(t, dir); !maps.Equal(before, after) {
		t.Errorf("something was written:\nbefore %v\nafter  %v", before, after)
	}
}

// versions counts the folders of versions in dir.
func versions(t testing.TB, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), ".autocertd-") {
			n++
		}
	}
	return n
}

// wantClean demands that nothing of ours is left in dir that a finished pass doesn't need.
func wantClean(t testing.TB, dir string) {
	t.Helper()
	for _, pattern := range []string{".*.tmp", "*/.*.tmp", ".*.pending", ".current/.pending"} {
		left, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q (%v)", left, err)
		}
	}
	if n := versions(t, dir); n > 2 {
		t.Errorf("%d versions in %s, want at most 2", n, dir)
	}
}
