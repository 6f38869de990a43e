package lifecycle

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/dns01"
	"autocertd/internal/event"
	"autocertd/internal/state"
	"autocertd/internal/store/files"
	"autocertd/internal/term"
	"autocertd/internal/testbed"
	"autocertd/internal/zones"
	"autocertd/issuer"
	"autocertd/providers"
	"autocertd/scheduler"
)

// name is what the one certificate of a world is called.
const name = "web"

// world is CAs, a DNS server and a folder with a configuration and a state, in which one process after the other works.
type world struct {
	*testing.T
	dir string
	dns *testbed.DNS
	cas []*testbed.CA

	// The configuration. A start of a process reads it.
	certificate string   // lines of the certificate's table
	caLines     []string // beside each of cas, lines of its table
	tables      string   // more tables

	patience time.Duration // with a CA that doesn't decide
}

// caNames are what the configuration calls the CAs of a world.
func caNames() []string { return []string{"one", "two"} }

// newWorld starts a CA for each of the configurations, and DNS for all of them.
func newWorld(t *testing.T, cas ...testbed.CAConfig) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), certificate: `hostnames = ["a.example.test"]`}
	var err error
	if w.dns, err = testbed.StartDNS(testbed.DNSConfig{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.dns.Close() })
	if len(cas) == 0 {
		cas = []testbed.CAConfig{{}}
	}
	for i, cfg := range cas {
		cfg.DNS = w.dns.Addr()
		ca, err := testbed.StartCA(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ca.Close() })
		w.cas, w.caLines = append(w.cas, ca), append(w.caLines, "")
		w.write(caNames()[i]+".pem", ca.TLSRootsPEM())
	}
	return w
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w *world) write(file string, data []byte) {
	w.Helper()
	if err := os.WriteFile(w.path(file), data, 0o600); err != nil {
		w.Fatal(err)
	}
}

// text is the configuration.
func (w *world) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "state_dir = %q\n", w.path("state"))
	list := make([]string, len(w.cas))
	for i, ca := range w.cas {
		list[i] = fmt.Sprintf("%q", caNames()[i])
		fmt.Fprintf(&b, "[ca.%s]\ndirectory = %q\naccept_terms = true\nroots = [\"%s.pem\"]\n%s\n", caNames()[i], ca.Directory(), caNames()[i], w.caLines[i])
	}
	key := w.dns.Key("acme-key")
	fmt.Fprintf(&b, "[defaults]\nca = [%s]\n", strings.Join(list, ", "))
	fmt.Fprintf(&b, "[provider.dns]\ntype = \"rfc2136\"\nserver = %q\nnameservers = [%q]\nkey_name = %q\nkey_alg = %q\nkey = %q\n",
		w.dns.Addr(), w.dns.Addr(), key.Name, key.Algorithm, key.Secret)
	fmt.Fprintf(&b, "[[certificate]]\nname = %q\n%s\n%s\n", name, w.certificate, w.tables)
	return b.String()
}

// process is what a process has: everything but the state directory anew.
type process struct {
	*Manager
	*world
	ctx    context.Context
	cfg    *config.Config
	store  *faulty
	solver *dns01.Solver
	logged *logBuffer
	steps  []issuer.StepName
	lost   *losing // what happens to requests
	dead   atomic.Bool
}

// start is a new process with the configuration as it is now.
func (w *world) start() *process { return w.startWith(Config{}, &losing{}) }

