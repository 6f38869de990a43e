package deploy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

const host = "www.example.test"

// formats are all formats, each with the file that holds its key.
func formats(dir string) map[string]struct {
	out Output
	key string
} {
	type row = struct {
		out Output
		key string
	}
	reload := []string{"nginx.service"}
	return map[string]row{
		FormatPEM:      {Output{Dir: dir, Reload: reload}, "privkey.pem"},
		FormatCombined: {Output{Dir: dir, Format: FormatCombined, File: "{name}.bundle", Reload: reload}, host + ".bundle"},
	}
}

// TestFormats holds every format to the same promises.
func TestFormats(t *testing.T) {
	// Each row disturbs what stands there. key is the path of the key as services know it.
	disturbances := []struct {
		name    string
		disturb func(key string) error
		only    string // format
	}{
		{name: "nothing there", disturb: func(key string) error { return os.RemoveAll(filepath.Dir(key)) }},
		{name: "a parent missing", disturb: func(key string) error { return os.RemoveAll(filepath.Dir(filepath.Dir(key))) }},
		{name: "content changed, same length", disturb: func(key string) error {
			data, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			data[40] ^= 1
			return os.WriteFile(key, data, 0)
		}},
		{name: "content cut", disturb: func(key string) error { return os.Truncate(key, 10) }},
		{name: "file removed", disturb: os.Remove},
		{name: "mode widened", disturb: func(key string) error { return os.Chmod(key, 0o666) }},
		{name: "mode taken away", disturb: func(key string) error { return os.Chmod(key, 0) }},
		{name: "replaced by a regular file", disturb: func(key string) error {
			if err := os.Remove(key); err != nil {
				return err
			}
			return os.WriteFile(key, []byte("mine"), 0o600)
		}},
		{name: "replaced by a link elsewhere", disturb: func(key string) error {
			if err := os.Remove(key); err != nil {
				return err
			}
			return os.Symlink("/dev/null", key)
		}},
		{name: "current leads elsewhere", only: FormatPEM, disturb: func(key string) error {
			link := filepath.Join(filepath.Dir(key), ".current")
			if err := os.Remove(link); err != nil {
				return err
			}
			return os.Symlink("somewhere", link)
		}},
		{name: "version folder removed", only: FormatPEM, disturb: func(key string) error {
			real, err := filepath.EvalSymlinks(key)
			if err != nil {
				return err
			}
			return os.RemoveAll(filepath.Dir(real))
		}},
		{name: "version folder closed", only: FormatPEM, disturb: func(key string) error {
			real, err := filepath.EvalSymlinks(key)
			if err != nil {
				return err
			}
			return os.Chmod(filepath.Dir(real), 0o700)
		}},
	}
	bundle := newBundle(t, host)
	for format := range formats("") {
		for _, row := range disturbances {
			if row.only != "" && row.only != format {
				continue
			}
			t.Run(format+"/"+row.name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "parent", "certs")
				f := formats(dir)[format]
				runner := &counter{}
				d := New(Config{Run: runner})

				st := apply(t, d, bundle, f.out, nil).State
				wantDeployed(t, f.out, bundle)
				runner.taken()

				if err := row.disturb(filepath.Join(dir, f.key)); err != nil {
					t.Fatal(err)
				}
				res := apply(t, d, bundle, f.out, st)
				wantDeployed(t, f.out, bundle)
				wantClean(t, dir)
				if !slices.Contains(res.Changed, filepath.Join(dir, f.key)) {
					t.Errorf("changed: %q, want %s among them", res.Changed, f.key)
				}
				if got := runner.taken(); !slices.Equal(got, []string{"systemctl try-reload-or-restart nginx.service"}) {
					t.Errorf("ran %q, want one reload", got)
				}
				if !slices.Equal(res.Reloaded, []string{"nginx.service"}) {
					t.Errorf("reloaded %q", res.Reloaded)
				}

				before := snapshot(t, dir)
				res = apply(t, d, bundle, f.out, res.State)
				wantUntouched(t, dir, before)
				if got := runner.taken(); len(got)+len(res.Changed)+len(res.Reloaded) > 0 {
					t.Errorf("nothing differed, but ran %q and got %+v", got, res)
				}
			})
		}
	}
}

