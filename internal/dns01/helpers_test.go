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

	"autocertd/internal/cure"
	"autocertd/internal/store/files"
	"autocertd/internal/testbed"
	"autocertd/providers"
)

// patience bounds what must happen sooner or later; it is no measure of speed.
const patience = time.Minute

// call is one call of a fakeClient.
type call struct {
	At      time.Time
	Method  string // "append" or "delete"
	Zone    string
	Records []recordKey
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
	records map[recordKey]bool
}

func (z *fakeZone) Len() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.records)
}

// Has says whether the record is there, whoever wrote it.
func (z *fakeZone) Has(key recordKey) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.records[key.withoutProvider()]
}

func (z *fakeZone) apply(c call) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, key := range c.Records {
		if c.Method == "append" {
			if z.records == nil {
				z.records = map[recordKey]bool{}
			}
			z.records[key] = true
		} else {
			delete(z.records, key)
		}
	}
}

func (k recordKey) withoutProvider() recordKey {
	k.provider = ""
	return k
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
		c.Records = append(c.Records, recordKey{zone: strings.TrimSuffix(c.Zone, "."), name: name, value: txt.Text})
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

// key is the challenge of a host in zone example.test.
func key(host, value string) recordKey {
	return recordKey{"bind", "example.test", "_acme-challenge." + host + ".example.test", value}
}

func keys(n int, value string) []recordKey {
	list := make([]recordKey, n)
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
	s.Configure(list)
	return s
}

func fake(client Client) Provider {
	return Provider{Name: "bind", Client: client, Zones: []string{"example.test"}, Check: CheckNone}
}

// rfc2136 is a real provider that writes to the server.
func rfc2136(t *testing.T, server string, k testbed.TSIGKey) Provider {
	t.Helper()
	text := fmt.Sprintf("server = %q\nkey_name = %q\nkey_alg = %q\nkey = %q", server, k.Name, k.Algorithm, k.Secret)
	p, err := providers.New("rfc2136", providers.Options{Decode: func(dst any) error { return toml.Unmarshal([]byte(text), dst) }})
	if err != nil {
		t.Fatal(err)
	}
	return Provider{Name: "bind", Client: p.Client, Servers: p.Servers, Zones: []string{"example.test"},
		Key: &Key{Name: p.Key.Name, Algorithm: p.Key.Algorithm, Secret: p.Key.Secret}}
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
