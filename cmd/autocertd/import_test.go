//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"autocertd/internal/testbed"
)

// TestImportRealClients has each of the other clients get certificates, and takes them over. The next renewal must come
// from the client's own account, and name the certificate that it replaces.
func TestImportRealClients(t *testing.T) {
	t.Parallel()
	orders := &orderLog{}
	s := newSite(t, siteConfig{ca: testbed.CAConfig{Wrap: orders.wrap}})
	s.writeHook(t)
	tests := []struct {
		client string
		run    func(t *testing.T, s *site, dir string)
		files  map[string]string // by the certificate's name, what the client made
		live   string            // where services read all files, if they have the names of ours
	}{
		{"certbot", runCertbot, map[string]string{"one-certbot.example.test": "live/one-certbot.example.test/cert.pem", "two": "live/two/cert.pem"}, "live/{name}"},
		{"lego", runLego, map[string]string{"one-lego.example.test": "certificates/one-lego.example.test.crt"}, ""},
		{"dehydrated", runDehydrated, map[string]string{"one-dehydrated.example.test": "certs/one-dehydrated.example.test/cert.pem", "two": "certs/two/cert.pem"}, "certs/{name}"},
	}
	for _, tt := range tests {
		t.Run(tt.client, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(tt.client); err != nil {
				t.Skipf("needs the program: apt-get install %s", tt.client)
			}
			tree := filepath.Join(t.TempDir(), tt.client)
			if err := os.Mkdir(tree, 0o700); err != nil {
				t.Fatal(err)
			}
			tt.run(t, s, tree)
			before := map[string]*x509.Certificate{}
			for name, file := range tt.files {
				before[name] = firstCertificate(t, filepath.Join(tree, file))
			}
			mine := s.movedIn(t, tt.client, tree)
			mine.sameAs(t, before)
			mine.renewedAs(t, orders, accountURL(t, tree), before)
			if tt.live != "" {
				mine.inPlace(t, filepath.Join(tree, tt.live), before)
			}
		})
	}
}

// movedIn imports a tree into a state directory of its own, and makes what was printed a part of the configuration.
func (s *site) movedIn(t *testing.T, client, tree string) *site {
	t.Helper()
	mine := &site{bind: s.bind, ca: s.ca, root: s.root, dir: t.TempDir()}
	mine.writeFile(t, "config.toml", fmt.Sprintf("state_dir = %q\n%s", mine.path("state"), s.provider("bind")))
	args := []string{"import", client, tree, "--directory", s.ca.Directory()}
	dry := mine.command(t, append(args, "--dry-run")...)
	if _, err := os.Stat(mine.path("state")); err == nil || dry.status != 0 {
		t.Fatalf("import --dry-run ends with %d, and the state directory: %v\n%s", dry.status, err, dry.stderr)
	}
	done := mine.command(t, args...)
	if done.status != 0 || done.stdout != dry.stdout {
		t.Fatalf("import ends with %d:\n%s\n%s\nand said before:\n%s", done.status, done.stderr, done.stdout, dry.stdout)
	}
	again := mine.command(t, args...)
	if again.status != 0 || strings.Contains(again.stderr, "taken over: ") {
		t.Errorf("a second import ends with %d:\n%s", again.status, again.stderr)
	}
	for _, folder := range []string{"accounts", "bundles"} {
		onlyForOwner(t, mine.path("state", folder))
	}
	if err := os.Mkdir(mine.path("conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := done.stdout
	if !strings.Contains(text, "\nroots ") { // what the client doesn't keep
		text = strings.Replace(text, "accept_terms", fmt.Sprintf("roots = [%q]\naccept_terms", s.path("ca.pem")), 1)
	}
	mine.writeFile(t, "conf.d/imported.toml", text)
	return mine
}

// sameAs wants the files of the certificates that the client got, and no others.
func (s *site) sameAs(t *testing.T, want map[string]*x509.Certificate) {
	t.Helper()
	s.renewed(t)
	if n := len(s.objects("bundles")); n != len(want) {
		t.Errorf("%d bundles, want %d", n, len(want))
	}
	for name, leaf := range want {
		if got, err := s.pair(name, slices.Clone(leaf.DNSNames)...); err != nil || !got.Equal(leaf) {
			t.Errorf("%s isn't what the other client got: %v", name, err)
		}
	}
}

// renewedAs renews, and wants the CA to have seen the account and the certificates that are replaced.
func (s *site) renewedAs(t *testing.T, orders *orderLog, account string, old map[string]*x509.Certificate) {
	t.Helper()
	s.renewed(t, "--force")
	for name, leaf := range old {
		if by := orders.replacing(ariID(leaf)); by != account {
			t.Errorf("%s was replaced by account %q, want %q", name, by, account)
		}
		if now, err := s.pair(name, slices.Clone(leaf.DNSNames)...); err != nil || now.Equal(leaf) {
			t.Errorf("%s wasn't renewed: %v", name, err)
		}
	}
}

// inPlace writes the files where services read those of the other client, and wants the renewed ones there.
func (s *site) inPlace(t *testing.T, dir string, old map[string]*x509.Certificate) {
	t.Helper()
	s.writeFile(t, "conf.d/outputs.toml", fmt.Sprintf("[[output]]\nmatch = [\"*\"]\ndir = %q\n", dir))
	s.renewed(t)
	for name, leaf := range old {
		folder := strings.ReplaceAll(dir, "{name}", name)
		pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "fullchain.pem"), filepath.Join(folder, "privkey.pem"))
		if err != nil || pair.Leaf.Equal(leaf) || !firstCertificate(t, filepath.Join(folder, "cert.pem")).Equal(pair.Leaf) {
			t.Errorf("%s holds the old certificate, or files that don't belong together (%v)", folder, err)
		}
	}
}

