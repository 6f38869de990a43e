//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

const (
	zone     = "example.test"
	patience = 2 * time.Minute       // for what should happen soon, on a machine that has much else to do
	glance   = 20 * time.Millisecond // between two looks whether it has
)

// site is where a daemon works: BIND, a CA, and a folder with its configuration and state.
type site struct {
	env   []string // of daemons, beside that of the tests
	under []string // a command that runs daemons; none runs them directly
	bind  *testbed.BIND
	ca    *testbed.CA
	dir   string
	root  *x509.CertPool // what the certificates chain to

	// The configuration. See write.
	hostnames []string
	schedule  string
	top       string   // more lines before the tables
	providers []string // tables
	tables    string   // more tables
}

// siteConfig says which servers a site has.
type siteConfig struct {
	bind      testbed.BINDConfig
	ca        testbed.CAConfig
	validator int // the server of bind that the CA asks
}

// newSite starts the servers. One provider is configured, which looks at all of them.
func newSite(t *testing.T, cfg siteConfig) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), schedule: "@every 1s"}
	var err error
	cfg.bind.Dir = s.dir
	if s.bind, err = testbed.StartBIND(t.Context(), cfg.bind); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.bind.Close() })
	cfg.ca.DNS = s.bind.Servers()[cfg.validator]
	s.startCA(t, cfg.ca)
	s.providers = []string{s.provider("bind")}
	return s
}

// startCA starts the CA and writes the file of the roots that the daemon trusts to talk to it.
func (s *site) startCA(t *testing.T, cfg testbed.CAConfig) {
	t.Helper()
	var err error
	if s.ca, err = testbed.StartCA(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ca.Close() })
	pem, err := s.ca.IssuerRootPEM()
	if err != nil {
		t.Fatal(err)
	}
	s.root = x509.NewCertPool()
	s.root.AppendCertsFromPEM(pem)
	s.writeFile(t, "ca.pem", string(s.ca.TLSRootsPEM()))
}

// provider returns the table of a provider that updates the primary and looks at all servers; lines are further keys.
func (s *site) provider(name string, lines ...string) string {
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "nameservers") }) {
		lines = append(lines, nameservers(s.bind.Servers()...))
	}
	return fmt.Sprintf("[provider.%s]\ntype = \"rfc2136\"\nserver = %q\nkey_file = %q\n%s\n",
		name, s.bind.Addr(), s.bind.KeyFile("acme-key"), strings.Join(lines, "\n"))
}

func nameservers(addrs ...string) string { return fmt.Sprintf("nameservers = [%s]", quoted(addrs)) }

func quoted(list []string) string {
	var b strings.Builder
	for _, text := range list {
		fmt.Fprintf(&b, "%q, ", text)
	}
	return b.String()
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *site) config() string { return s.path("config.toml") }

// text is the main file of the configuration.
func (s *site) text() string {
	return fmt.Sprintf("hostnames = [%s]\nstate_dir = %q\nschedule = %q\n%s\n[ca.test]\ndirectory = %q\naccept_terms = true\nroots = [\"ca.pem\"]\n%s%s",
		quoted(s.hostnames), s.path("state"), s.schedule, s.top, s.ca.Directory(), strings.Join(s.providers, ""), s.tables)
}

// write writes the main file in place.
func (s *site) write(t *testing.T) {
	t.Helper()
	s.writeFile(t, "config.toml", s.text())
}

func (s *site) writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pair reads the files of a certificate as a careful service does: it resolves .current once, so that all are of one
// version. It fails unless key and chain belong together, lead to the CA's root, are for the hostnames (for the name
// itself, if none is given), and have not expired.
func (s *site) pair(name string, hostnames ...string) (*x509.Certificate, error) {
	live := s.path("state", "live", name)
	version, err := os.Readlink(filepath.Join(live, ".current"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, file := range []string{"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"} {
		if _, err := os.Stat(filepath.Join(live, file)); err != nil { // the name that services use
			return nil, err
		}
		if files[file], err = os.ReadFile(filepath.Join(live, version, file)); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(files["fullchain.pem"], files["privkey.pem"])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if !bytes.Equal(files["fullchain.pem"], slices.Concat(files["cert.pem"], files["chain.pem"])) {
		return nil, fmt.Errorf("%s: fullchain.pem is not cert.pem and chain.pem", name)
	}
	chain := x509.NewCertPool()
	chain.AppendCertsFromPEM(files["chain.pem"])
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: s.root, Intermediates: chain}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(hostnames) == 0 {
		hostnames = []string{name}
	}
	slices.Sort(hostnames)
	if have := slices.Sorted(slices.Values(pair.Leaf.DNSNames)); !slices.Equal(have, hostnames) {
		return nil, fmt.Errorf("%s: is for %v instead of %v", name, have, hostnames)
	}
	return pair.Leaf, nil
}

// pairs reports the first certificate of the names that isn't as pair wants it.
func (s *site) pairs(names ...string) error {
	for _, name := range names {
		if _, err := s.pair(name); err != nil {
			return err
		}
	}
	return nil
}

// deployed waits until the names have their certificates.
func (s *site) deployed(t *testing.T, names ...string) {
	t.Helper()
	eventually(t, func() error { return s.pairs(names...) })
}

// clean waits until the primary has no TXT record but those given, as "name value".
func (s *site) clean(t *testing.T, zone string, others ...string) {
	t.Helper()
	eventually(t, func() error {
		values, err := s.bind.TXT(t.Context(), zone)
		if err != nil {
			return err
		}
		var left []string
		for name, list := range values {
			for _, value := range list {
				left = append(left, name+" "+value)
			}
		}
		slices.Sort(left)
		if !slices.Equal(left, others) {
			return fmt.Errorf("zone %s has the TXT records %q instead of %q", zone, left, others)
		}
		return nil
	})
}

// objects lists the names of the objects in a folder of the state directory, without ".json".
func (s *site) objects(folder ...string) []string {
	entries, err := os.ReadDir(s.path(append([]string{"state"}, folder...)...))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err) // a folder of our own that can't be read
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names
}

// hosts returns n hostnames of the zone.
func hosts(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("h%03d.%s", i, zone)
	}
	return names
}

// eventually looks until there is nothing wrong any more.
func eventually(t *testing.T, wrong func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(glance) {
		if err = wrong(); err == nil {
			return
		}
	}
	t.Fatalf("still wrong after %s: %v", patience, err)
}
