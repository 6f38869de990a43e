package issuer_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

func clientTLS(roots []*x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// answer replies to each request whose path holds path with a problem document.
func answer(path string, status int, retryAfter, kind string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, path) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/problem+json")
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:%s","detail":"a bad day","status":%d}`, kind, status)
		})
	}
}

// damage leaves something in an account's file that nobody saved there.
func damage(file, text string) func(w *world) {
	return func(w *world) {
		_ = w.Store.Save(context.Background(), issuer.AccountKey("pebble", w.CA.Directory())+"/"+file, []byte(text)) // it never fails
	}
}

// TestFaults says what an administrator reads and what the scheduler is told when a CA has a bad day.
func TestFaults(t *testing.T) {
	date := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	tests := []struct {
		name  string
		ca    testbed.CAConfig
		world func(w *world)
		says  []string
		retry time.Duration // about; 0 for none
		kept  bool          // the order can be resumed
	}{
		{"rate limit in seconds", testbed.CAConfig{Wrap: answer("order-plz", 429, "3600", "rateLimited")}, nil,
			[]string{"CA pebble: order:", "a bad day", "rateLimited"}, time.Hour, false},
		{"rate limit as a date", testbed.CAConfig{Wrap: answer("order-plz", 429, date.Format(http.TimeFormat), "rateLimited")}, nil,
			[]string{"a bad day"}, 2 * time.Hour, false},
		{"unavailable", testbed.CAConfig{Wrap: answer("order-plz", 503, "120", "serverInternal")}, nil,
			[]string{"CA pebble: order:", "a bad day"}, 2 * time.Minute, false},
		{"unavailable while validating", testbed.CAConfig{Wrap: answer("chalZ", 503, "120", "serverInternal")}, nil,
			[]string{"CA pebble: challenge:", "f.example.test"}, 2 * time.Minute, true},
		{"wrong record", testbed.CAConfig{}, func(w *world) { w.Solver.Spoil = true },
			[]string{"f.example.test: validation failed:", "DNS challenge"}, 0, false},
		{"own DNS fails", testbed.CAConfig{}, func(w *world) { w.Solver.PublishOK = errors.New("REFUSED by ns1") },
			[]string{"REFUSED by ns1"}, 0, true},
		{"CA is down", testbed.CAConfig{}, func(w *world) { w.CA.Close() },
			[]string{"CA pebble: account:", "can't be reached", "firewall"}, 0, false},
		{"no directory there", testbed.CAConfig{Wrap: func(http.Handler) http.Handler { return http.NotFoundHandler() }}, nil,
			[]string{"CA pebble: account: the server answers HTTP 404", "check directory below [ca.pebble]: is https://127.0.0.1:"}, 0, false},
		{"damaged account", testbed.CAConfig{}, damage("account.json", "{"),
			[]string{"CA pebble: account: accounts/pebble", "account.json in the state directory is damaged", "restore it from a backup"}, 0, false},
		{"damaged account key", testbed.CAConfig{}, damage("key.pem", "torn"),
			[]string{"CA pebble: account: accounts/pebble", "key.pem in the state directory is damaged", "restore it from a backup"}, 0, false},
		{"name refused", testbed.CAConfig{Wrap: answer("order-plz", 400, "", "rejectedIdentifier")}, nil,
			[]string{"a bad day (rejectedIdentifier)"}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.ca, nil)
			if tt.world != nil {
				tt.world(w)
			}
			keep := &orders{}
			_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"f.example.test"}, Orders: keep})
			if err == nil {
				t.Fatal("it worked")
			}
			t.Log(err)
			for _, want := range tt.says {
				if !strings.Contains(said(err), want) {
					t.Errorf("the error doesn't say %q", want)
				}
			}
			at := issuer.RetryAfter(err)
			if d := time.Until(at) - tt.retry; tt.retry == 0 != at.IsZero() || tt.retry > 0 && d.Abs() > time.Minute {
				t.Errorf("retry at %v, want in %v", at, tt.retry)
			}
			if kept := keep.Open != nil; kept != tt.kept {
				t.Errorf("order kept: %v, want %v", kept, tt.kept)
			}
			if w.Solver.Active != 0 {
				t.Error("the records aren't removed")
			}
		})
	}
}

func TestNoncesMayBeRejected(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{NonceRejectPercent: 30}, nil)
	if _, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"n.example.test"}, Orders: &orders{}}); err != nil {
		t.Fatal(err)
	}
}

func TestUntrustedCA(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, func(c *issuer.Config) { c.Roots = nil })
	_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"u.example.test"}, Orders: &orders{}})
	if err == nil || !strings.Contains(said(err), `roots = [`) {
		t.Errorf("got %v, want an error that names roots as the cure", err)
	}
}

