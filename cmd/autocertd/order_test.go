//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"autocertd/internal/testbed"
)

// holder stands before a CA and can hold one reply back: the request has had its effect, and nobody hears of it.
type holder struct {
	mu        sync.Mutex
	next      http.Handler
	countdown int         // requests until one is held; 0 holds none
	held      chan string // gets the path of the one that is
	finalized map[string]bool
}

func (h *holder) wrap(next http.Handler) http.Handler {
	h.next = next
	return h
}

// arm makes the holder hold the nth reply from now.
func (h *holder) arm(n int) <-chan string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.countdown, h.held = n, make(chan string, 1)
	return h.held
}

func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := httptest.NewRecorder()
	h.next.ServeHTTP(reply, r)
	if h.holds(r.URL.Path, reply.Code) {
		<-r.Context().Done() // whoever waits for it is killed
		return
	}
	for name, values := range reply.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(reply.Code)
	_, _ = w.Write(reply.Body.Bytes())
}

func (h *holder) holds(path string, code int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if strings.Contains(path, "/finalize-order/") && code == http.StatusOK {
		h.finalized[path] = true
	}
	if h.countdown--; h.countdown != 0 {
		return false
	}
	h.held <- path
	return true
}

// walk is one certificate on its way, step by step, without a configuration.
type walk struct {
	bind  *testbed.BIND
	ca    *testbed.CA
	hold  *holder
	dir   string
	name  string
	state string
}

// steps are all of them in order; publish is the person who edits the zone.
func steps() []string {
	return []string{"new", "records", "publish", "check", "validate", "finish"}
}

func (w *walk) command(ctx context.Context, step string) *exec.Cmd {
	args := []string{"order", step, w.name, "--directory", w.ca.Directory(), "--roots", filepath.Join(w.dir, "ca.pem"), "--state-dir", w.state}
	for _, server := range w.bind.Servers() {
		args = append(args, "--nameserver", server)
	}
	switch step {
	case "new":
		args = append(args, "--accept-terms")
	case "records":
		args = append(args, "--format", formatNSUpdate)
	case "check":
		args = append(args, "--wait")
	case "finish":
		args = append(args, "--dir", w.state)
	}
	cmd := exec.CommandContext(ctx, "autocertd", args...)
	cmd.SysProcAttr = dieWithTests()
	return cmd
}

// do takes one step to its end.
func (w *walk) do(t *testing.T, step string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if step == "publish" {
		if out, err := nsupdate(ctx, w.bind, w.do(t, "records")); err != nil {
			t.Fatalf("nsupdate: %v: %s", err, out)
		}
		return ""
	}
	var stdout, stderr bytes.Buffer
	cmd := w.command(ctx, step)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("order %s: %v\n%s%s", step, err, &stdout, &stderr)
	}
	return stdout.String()
}

// kill begins a step and kills it while it waits for the nth reply, whose path it returns; "" when it came to its end
// before that.
func (w *walk) kill(t *testing.T, step string, n int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	held := w.hold.arm(n)
	cmd := w.command(ctx, step)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case path := <-held:
		_ = cmd.Process.Kill()
		<-ended
		return path
	case err := <-ended:
		if err != nil {
			t.Fatalf("order %s: %v", step, err)
		}
		w.hold.arm(0)
		return ""
	}
}

// keeps is all that the state directory and the files hold.
func (w *walk) keeps(t *testing.T) map[string]string {
	t.Helper()
	kept := map[string]string{}
	err := filepath.WalkDir(w.state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.Contains(path, "/locks/") {
			return err
		}
		data, err := os.ReadFile(path)
		kept[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// TestStepsKilled kills each step after each of its requests, when the CA has done what it was asked for and the step
// hasn't heard of it. Then the step is repeated, twice, and the walk goes on.
func TestStepsKilled(t *testing.T) {
	t.Parallel()
	bind, err := testbed.StartBIND(t.Context(), testbed.BINDConfig{Dir: t.TempDir(), Secondaries: []testbed.Secondary{{}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bind.Close() })
	for _, step := range steps() {
		if step == "publish" {
			continue
		}
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			hold := &holder{finalized: map[string]bool{}}
			ca, err := testbed.StartCA(testbed.CAConfig{DNS: bind.Addr(), Wrap: hold.wrap})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ca.Close() })
			var paths []string
			for n := 1; ; n++ {
				w := &walk{bind: bind, ca: ca, hold: hold, dir: t.TempDir(), name: fmt.Sprintf("%s%d.example.test", step, n)}
				w.state = filepath.Join(w.dir, "state")
				path := w.killedAt(t, step, n)
				if path == "" {
					break
				}
				paths = append(paths, strings.Split(path, "/")[1])
			}
			t.Logf("killed after each of %v", paths)
			if len(paths) < 3 {
				t.Errorf("only %d requests: the table is empty", len(paths))
			}
		})
	}
}