// TestRenewals deploys one bundle after the other beside files of others.
func TestRenewals(t *testing.T) {
	for format := range formats("") {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			foreign := []string{".autocertd-notours", ".autocertd-0123456789ab-x", ".autocertd-0123456789abc", "README", "folder"}
			for _, name := range foreign {
				if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			mine := []byte("made by a person")
			if err := os.WriteFile(filepath.Join(dir, ".autocertd-0123456789ab"), mine, 0o600); err != nil {
				t.Fatal(err)
			}
			f := formats(dir)[format]
			d := New(Config{Run: &counter{}})
			var st State
			for range 4 {
				b := newBundle(t, host)
				st = apply(t, d, b, f.out, st).State
				wantDeployed(t, f.out, b)
			}
			for _, name := range foreign {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
			if got, err := os.ReadFile(filepath.Join(dir, ".autocertd-0123456789ab")); string(got) != string(mine) {
				t.Errorf("a foreign file holds %q (%v)", got, err)
			}
			if n, want := versions(t, dir)-3, map[string]int{FormatPEM: 2}[format]; n != want {
				t.Errorf("%d versions, want %d", n, want)
			}
		})
	}
}

// TestBack deploys a bundle, another, and the first again, whose folder is still there for its readers.
func TestBack(t *testing.T) {
	o := Output{Dir: t.TempDir()}
	d := New(Config{})
	a, b := newBundle(t, host), newBundle(t, host)
	for _, b := range []Bundle{a, b, a, b} {
		apply(t, d, b, o, nil)
		wantDeployed(t, o, b)
		wantClean(t, o.Dir)
	}
}

// TestAlwaysAPair reads a key and a certificate again and again while they are being replaced.
func TestAlwaysAPair(t *testing.T) {
	o := Output{Dir: t.TempDir()}
	c := Output{Dir: o.Dir, Format: FormatCombined, File: "all.pem"}
	bundles := []Bundle{newBundle(t, host), newBundle(t, host), newBundle(t, host)}
	d := New(Config{})
	apply(t, d, bundles[0], o, nil)
	apply(t, d, bundles[0], c, nil)

	stop := make(chan struct{})
	var readers sync.WaitGroup
	var reads atomic.Int64
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			folder, err := os.OpenRoot(filepath.Join(o.Dir, ".current")) // resolves the link once
			if errors.Is(err, fs.ErrNotExist) {                          // slower than two switches; the link itself is always there
				if _, err = os.Readlink(filepath.Join(o.Dir, ".current")); err == nil {
					continue
				}
			}
			if err != nil {
				t.Error(err)
				return
			}
			chain, err1 := folder.ReadFile("fullchain.pem")
			key, err2 := folder.ReadFile("privkey.pem")
			folder.Close()
			switch err := errors.Join(err1, err2); {
			case err == nil:
				reads.Add(1)
				if _, err := tls.X509KeyPair(chain, key); err != nil {
					t.Errorf("not a pair: %v", err)
				}
			case !errors.Is(err, fs.ErrNotExist): // slower than two switches
				t.Error(err)
			}
			both, err := os.ReadFile(filepath.Join(o.Dir, "all.pem"))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := tls.X509KeyPair(both, both); err != nil {
				t.Errorf("combined: not a pair: %v", err)
			}
		}
	})
	for i := 0; i < 200 || reads.Load() < 20; i++ {
		apply(t, d, bundles[(i+1)%3], o, nil)
		apply(t, d, bundles[(i+1)%3], c, nil)
	}
	close(stop)
	readers.Wait()
}

// TestOrder changes the place of the key in a combined file: the file is written again, and its service is reloaded.
func TestOrder(t *testing.T) {
	b := newBundle(t, host)
	runner := &counter{}
	d := New(Config{Run: runner})
	o := formats(t.TempDir())[FormatCombined].out
	st := apply(t, d, b, o, nil).State
	o.KeyFirst = true
	if res := apply(t, d, b, o, st); len(res.Changed) != 1 || len(res.Reloaded) != 1 {
		t.Errorf("changed %q, reloaded %q", res.Changed, res.Reloaded)
	}
	got, err := os.ReadFile(o.ID(host))
	if err != nil || !bytes.Equal(got, slices.Concat(b.Key, b.Leaf, b.Chain)) {
		t.Errorf("the file (%v) isn't key, leaf, chain:\n%s", err, got)
	}
	if _, err := tls.X509KeyPair(got, got); err != nil {
		t.Error(err)
	}
}
