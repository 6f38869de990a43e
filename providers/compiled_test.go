package providers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"

	"autocertd/internal/secret"
	"autocertd/internal/testbed"
	"autocertd/providers/providertest"
)

func TestDesecConformance(t *testing.T) {
	f := &fakeDesec{zone: "example.test", token: "the-desec-token", sets: map[string]desecSet{}}
	f.serve(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "token"), "the-desec-token\n", 0o600)
	p, err := New("desec", options(fmt.Sprintf("token = { file = %q }", filepath.Join(dir, "token")), dir))
	if err != nil {
		t.Fatal(err)
	}
	providertest.Run(t, providertest.Harness{Client: p.Client, Zone: f.zone, TXT: f.all, TTL: f.ttl, MinTTL: time.Hour, Put: f.put})
}

func TestDesecFailures(t *testing.T) {
	f := &fakeDesec{zone: "example.test", token: "the-desec-token", sets: map[string]desecSet{}}
	f.serve(t)
	p, err := New("desec", options(`token = "wrong-token"`, ""))
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
	const want = `desec, zone example.test: retrieving RRSet: unexpected status code 401: {"detail":"Invalid token [token]."}`
	failure, ok := errors.AsType[*Error](err)
	if !ok || said(err) != want || failure.Retryable() || failure.Whole() {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if strings.Contains(fmt.Sprintf("%v %+v", err, failure.Err), "wrong-token") {
		t.Errorf("the token is shown: %v", err)
	}
}

// A module needs nothing but its struct: libdns's own rfc2136 passes the suite against a real BIND, compiled in.
func TestCompiledConformance(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{})
	key := b.Key("acme-key")
	p, err := compiled[rfc2136.Provider](options(fmt.Sprintf("key_name = %q\nkey_alg = %q\nkey = %q\nserver = %q", key.Name, key.Algorithm, key.Secret, b.Addr()), ""))
	if err != nil {
		t.Fatal(err)
	}
	providertest.Run(t, serverHarness(b, "acme-key", p.Client))
	if err := b.Kill(0); err != nil {
		t.Fatal(err)
	}
	_, err = p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
	if failure, ok := errors.AsType[*Error](err); !ok || !failure.Retryable() || !failure.Whole() || !strings.Contains(said(err), "connection refused") {
		t.Errorf("got %v, want a refused connection that may be tried again", err)
	}
}

// A struct as modules have them, with options of every kind.
type manyOptions struct {
	slowModule
	Token    string            `json:"token,omitempty"`
	Endpoint string            `json:"endpoint"`
	Debug    bool              `json:"debug"`
	Retries  int               `json:"retries"`
	Wait     time.Duration     `json:"wait"`
	Regions  []string          `json:"regions"`
	Labels   map[string]string `json:"labels"`
	Account  struct {
		ID string `json:"id"`
	} `json:"account"`
	HTTPClient any    `json:"-"`
	Untagged   string // for Go programs
	hidden     string // of the module's own
}

// slowModule says on its way in and out who is inside.
type slowModule struct{ in, out chan struct{} }

func (m *slowModule) AppendRecords(ctx context.Context, zone string, _ []libdns.Record) ([]libdns.Record, error) {
	if !strings.HasSuffix(zone, ".") {
		return nil, errors.New("libdns promises a zone with its dot")
	}
	m.in <- struct{}{}
	select {
	case <-m.out:
		return nil, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("as modules say it: %v", ctx.Err())
	}
}

func (m *slowModule) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return m.AppendRecords(ctx, zone, recs)
}