func TestAccountIsNeverReplacedSilently(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	obtain := func(name string) error {
		_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{name}, Orders: &orders{}})
		return err
	}
	if err := obtain("a1.example.test"); err != nil {
		t.Fatal(err)
	}
	delete(w.Store.Objects, issuer.AccountKey("pebble", w.CA.Directory())+"/key.pem")
	w.restart(t)
	err := obtain("a2.example.test")
	if err == nil || !strings.Contains(said(err), "restore the key from a backup") {
		t.Errorf("got %v, want an error about the lost key", err)
	}
}

func TestCAForgetsTheAccount(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	obtain := func(name string) error {
		_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{name}, Orders: &orders{}})
		return err
	}
	if err := obtain("g1.example.test"); err != nil {
		t.Fatal(err)
	}
	listen := strings.TrimPrefix(strings.SplitAfter(w.CA.Directory(), "://")[1], "")
	listen = strings.SplitN(listen, "/", 2)[0]
	w.CA.Close()
	again, err := testbed.StartCA(testbed.CAConfig{DNS: w.DNS.Addr(), Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	w.Config.Roots = certificates(t, again.TLSRootsPEM())
	w.restart(t)
	if err := obtain("g2.example.test"); err != nil {
		t.Fatal(err)
	}
	if n := again.Requests()["newAccount"]; n != 1 {
		t.Errorf("%d registrations, want 1", n)
	}
}

func TestReplaces(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	request := issuer.Request{Hostnames: []string{"p.example.test"}, Orders: &orders{}}
	first, err := w.Obtain(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	request.Replaces = first.Cert
	for _, attempt := range []string{"the first replacement", "a second one, which the CA refuses as such"} {
		if _, err := w.Obtain(t.Context(), request); err != nil {
			t.Fatalf("%s: %v", attempt, err)
		}
	}
}

func TestRenewalInfo(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	b, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"i.example.test"}, Orders: &orders{}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.RenewalInfo(t.Context(), b.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if info.Start.Before(b.Cert.NotBefore) || info.End.After(b.Cert.NotAfter) || info.RetryAfter.IsZero() {
		t.Errorf("window %v to %v, ask again at %v", info.Start, info.End, info.RetryAfter)
	}
	for name, text := range map[string]string{
		"end before start": `{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}}`,
		"no window":        `{}`,
		"not JSON":         `sorry`,
		"not a date":       `{"suggestedWindow":{"start":"soon","end":"later"}}`,
	} {
		if err := w.CA.SetRenewalInfo(b.Leaf, text); err != nil {
			t.Fatal(err)
		}
		if got, err := w.RenewalInfo(t.Context(), b.Cert); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.Obtain(ctx, issuer.Request{Hostnames: []string{"x.example.test"}, Orders: &orders{}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}

// TestMissingDirectoryKeepsTheOrder resumes an order through a proxy on a bad day, which knows nothing of the CA.
func TestMissingDirectoryKeepsTheOrder(t *testing.T) {
	good := newWorld(t, testbed.CAConfig{}, nil)
	good.Solver.PublishOK = errors.New("REFUSED by ns1")
	keep := &orders{}
	request := issuer.Request{Hostnames: []string{"kept.example.test"}, Orders: keep}
	if _, err := good.Obtain(t.Context(), request); err == nil || keep.Open == nil {
		t.Fatalf("no order was left open: %v", err)
	}

	// The library remembers a directory for hours, so another CA stands for this one after a restart.
	bad := newWorld(t, testbed.CAConfig{Wrap: func(http.Handler) http.Handler { return http.NotFoundHandler() }}, nil)
	moved := strings.NewReplacer(strings.TrimSuffix(good.CA.Directory(), "/dir"), strings.TrimSuffix(bad.CA.Directory(), "/dir"))
	for _, file := range []string{"/account.json", "/key.pem"} {
		text := string(good.Store.Objects[issuer.AccountKey("pebble", good.CA.Directory())+file])
		if err := bad.Store.Save(t.Context(), issuer.AccountKey("pebble", bad.CA.Directory())+file, []byte(moved.Replace(text))); err != nil {
			t.Fatal(err)
		}
	}
	open := *keep.Open
	open.URL, open.Account = moved.Replace(open.URL), moved.Replace(open.Account)
	request.Open, keep.Open = &open, &open
	_, err := bad.Obtain(t.Context(), request)
	if err == nil || !strings.Contains(said(err), "CA pebble: order: the server answers HTTP 404") {
		t.Errorf("got %v, want an error about the directory", err)
	}
	if keep.Open == nil {
		t.Error("the order was given up, though nobody asked the CA about it")
	}
}