// killedAt walks the whole way, with one step killed at its nth request.
func (w *walk) killedAt(t *testing.T, step string, n int) (path string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "ca.pem"), w.ca.TLSRootsPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	orders, certificates := w.ca.NewOrders(), len(w.hold.finalized)
	most := 1
	for _, s := range steps() {
		if s == step {
			if path = w.kill(t, step, n); path == "" {
				return ""
			}
			if strings.Contains(path, "order-plz") {
				most++ // nobody learnt of it
			}
		}
		w.do(t, s)
		if s == step {
			before := w.keeps(t)
			w.do(t, s)
			if after := w.keeps(t); !sameFiles(before, after) {
				t.Errorf("killed after %s, repeated and repeated once more, the step changed the state directory", path)
			}
		}
	}
	if made := w.ca.NewOrders() - orders; made > most {
		t.Errorf("killed after %s: %d orders, want at most %d", path, made, most)
	}
	if made := len(w.hold.finalized) - certificates; made != 1 {
		t.Errorf("killed after %s: %d certificates", path, made)
	}
	root, err := w.ca.IssuerRootPEM()
	var leaf *x509.Certificate
	if err == nil {
		leaf, err = handPair(w.state, w.name, root)
	}
	if err == nil {
		err = leaf.VerifyHostname(w.name)
	}
	if err != nil {
		t.Errorf("killed after %s: %v", path, err)
	}
	return path
}

func sameFiles(a, b map[string]string) bool {
	same := len(a) == len(b)
	for path, text := range a {
		same = same && b[path] == text
	}
	return same
}

// TestManualProvider lets a person be the provider: the daemon waits for the record without bothering the CA, is killed
// meanwhile, and goes on by itself when the record is there.
func TestManualProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{Secondaries: []testbed.Secondary{{}}}})
	s.hostnames = hosts(1)
	name := s.hostnames[0]
	s.providers = []string{"[provider.people]\ntype = \"manual\"\n" + nameservers(s.bind.Servers()...) + "\n"}
	s.tables = fmt.Sprintf("[resolvers]\npublic = [%q]\n", s.bind.Addr())
	d := s.start(t)
	d.tells(t, "a person must add this TXT record", name, "_acme-challenge."+name+". 300 IN TXT ")
	var asked []string
	eventually(t, func() error {
		if asked = s.about(t, name).ByHand; len(asked) != 1 {
			return fmt.Errorf("status asks for the records %q", asked)
		}
		return nil
	})
	if status := s.about(t, name); status.Condition != "waits for a record" || status.Issue.Failures != 0 {
		t.Errorf("the status is %+v", status)
	}
	requests := total(s.ca)
	s.looks(t, name, 3)
	if after := total(s.ca); after != requests {
		t.Errorf("while it waits it asked the CA %d times", after-requests)
	}
	if told := strings.Count(d.says(t), "a person must add"); told != 1 {
		t.Errorf("it told %d times", told)
	}
	if r := s.command(t, "order", "records", name); strings.ReplaceAll(r.stdout, "\"", "") != strings.ReplaceAll(asked[0], " ", "\t")+"\n" {
		t.Errorf("order records shows %q, and the daemon waits for %q", r.stdout, asked[0])
	}
	if r := s.command(t, "order", "check", name); r.status != exitFailed || strings.Count(r.stdout, "has no such name (NXDOMAIN)") != 2 {
		t.Errorf("order check ends with %d: %s", r.status, r.stdout)
	}
	d.kill(t)
	d = s.startAgain(t)
	s.looks(t, name, 2)
	if again := s.about(t, name).ByHand; !slices.Equal(again, asked) {
		t.Errorf("after a restart it asks for %q, before for %q", again, asked)
	}
	if out, err := nsupdate(t.Context(), s.bind, "update add "+asked[0]+"\nsend\n"); err != nil {
		t.Fatalf("nsupdate: %v: %s", err, out)
	}
	s.deployed(t, name)
	d.tells(t, "a person may remove this TXT record", asked[0])
	if n := s.ca.NewOrders(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	eventually(t, func() error {
		if status := s.about(t, name); status.Condition != "valid" || len(status.ByHand) > 0 {
			return fmt.Errorf("the status is %+v", status)
		}
		return nil
	})
	d.stop(t)
	s.clean(t, zone, asked[0][:strings.Index(asked[0], ". ")]+" "+asked[0][strings.LastIndex(asked[0], " ")+1:]) // what a person wrote is theirs
}

// looks waits until the daemon has looked at the certificate n more times.
func (s *site) looks(t *testing.T, name string, n int) {
	t.Helper()
	path := s.path("state", "states", name+".json")
	seen := map[fs.FileInfo]bool{}
	var last fs.FileInfo
	eventually(t, func() error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if last == nil || !os.SameFile(info, last) {
			last = info
			seen[info] = true
		}
		if len(seen) <= n {
			return errors.New("the daemon doesn't look")
		}
		return nil
	})
}

func total(ca *testbed.CA) (n int) {
	for _, count := range ca.Requests() {
		n += count
	}
	return n
}
