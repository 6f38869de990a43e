package dns01

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"autocertd/internal/cure"
	"autocertd/internal/store/files"
	"autocertd/internal/testbed"
	"autocertd/internal/zones"
	"autocertd/providers"
)

// patience bounds what must happen sooner or later; it is no measure of speed.
const patience = time.Minute

// call is one call of a fakeClient.
type call struct {
	At      time.Time
	Method  string // "append" or "delete"
	Zone    string
	Records []zones.TXT
}

// fakeClient is a provider in memory, which keeps the promises of Client and notes each call.
type fakeClient struct {
	// Before decides on each call: whether it takes effect, and what it returns. Nil lets all succeed.
	Before func(c call) (effect bool, err error)
	Delay  time.Duration
	Zone   *fakeZone // nil: one of its own

	mu    sync.Mutex
	calls []call
}

// fakeZone is what all who write into it see.
type fakeZone struct {
	mu      sync.Mutex
	records map[zones.TXT]bool
}

func (z *fakeZone) Len() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.records)
}

// Has says whether the record is there, whoever wrote it.
func (z *fakeZone) Has(key zones.TXT) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.records[withoutProvider(key)]
}

func (z *fakeZone) apply(c call) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, key := range c.Records {
		if c.Method == "append" {
			if z.records == nil {
				z.records = map[zones.TXT]bool{}
			}
			z.records[key] = true
		} else {
			delete(z.records, key)
		}
	}
}

func withoutProvider(key zones.TXT) zones.TXT {
	key.Provider = ""
	return key
}

func (f *fakeClient) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, f.write(ctx, call{Method: "append", Zone: zone}, records)
}

func (f *fakeClient) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, f.write(ctx, call{Method: "delete", Zone: zone}, records)
}

func (f *fakeClient) write(ctx context.Context, c call, records []libdns.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.At = time.Now()
	for _, r := range records {
		txt := r.(libdns.TXT)
		name := strings.TrimSuffix(libdns.AbsoluteName(txt.Name, c.Zone), ".")
		c.Records = append(c.Records, zones.TXT{Zone: strings.TrimSuffix(c.Zone, "."), Name: name, Value: txt.Text})
	}
	time.Sleep(f.Delay)
	effect, err := true, error(nil)
	if f.Before != nil {
		effect, err = f.Before(c)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, c)
	if f.Zone == nil {
		f.Zone = &fakeZone{}
	}
	if effect {
		f.Zone.apply(c)
	}
	return err
}

// Calls are the calls so far of one method, or of all for "".
func (f *fakeClient) Calls(method string) (calls []call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if method == "" || c.Method == method {
			calls = append(calls, c)
		}
	}
	return calls
}

// Left is how many records are in the zones.
func (f *fakeClient) Left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Zone == nil {
		return 0
	}
	return f.Zone.Len()
}

// later is an error of the moment, broken one that no single record is to blame for.
type (
	later  struct{ error }
	broken struct{ error }
)

func (later) Retryable() bool { return true }
func (broken) Whole() bool    { return true }

// saying is an error that knows itself whether anybody answered.
type saying bool

func (s saying) Error() string { return "it says so" }
func (s saying) Silent() bool  { return bool(s) }

// key is the challenge of a host in zone example.test.
func key(host, value string) zones.TXT {
	return zones.TXT{Provider: "bind", Zone: "example.test", Name: "_acme-challenge." + host + ".example.test", Value: value}
}

func keys(n int, value string) []zones.TXT {
	list := make([]zones.TXT, n)
	for i := range list {
		list[i] = key(fmt.Sprintf("h%d", i), value)
	}
	return list
}

// logged collects what is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) Count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func (l *logged) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func openFiles(t *testing.T, dir string) *files.Store {
	t.Helper()
	files, err := files.Open(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// newSolver makes a solver with the providers, which the test must close.
func newSolver(store Storage, list ...Provider) *Solver {
	s := New(Config{Storage: store})
	configure(s, list...)
	return s
}

// configure replaces the providers, and leaves the solver without resolvers.
func configure(s *Solver, list ...Provider) { s.Adopt(s.With(list, nil)) }

func fake(client Client) Provider {
	return Provider{
		Provider: zones.Provider{Name: "bind", Zones: []string{"example.test"}, Check: zones.CheckNone},
		Client:   client,
	}
}

// rfc2136 is a real provider that writes to the server.
func rfc2136(t *testing.T, server string, k testbed.TSIGKey) Provider {
	t.Helper()
	text := fmt.Sprintf("server = %q\nkey_name = %q\nkey_alg = %q\nkey = %q", server, k.Name, k.Algorithm, k.Secret)
	p, err := providers.New("rfc2136", providers.Options{Decode: func(dst any) error { return toml.Unmarshal([]byte(text), dst) }})
	if err != nil {
		t.Fatal(err)
	}
	return Provider{
		Provider: zones.Provider{
			Name:       "bind",
			Servers:    p.Servers,
			Zones:      []string{"example.test"},
			Key:        p.Key,
			ExplainKey: p.ExplainKey,
		},
		Client: p.Client,
	}
}

// txtAt asks a server for the TXT records at a name.
func txtAt(t *testing.T, server, name string) (records []*dns.TXT) {
	t.Helper()
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT), server)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range reply.Answer {
		records = append(records, rr.(*dns.TXT))
	}
	return records
}

// values are those of TXT records.
func values(records []*dns.TXT) (list []string) {
	for _, txt := range records {
		list = append(list, strings.Join(txt.Txt, ""))
	}
	return list
}

func closeSolver(t *testing.T, s *Solver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// journalObjects are the entries that the journal holds.
func journalObjects(t *testing.T, store Storage) []string {
	t.Helper()
	objects, err := store.List(context.Background(), journalFolder)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// eventually looks until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// hanging is a provider whose server never answers.
type hanging struct{}

func (*hanging) AppendRecords(ctx context.Context, _ string, _ []libdns.Record) ([]libdns.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*hanging) DeleteRecords(ctx context.Context, _ string, _ []libdns.Record) ([]libdns.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// said is an error as a person reads it.
func said(err error) string {
	if text := cure.Of(err); text != "" {
		return err.Error() + "; " + text
	}
	return fmt.Sprint(err)
}

func startDNS(t *testing.T, zones []string, records ...string) *testbed.DNS {
	t.Helper()
	d, err := testbed.StartDNS(testbed.DNSConfig{Zones: zones})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Set(records...); err != nil {
		t.Fatal(err)
	}
	return d
}

func startBIND(t *testing.T, cfg testbed.BINDConfig) *testbed.BIND {
	t.Helper()
	cfg.Dir = t.TempDir()
	b, err := testbed.StartBIND(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func zoneText(ns string, lines ...string) string {
	return "$TTL 60\n@ IN SOA " + ns + " hostmaster 1 300 60 86400 5\n@ IN NS " + ns + "\n" + ns + " IN A 127.0.0.1\n" + strings.Join(lines, "\n") + "\n"
}

func startNamed(t *testing.T, cfg testbed.NamedConfig) *testbed.Named {
	t.Helper()
	cfg.Dir = t.TempDir()
	n, err := testbed.StartNamed(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}
