//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"autocertd/internal/testbed"
)

// badDay is a CA that may answer 503 to everything.
type badDay struct {
	Now   atomic.Bool
	asked atomic.Int32
}

func (b *badDay) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		if b.Now.Load() {
			http.Error(w, "closed for today", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// addCA gives the site a second CA, called two, which is asked when the first one fails.
func (s *site) addCA(t *testing.T, cfg testbed.CAConfig) *testbed.CA {
	t.Helper()
	cfg.DNS = s.bind.Addr()
	ca, err := testbed.StartCA(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	root, err := ca.IssuerRootPEM()
	if err != nil {
		t.Fatal(err)
	}
	s.root.AppendCertsFromPEM(root)
	s.writeFile(t, "two.pem", string(ca.TLSRootsPEM()))
	s.tables += fmt.Sprintf("[defaults]\nca = [\"test\", \"two\"]\n[ca.two]\ndirectory = %q\naccept_terms = true\nroots = [\"two.pem\"]\n", ca.Directory())
	return ca
}

// TestSecondCA: while the first CA answers 503 to everything, all certificates come from the second within the same pass.
// The next renewal asks the first again.
func TestSecondCA(t *testing.T) {
	t.Parallel()
	first := &badDay{}
	s := newSite(t, siteConfig{ca: testbed.CAConfig{Wrap: first.wrap}})
	second := s.addCA(t, testbed.CAConfig{})
	s.hostnames = hosts(20)
	first.Now.Store(true)
	d := s.start(t)
	s.deployed(t, s.hostnames...)
	d.tells(t, "a CA failed; trying the next", "ca=test", "HTTP 503")
	if strings.Contains(d.says(t), "certificate not issued") {
		t.Error("a certificate had to wait for another pass")
	}
	for _, name := range s.hostnames {
		if c := s.about(t, name); c.Leaf.CA != "two" || c.Issue.Failures != 0 {
			t.Errorf("%s is from CA %s after %d failures", name, c.Leaf.CA, c.Issue.Failures)
		}
	}
	if asked := first.asked.Load(); asked == 0 || asked > int32(len(s.hostnames)/2) { // one request each without a back-off
		t.Errorf("the first CA was asked %d times for %d certificates", asked, len(s.hostnames))
	}

	name := s.hostnames[0]
	s.renewed(t, "--force", name) // the bad day goes on
	if c := s.about(t, name); c.Leaf.CA != "two" {
		t.Errorf("during the bad day the renewal is from CA %s", c.Leaf.CA)
	}
	orders := second.NewOrders()
	first.Now.Store(false)
	s.renewed(t, "--force", name)
	if c := s.about(t, name); c.Leaf.CA != "test" || second.NewOrders() != orders {
		t.Errorf("after the bad day the renewal is from CA %s", c.Leaf.CA)
	}
	d.stop(t)
	s.deployed(t, s.hostnames...)
	s.clean(t, zone)
}

// TestDryRun rehearses beside certificates that are there, and for one that isn't.
func TestDryRun(t *testing.T) {
	t.Parallel()
	real := &badDay{}
	s := newSite(t, siteConfig{ca: testbed.CAConfig{Wrap: real.wrap}})
	staging, err := testbed.StartCA(testbed.CAConfig{DNS: s.bind.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = staging.Close() })
	s.hostnames = hosts(1)
	s.write(t)
	s.renewed(t)
	s.clean(t, zone)
	if r := s.command(t, "renew", "--dry-run"); r.status != exitUsage || !strings.Contains(r.stderr, "below [ca.test]:\nstaging = ") {
		t.Errorf("without a staging directory it ends with %d:\n%s", r.status, r.stderr)
	}

	s.writeFile(t, "ca.pem", string(s.ca.TLSRootsPEM())+string(staging.TLSRootsPEM()))
	s.providers = append([]string{fmt.Sprintf("staging = %q\n", staging.Directory())}, s.providers...)
	s.hostnames = hosts(2)
	s.write(t)
	asked, before := real.asked.Load(), s.tree(t)
	for pass := range 2 {
		s.renewed(t, "--dry-run")
		if n := staging.NewOrders(); n != 2*(pass+1) {
			t.Errorf("pass %d: %d orders at the staging directory", pass, n)
		}
	}
	if n := staging.Requests()["newAccount"]; n != 1 {
		t.Errorf("%d accounts were registered at the staging directory", n)
	}
	if now := real.asked.Load(); now != asked {
		t.Errorf("the CA itself was asked %d times", now-asked)
	}
	if after := s.tree(t); !slices.Equal(after, before) {
		t.Errorf("it left something: %q, then %q", before, after)
	}
	s.clean(t, zone)

	if err := staging.Close(); err != nil {
		t.Fatal(err)
	}
	if r := s.command(t, "renew", "--dry-run", s.hostnames[0]); r.status != exitFailed || !strings.Contains(r.stderr, "rehearsal failed") {
		t.Errorf("without its CA it ends with %d:\n%s", r.status, r.stderr)
	}
}

// tree lists the files of the state directory, with their content, but for accounts and locks.
func (s *site) tree(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir(s.path("state"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(path, "/accounts/") || strings.Contains(path, "/locks/") {
			return err
		}
		text, err := os.ReadFile(path)
		list = append(list, fmt.Sprintf("%s %x", strings.TrimPrefix(path, s.dir), sha256.Sum256(text)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