func (w *world) startWith(cfg Config, lost *losing) *process {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	files, err := files.Open(w.path("state"), "test")
	if err != nil {
		w.Fatal(err)
	}
	p := &process{world: w, ctx: ctx, logged: &logBuffer{}, lost: lost, store: &faulty{Store: files}}
	die := sync.OnceFunc(func() {
		p.dead.Store(true)
		w.dns.OnUpdate(refuseAll) // a dead process sends nothing
		p.store.die()
		cancel()
	})
	p.store.Die, lost.Die = die, die
	logger := slog.New(slog.NewTextHandler(p.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p.solver = dns01.New(dns01.Config{Storage: p.store, Logger: logger})
	cfg.Storage, cfg.Logger, cfg.Tell = p.store, logger, event.All(event.Log(logger), record)
	cfg.Progress = func(_ string, step issuer.Step) { p.steps = append(p.steps, step.Name) }
	p.Manager = New(cfg)
	p.use()
	w.Cleanup(func() { p.end(); cancel() })
	return p
}

// end is the orderly end of a process.
func (p *process) end() {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.solver.Close(ctx); err != nil && !p.dead.Load() {
		p.Error(err)
	}
}

// reload reads the configuration again while the process runs.
func (p *process) reload() {
	p.Helper()
	p.use()
	snapshot := *p.snapshot.Load()
	snapshot.Reloaded = time.Now()
	p.Use(&snapshot)
}

// use reads the configuration and makes it the one that counts, as a start does.
func (p *process) use() {
	p.Helper()
	p.write("config.toml", []byte(p.text()))
	var served []dns01.Provider
	var outputs deploy.Outputs
	cfg, err := config.Load(p.path("config.toml"), config.Checks{Provider: func(c *config.Provider) error {
		built, err := providers.New(c.Type, providers.Options{Decode: c.Decode, Dir: c.Dir()})
		if err == nil {
			served = append(served, dns01.Provider{
				Provider: zones.Provider{Name: c.Name, Servers: built.Servers, Nameservers: c.Nameservers},
				Client:   built.Client,
			})
		}
		return err
	}, Outputs: func(c *config.Config, tables []config.Table) { outputs = BuildOutputs(c, tables) }})
	if err != nil {
		p.Fatal(err)
	}
	p.cfg = cfg
	p.solver.Adopt(p.solver.With(served, nil))
	issuers := map[string]*issuer.Issuer{}
	for _, ca := range cfg.CAs {
		pool := x509.NewCertPool()
		for _, root := range ca.Roots {
			pool.AddCert(root)
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
		iss, err := issuer.New(issuer.Config{Name: ca.Name, Directory: ca.Directory, AcceptTerms: ca.AcceptTerms, Profile: ca.Profile,
			Storage: p.store, Solver: p.solver, UserAgent: "test", Patience: p.patience, Transport: p.lost.over(transport)})
		if err != nil {
			p.Fatal(err)
		}
		p.Cleanup(transport.CloseIdleConnections)
		issuers[ca.Name] = iss
	}
	p.Use(NewSnapshot(cfg, outputs, issuers, scheduler.Window{}))
}

// look reconciles the certificate, which has to work.
func (p *process) look() time.Time {
	p.Helper()
	next, err := p.Reconcile(p.ctx, name)
	if err != nil {
		p.Fatalf("reconcile: %v\n%s", err, p.logged)
	}
	return next
}

// fails reconciles the certificate, which has to fail with an error that says what is wanted.
func (p *process) fails(says string) time.Time {
	p.Helper()
	next, err := p.Reconcile(p.ctx, name)
	if err == nil || !strings.Contains(term.Text(err), says) {
		p.Fatalf("reconcile: %s, want an error that says %q\n%s", term.Text(err), says, p.logged)
	}
	return next
}

// status is what status shows of the certificate.
func (p *process) status() Status {
	p.Helper()
	list, err := Statuses(p.Context(), p.store.Store, state.LocalNode, p.cfg.Certificates, time.Now())
	if err != nil || len(list) != 1 {
		p.Fatalf("statuses: %v, %v", list, err)
	}
	return list[0]
}

// live reads the files as a service does, and checks that they are a pair that leads to the root of the CA.
func (w *world) live(ca *testbed.CA) *x509.Certificate {
	w.Helper()
	pair, err := tls.LoadX509KeyPair(w.path("state", "live", name, "fullchain.pem"), w.path("state", "live", name, "privkey.pem"))
	if err != nil {
		w.Fatal(err)
	}
	root, err := ca.IssuerRootPEM()
	if err != nil {
		w.Fatal(err)
	}
	roots, above := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	for _, der := range pair.Certificate[1:] {
		above.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: above}); err != nil {
		w.Error(err)
	}
	return pair.Leaf
}

// bundle reads what was issued.
func (p *process) bundle() (*state.Bundle, *x509.Certificate) {
	p.Helper()
	b, leaf, err := state.LoadBundle(p.Context(), p.store, name)
	if err != nil || b == nil {
		p.Fatalf("bundle: %v, %v", b, err)
	}
	return b, leaf
}

// logBuffer keeps the log. It is safe for concurrent use.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// caConfig is a CA with profiles.
func caConfig(lifetimes map[string]time.Duration) testbed.CAConfig {
	return testbed.CAConfig{Profiles: lifetimes}
}