func TestCompiledOptions(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "token"), "from a file\n", 0o600)
	var m manyOptions
	secrets, err := decodeTagged(options(fmt.Sprintf(`token = { file = %q }
		endpoint = "https://dns.example.test"
		debug = true
		retries = 3
		wait = "90s"
		regions = ["a", "b"]
		labels = { one = "1" }
		account = { id = "me" }`, filepath.Join(dir, "token")), dir), &m)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(m.Token, " ", m.Endpoint, " ", m.Debug, m.Retries, m.Wait, m.Regions, m.Labels, " ", m.Account.ID, m.hidden)
	if want := "from a file https://dns.example.test true 3 1m30s [a b] map[one:1] me"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if secrets["token"].Reveal() != "from a file" || len(secrets) != 2 {
		t.Errorf("the secrets are %v", secrets)
	}

	mistakes := []struct{ text, want string }{
		{"", "no option is set; known are token, endpoint, debug, retries, wait, regions, labels, account"},
		{`Untagged = "x"`, "unknown key Untagged"},
		{`hidden = "x"`, "unknown key hidden"},
		{"debug = \"yes\"\nretries = 1.5", "debug: must be of type bool, not a string\nretries: must be of type int, not a number 1.5"},
		{`account = { id = 5 }`, "account: must be of type struct { ID string \"json:\\\"id\\\"\" }, not a number"},
	}
	for _, tt := range mistakes {
		if _, err := decodeTagged(options(tt.text, dir), new(manyOptions)); err == nil || said(err) != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

// Modules that read, change and write lose values when they are called twice at once.
func TestCompiledOneCallAtATime(t *testing.T) {
	m := &slowModule{in: make(chan struct{}), out: make(chan struct{})}
	c := &compiledClient{module: m, name: "slow", redact: newRedactor(nil).redact, turn: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() { _, err := c.AppendRecords(ctx, "example.test", oneRecord()); first <- err }()
	<-m.in
	waiting, giveUp := context.WithCancel(t.Context())
	go func() { _, err := c.DeleteRecords(waiting, "example.org", oneRecord()); second <- err }()
	select {
	case <-m.in:
		t.Error("two calls at once")
	case err := <-second:
		t.Errorf("the second call didn't wait: %v", err)
	default:
	}
	giveUp()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who waits: %v, want context.Canceled", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who is inside: %v, want context.Canceled", err)
	}
	go func() { _, err := c.AppendRecords(t.Context(), "example.test", oneRecord()); first <- err }()
	<-m.in
	m.out <- struct{}{}
	if err := <-first; err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestRedactor(t *testing.T) {
	r := newRedactor(map[string]secret.Secret{
		"token": secret.New("hunter2"), "longer": secret.New("hunter2-and-more"), "short": secret.New("no"),
		"odd": secret.New("a/b \"c\"+"), "pem": secret.New("-----BEGIN-----\nbase64base64\n-----END-----"), "unset": {},
	})
	for text, want := range map[string]string{
		"hunter2":                            "[token]",
		"x hunter2-and-more y hunter2 z":     "x [longer] y [token] z",
		"no, not hidden":                     "no, not hidden",
		`GET /?t=a%2Fb+%22c%22%2B&u=1`:       "GET /?t=[odd]&u=1",
		`{"token":"a/b \"c\"+"}`:             `{"token":"[odd]"}`,
		"a line of it: base64base64":         "a line of it: [pem]",
		"lookup dns.example.test: no answer": "lookup dns.example.test: no answer",
	} {
		if got := r.redact(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// The other modules that are there could be compiled in as they are.
var _ = []builder{compiled[cloudflare.Provider], compiled[rfc2136.Provider]}

// A dead first server costs its refusal once: the next update begins with the one that was good.
func TestFailoverRemembersTheGoodServer(t *testing.T) {
	f := failover{servers: []string{"a", "b", "c"}}
	var asked []string
	good := "b"
	try := func(_ context.Context, server string) error {
		asked = append(asked, server)
		if server == good {
			return nil
		}
		return &Error{Problem: server + " is dead", Err: os.ErrDeadlineExceeded, retryable: true, whole: true}
	}
	steps := []struct{ good, asked, err string }{
		{"b", "a b", ""},
		{"b", "b", ""},
		{"a", "b c a", ""},
		{"", "a b c", "no server took the update of zone example.test: a is dead; next, b is dead; next, c is dead"},
		{"a", "a", ""},
	}
	for i, step := range steps {
		asked, good = nil, step.good
		err := f.each(t.Context(), "example.test", try)
		if got := strings.Join(asked, " "); got != step.asked || (err == nil) != (step.err == "") || err != nil && said(err) != step.err {
			t.Errorf("step %d: asked %s, %v; want %s, %s", i, got, err, step.asked, step.err)
		}
		if netErr, ok := errors.AsType[net.Error](err); err != nil && (!ok || !netErr.Timeout()) {
			t.Errorf("step %d: the cause is lost: %v", i, err)
		}
	}
}