// orderLog notes which account ordered the replacement of which certificate.
type orderLog struct {
	mu sync.Mutex
	by map[string]string // the account's URL by the ARI identifier
}

func (o *orderLog) replacing(id string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.by[id]
}

func (o *orderLog) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		reply := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(reply, r)
		if reply.status == http.StatusCreated {
			o.note(body)
		}
	})
}

// statusWriter notes the status of a reply.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// note reads a request that made something (RFC 8555 section 6.2); what isn't an order that replaces something is none of its business.
func (o *orderLog) note(body []byte) {
	var request struct{ Protected, Payload string }
	var protected struct{ Kid string }
	var order struct{ Replaces string }
	decode := func(part string, into any) {
		if text, err := base64.RawURLEncoding.DecodeString(part); err == nil {
			_ = json.Unmarshal(text, into)
		}
	}
	if json.Unmarshal(body, &request) == nil {
		decode(request.Protected, &protected)
		decode(request.Payload, &order)
	}
	if order.Replaces == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = map[string]string{}
	}
	o.by[order.Replaces] = protected.Kid
}

// ariID names a certificate to its CA (RFC 9773 section 4.1).
func ariID(cert *x509.Certificate) string {
	serial := cert.SerialNumber.Bytes()
	if serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...)
	}
	return base64.RawURLEncoding.EncodeToString(cert.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial)
}

func firstCertificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// accountURL finds the URL of the one account in a tree, wherever the client keeps it.
func accountURL(t *testing.T, tree string) (url string) {
	t.Helper()
	pattern := regexp.MustCompile(`https://[^"]*/my-account/[0-9a-f]+`)
	err := filepath.WalkDir(filepath.Join(tree, "accounts"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var text []byte
			if text, err = os.ReadFile(path); pattern.Match(text) {
				url = string(pattern.Find(text))
			}
		}
		return err
	})
	if err != nil || url == "" {
		t.Fatalf("no account in %s (%v)", tree, err)
	}
	return url
}

// onlyForOwner wants files in a folder, none of which anybody else can read.
func onlyForOwner(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		files++
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files in %s (%v)", files, dir, err)
	}
}
