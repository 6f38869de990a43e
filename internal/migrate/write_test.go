package migrate

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/internal/store/storetest"
)

// TestWrite saves a real tree, again, and a different one over it.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	store, err := files.Open(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	first := legoTree(t, nil)
	other := legoTree(t, func(dir string) { // the same names from another account
		key := read(t, "testdata/dehydrated/certs/star/privkey.pem")
		write(t, filepath.Join(dir, "accounts/ca.example.test/ssl@example.test/keys/ssl@example.test.key"), key)
		for _, name := range []string{"lego.example.test", "_.lego2.example.test"} {
			write(t, filepath.Join(dir, "certificates", name+".key"), key)
			write(t, filepath.Join(dir, "certificates", name+".crt"), read(t, "testdata/dehydrated/certs/star/fullchain.pem"))
		}
	})
	steps := []struct {
		name          string
		tree          *Tree
		dry, force    bool
		changed, kept bool
	}{
		{name: "looked at only", tree: first, dry: true, changed: true},
		{name: "the first time", tree: first, changed: true},
		{name: "again", tree: first},
		{name: "again, by force", tree: first, force: true},
		{name: "another", tree: other, kept: true},
		{name: "another, looked at only, by force", tree: other, dry: true, force: true, changed: true},
		{name: "the first is still there", tree: first},
		{name: "another, by force", tree: other, force: true, changed: true},
		{name: "the first is gone", tree: first, kept: true},
	}
	for _, step := range steps {
		var results []Result
		if step.dry {
			results = step.tree.Write(t.Context(), DryRun{files.View(dir)}, step.force)
		} else {
			results = step.tree.Write(t.Context(), store, step.force)
		}
		if len(results) != 3 {
			t.Fatalf("%s: %d results", step.name, len(results))
		}
		for _, r := range results {
			if kept := errors.Is(r.Err, fs.ErrExist); r.Changed != step.changed || kept != step.kept || r.Err != nil && !kept {
				t.Errorf("%s: %s: changed %t, error %v", step.name, r.What, r.Changed, r.Err)
			}
		}
	}
	objects, err := store.List(t.Context(), "bundles")
	if err != nil || strings.Join(objects, " ") != "bundles/_.lego2.example.test.json bundles/lego.example.test.json" {
		t.Errorf("bundles %q (%v)", objects, err)
	}
}

func legoTree(t *testing.T, spoil func(dir string)) *Tree {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/lego")); err != nil {
		t.Fatal(err)
	}
	if spoil != nil {
		spoil(dir)
	}
	tree, err := Read("lego", dir, Options{Directories: []string{testDirectory}})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestWriteLocked leaves a certificate alone that another process works on.
func TestWriteLocked(t *testing.T) {
	dir, err := files.Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := dir.Try(t.Context(), "certificate-lego.example.test")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	for _, r := range legoTree(t, nil).Write(t.Context(), dir, true) {
		var held *store.HeldError
		if locked := strings.Contains(r.What, "certificate lego.example.test"); errors.As(r.Err, &held) != locked {
			t.Errorf("%s: %v", r.What, r.Err)
		}
	}
}

// crashing is a storage that dies at a save.
type crashing struct {
	*files.Store
	left int // saves before that
}

func (c *crashing) Acquire(ctx context.Context, name string) (store.Lease, error) {
	return c.leased(c.Store.Acquire(ctx, name))
}

func (c *crashing) Try(ctx context.Context, name string) (store.Lease, error) {
	return c.leased(c.Store.Try(ctx, name))
}

func (c *crashing) leased(lease store.Lease, err error) (store.Lease, error) {
	return storetest.Hooked{Lease: lease, Write: func(_, _ string, write func() error) error {
		if c.left--; c.left < 0 {
			return errors.New("the process died")
		}
		return write()
	}}, err
}

// TestWriteCrash dies at each save of an import over another account. What is left must never be a key beside the
// URL of the other's account, and the next import finishes it.
func TestWriteCrash(t *testing.T) {
	first := legoTree(t, nil)
	other := legoTree(t, func(dir string) {
		write(t, filepath.Join(dir, "accounts/ca.example.test/ssl@example.test/keys/ssl@example.test.key"), read(t, "testdata/dehydrated/certs/star/privkey.pem"))
		account := filepath.Join(dir, "accounts/ca.example.test/ssl@example.test/account.json")
		write(t, account, strings.ReplaceAll(read(t, account), "28c5a2a97b09ada1", "other"))
	})
	for saves := range 3 {
		dir := t.TempDir()
		store, err := files.Open(dir, "test")
		if err != nil {
			t.Fatal(err)
		}
		first.Write(t.Context(), store, false)
		before := accountOf(t, dir)
		other.Write(t.Context(), &crashing{store, saves}, true)
		left := accountOf(t, dir)
		url, old := strings.Contains(left.json, "/my-account/"), left.json == before.json
		if fits := old == (left.key == before.key); url && !fits {
			t.Errorf("after %d saves the key stands beside another's URL: %s", saves, left.json)
		}
		results := other.Write(t.Context(), store, true)
		if results[0].Err != nil || !strings.Contains(accountOf(t, dir).json, "my-account/other") {
			t.Errorf("after %d saves the next import ends with %v", saves, results[0].Err)
		}
	}
}

type savedFiles struct{ json, key string }

func accountOf(t *testing.T, dir string) savedFiles {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(dir, "accounts", "*"))
	if err != nil || len(folders) != 1 {
		t.Fatal(folders, err)
	}
	return savedFiles{read(t, filepath.Join(folders[0], "account.json")), read(t, filepath.Join(folders[0], "key.pem"))}
}

// TestBundle makes bundles that a service can use, whatever the form of the client's key.
func TestBundle(t *testing.T) {
	for client, dir := range map[string]string{"certbot": "testdata/certbot", "lego": "testdata/lego", "dehydrated": "testdata/dehydrated"} {
		tree, err := Read(client, dir, Options{Directories: []string{testDirectory}})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range tree.Certificates {
			b, err := c.bundle()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tls.X509KeyPair([]byte(b.Leaf+b.Chain), []byte(b.Key)); err != nil {
				t.Errorf("%s: %s: %v", client, c.Name, err)
			}
			if !strings.HasPrefix(b.Key, "-----BEGIN PRIVATE KEY-----") || b.Account != c.Account.URL || !b.Issued.Equal(c.Leaf().NotBefore) {
				t.Errorf("%s: %s: bundle of account %s, issued %s", client, c.Name, b.Account, b.Issued)
			}
		}
	}
}
