package issuer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// moody is a CA that answers some requests in its own way.
type moody struct {
	// Mood may answer a request instead of the CA; it reports whether it did. n counts the requests to the same path.
	Mood func(m *moody, w http.ResponseWriter, r *http.Request, n int) bool
	// Edit may change the body of a reply.
	Edit func(m *moody, r *http.Request, body map[string]any)

	mu    sync.Mutex
	Asked map[string]int  // by the first part of the path
	Flags map[string]bool // what the moods note
	Sent  [][]byte        // payloads of newOrder
}

func (m *moody) wrap(next http.Handler) http.Handler {
	m.Asked, m.Flags = map[string]int{}, map[string]bool{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		part := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")[0]
		m.Asked[part]++
		if part == "order-plz" {
			m.note(r)
		}
		if m.Mood != nil && m.Mood(m, w, r, m.Asked[part]) {
			return
		}
		reply := httptest.NewRecorder()
		next.ServeHTTP(reply, r)
		body := reply.Body.Bytes()
		var fields map[string]any
		if m.Edit != nil && json.Unmarshal(body, &fields) == nil {
			m.Edit(m, r, fields)
			body, _ = json.Marshal(fields) // it was JSON
		}
		maps.Copy(w.Header(), reply.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(reply.Code)
		_, _ = w.Write(body) // a client that has gone needs nothing
	})
}

func (m *moody) note(r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(data))
	var jws struct{ Payload string }
	_ = json.Unmarshal(data, &jws)
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	m.Sent = append(m.Sent, payload)
}

func (m *moody) asked(part string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Asked[part]
}

func (m *moody) set(flag string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Flags[flag] = true
}

// problem answers with a problem document.
func problem(w http.ResponseWriter, status int, kind, detail, retryAfter string) bool {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Replay-Nonce", "")
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":%d}`, kind, detail, status)
	return true
}

func at(r *http.Request, part string) bool { return strings.HasPrefix(r.URL.Path, "/"+part) }

// brokenFinalize answers a finalize by 500 and makes the order invalid, as Let's Encrypt's server does when its CA fails.
func brokenFinalize(retryAfter string) *moody {
	return &moody{
		Mood: func(m *moody, w http.ResponseWriter, r *http.Request, _ int) bool {
			if !at(r, "finalize-order") {
				return false
			}
			if m.Flags["refused"] {
				return problem(w, 403, "orderNotReady", "Order's status (\"invalid\") is not acceptable for finalization", "")
			}
			m.Flags["refused"] = true
			return problem(w, 500, "serverInternal", "Error finalizing order", retryAfter)
		},
		Edit: func(m *moody, r *http.Request, body map[string]any) {
			if at(r, "my-order") && m.Flags["refused"] {
				body["status"] = "invalid"
				body["error"] = map[string]any{"type": "urn:ietf:params:acme:error:serverInternal", "detail": "the logs gave no SCT", "status": 500}
			}
		},
	}
}

// TestOrderSaysWhatItIs: an attempt ends with what the CA says of the order, and not with what a library made of it.
func TestOrderSaysWhatItIs(t *testing.T) {
	refusing := func(times int, edit func(m *moody, r *http.Request, body map[string]any)) *moody {
		return &moody{Edit: edit, Mood: func(m *moody, w http.ResponseWriter, r *http.Request, n int) bool {
			return at(r, "finalize-order") && n <= times && problem(w, 403, "orderNotReady", "Order is not ready", "")
		}}
	}
	processing := &moody{Edit: func(m *moody, r *http.Request, body map[string]any) {
		if (at(r, "my-order") || at(r, "finalize-order")) && !m.Flags["done"] {
			body["status"] = "processing"
		}
	}}
	validating := &moody{Edit: func(m *moody, r *http.Request, body map[string]any) {
		if at(r, "authZ") && !m.Flags["done"] {
			body["status"] = "pending"
		}
	}}
	conflict := func(stuck bool) *moody {
		return &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, n int) bool {
			if !at(r, "chalZ") || m.Flags["conflict"] {
				return false
			}
			m.Flags["conflict"] = true
			if !stuck {
				m.Flags["validate"] = true
			}
			return problem(w, 409, "conflict", "Authorization is already being validated", "")
		}}
	}
	tests := []struct {
		name    string
		ca      *moody
		says    string        // "" when there is a certificate
		retry   time.Duration // about
		working bool          // and then, when the CA has finished, a certificate of the same order
		kept    bool
		orders  int
		asked   map[string]int // at most
	}{
		{name: "finalize fails and the order is invalid", ca: brokenFinalize(""), says: "the logs gave no SCT", orders: 1},
		{name: "and the CA says when to come again", ca: brokenFinalize("60"), says: "the logs gave no SCT", retry: time.Minute, orders: 1, asked: map[string]int{"finalize-order": 1}},
		{name: "ready, and not ready twice", ca: refusing(2, nil), kept: true, orders: 1, asked: map[string]int{"finalize-order": 3}},
		{name: "a replica is behind", ca: refusing(1, func(m *moody, r *http.Request, body map[string]any) {
			if at(r, "my-order") && m.Asked["my-order"] <= 2 {
				body["status"] = "pending"
			}
		}), kept: true, orders: 1, asked: map[string]int{"finalize-order": 2}},
		{name: "never ready", ca: refusing(1000, nil), says: "still working on it", working: false, kept: true, orders: 1},
		{name: "processing for long", ca: processing, says: "still working on it", working: true, kept: true, orders: 1, asked: map[string]int{"finalize-order": 1}},
		{name: "validating for long", ca: validating, says: "h.example.test: the CA is still validating", working: true, kept: true, orders: 1, asked: map[string]int{"chalZ": 1}},
		{name: "conflict, and nothing comes of it", ca: conflict(true), kept: true, orders: 2},
		{name: "unavailable, with a time", ca: &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, _ int) bool {
			return at(r, "order-plz") && problem(w, 503, "serverInternal", "a bad day", "120")
		}}, says: "a bad day", retry: 2 * time.Minute, asked: map[string]int{"order-plz": 1}},
		{name: "broken, with a time", ca: &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, _ int) bool {
			return at(r, "authZ") && problem(w, 500, "serverInternal", "a bad day", "60")
		}}, says: "a bad day", retry: time.Minute, kept: true, orders: 1, asked: map[string]int{"authZ": 1}},
		{name: "broken while it looks", ca: &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, n int) bool {
			return at(r, "authZ") && n > 1 && n < 6 && problem(w, 500, "serverInternal", "a bad day", "0")
		}}, kept: true, orders: 1, asked: map[string]int{"chalZ": 1}},
		{name: "limited while it looks", ca: &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, n int) bool {
			return at(r, "authZ") && n > 1 && problem(w, 429, "rateLimited", "not so often", "3600")
		}}, says: "not so often", retry: time.Hour, kept: true, orders: 1, asked: map[string]int{"chalZ": 1, "authZ": 2}},
		{name: "no nonce, with a time", ca: &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, _ int) bool {
			return at(r, "nonce-plz") && problem(w, 500, "serverInternal", "nobody reads this", "60")
		}}, says: "/nonce-plz answers HTTP 500 (Internal Server Error)", retry: time.Minute, asked: map[string]int{"nonce-plz": 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, testbed.CAConfig{Wrap: tt.ca.wrap}, func(c *issuer.Config) {
				c.Patience, c.Impasse = 400*time.Millisecond, 50*time.Millisecond
				if tt.says == "" { // it ends by itself, on a slow machine too
					c.Patience = 30 * time.Second
				}
			})
			keep := &orders{}
			request := issuer.Request{Hostnames: []string{"h.example.test"}, Orders: keep}
			_, err := w.Obtain(t.Context(), request)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(said(err), tt.says)) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if d := time.Until(issuer.RetryAfter(err)) - tt.retry; tt.retry != 0 && d.Abs() > 10*time.Second {
				t.Errorf("retry at %v, want in %v", issuer.RetryAfter(err), tt.retry)
			}
			if kept := keep.Open != nil; kept != tt.kept {
				t.Errorf("order kept: %v", kept)
			}
			if n := w.CA.NewOrders(); n != tt.orders {
				t.Errorf("%d orders at the CA, want %d", n, tt.orders)
			}
			for part, most := range tt.asked {
				if n := tt.ca.asked(part); n > most {
					t.Errorf("%d requests to %s, want at most %d", n, part, most)
				}
			}
			if working, ok := errors.AsType[*issuer.WorkingError](err); strings.Contains(tt.says, "still") != ok {
				t.Errorf("no failure: %v", working)
			}
			if !tt.working {
				return
			}
			tt.ca.set("done")
			request.Open = keep.Open
			w.restart(t)
			if _, err := w.Obtain(t.Context(), request); err != nil || w.CA.NewOrders() != 1 {
				t.Errorf("afterwards: %v, with %d orders", err, w.CA.NewOrders())
			}
		})
	}
}

// TestConflictIsValidation: the CA says that it is validating already, as when the reply to the challenge was lost, and
// finds the record that stays.
func TestConflictIsValidation(t *testing.T) {
	var next http.Handler
	ca := &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, n int) bool {
		if !at(r, "chalZ") {
			return false
		}
		next.ServeHTTP(httptest.NewRecorder(), r)
		m.Flags["conflict"] = true
		return problem(w, 409, "conflict", "Authorization is already being validated", "")
	}, Edit: func(m *moody, r *http.Request, body map[string]any) {
		if !at(r, "authZ") || !m.Flags["conflict"] || m.Flags["shown"] {
			return
		}
		m.Flags["shown"], body["status"] = true, "pending" // the challenge looks as if nobody had accepted it
		for _, c := range body["challenges"].([]any) {
			c.(map[string]any)["status"] = "pending"
		}
	}}
	w := newWorld(t, testbed.CAConfig{Wrap: func(h http.Handler) http.Handler { next = h; return ca.wrap(h) }}, nil)
	if _, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"h.example.test"}, Orders: &orders{}}); err != nil || w.CA.NewOrders() != 1 {
		t.Errorf("%v, with %d orders", err, w.CA.NewOrders())
	}
}

// TestEachFailedHostnameIsNamed: the CA counts each, so each must be known.
func TestEachFailedHostnameIsNamed(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	w.Solver.SpoilNames = []string{"_acme-challenge.x.example.test", "_acme-challenge.y.example.test"}
	keep := &orders{}
	_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"x.example.test", "good.example.test", "*.y.example.test"}, Orders: keep})
	names := slices.Sorted(slices.Values(issuer.FailedHostnames(err)))
	if want := []string{"*.y.example.test", "x.example.test"}; !slices.Equal(names, want) {
		t.Errorf("%v failed, want %v", names, want)
	}
	for _, want := range []string{"validation failed of 2 hostnames", "x.example.test: ", "*.y.example.test: "} {
		if err == nil || !strings.Contains(said(err), want) {
			t.Errorf("%v doesn't say %q", err, want)
		}
	}
	if keep.Open != nil {
		t.Error("the order is kept, though it can only become invalid")
	}
}

// TestRefusedWhileNobodyLooked: an order that goes on tells why the CA has refused its hostnames meanwhile.
func TestRefusedWhileNobodyLooked(t *testing.T) {
	ca := &moody{Edit: func(m *moody, r *http.Request, body map[string]any) {
		if !at(r, "authZ") || !m.Flags["refused"] {
			return
		}
		body["status"] = "invalid"
		for _, c := range body["challenges"].([]any) {
			if c := c.(map[string]any); c["type"] == "dns-01" {
				c["status"], c["error"] = "invalid", map[string]any{"type": "urn:ietf:params:acme:error:dns", "detail": "NXDOMAIN at two of three"}
			}
		}
	}}
	w := newWorld(t, testbed.CAConfig{Wrap: ca.wrap}, nil)
	w.Solver.PublishOK = errors.New("REFUSED by ns1")
	keep := &orders{}
	request := issuer.Request{Hostnames: []string{"w.example.test"}, Orders: keep}
	if _, err := w.Obtain(t.Context(), request); err == nil || keep.Open == nil {
		t.Fatal("no order is open")
	}
	ca.set("refused")
	request.Open = keep.Open
	_, err := w.Obtain(t.Context(), request)
	if want := "w.example.test: validation failed: NXDOMAIN at two of three (dns)"; err == nil || !strings.Contains(said(err), want) || !issuer.FailedValidation(err) || keep.Open != nil {
		t.Errorf("got %v, want %q; the order is %v", err, want, keep.Open)
	}
}

// TestNewAccountKeyIsUnknownForAWhile: some seconds after a rollover a CA takes signatures by the new key for malformed.
func TestNewAccountKeyIsUnknownForAWhile(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprintf("with an open order: %v", open), func(t *testing.T) {
			t.Parallel()
			left := 0
			ca := &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, _ int) bool {
				if r.Method != http.MethodPost || at(r, "sign-me-up") || left == 0 {
					return false
				}
				left--
				return problem(w, 400, "malformed", "JWS verification error", "")
			}}
			w := newWorld(t, testbed.CAConfig{Wrap: ca.wrap}, nil)
			keep := &orders{}
			request := issuer.Request{Hostnames: []string{"k.example.test"}, Orders: keep}
			ctx, cancel := context.WithCancel(t.Context())
			request.Progress = func(s issuer.Step) {
				if open && s.Name == issuer.Ordered {
					cancel()
				}
			}
			_, err := w.Obtain(ctx, request)
			if open == (err == nil) {
				t.Fatal(err)
			}
			cancel()
			if open {
				request.Open = keep.Open
			}
			before := w.CA.NewOrders()
			ca.mu.Lock()
			left = 3
			ca.mu.Unlock()
			request.Progress = nil
			if _, err := w.Obtain(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			if made := w.CA.NewOrders() - before; open && made != 0 || !open && made != 1 {
				t.Errorf("%d new orders", made)
			}
		})
	}
}

// TestLostOrder: an order that the CA calls malformed, while it takes the account's signatures, is gone.
func TestLostOrder(t *testing.T) {
	ca := &moody{}
	w := newWorld(t, testbed.CAConfig{Wrap: ca.wrap}, nil)
	w.Solver.PublishOK = errors.New("REFUSED by ns1")
	keep := &orders{}
	request := issuer.Request{Hostnames: []string{"l.example.test"}, Orders: keep}
	if _, err := w.Obtain(t.Context(), request); err == nil {
		t.Fatal("there is a certificate")
	}
	lost := strings.TrimPrefix(keep.Open.URL, strings.TrimSuffix(w.CA.Directory(), "/dir"))
	ca.mu.Lock()
	ca.Mood = func(m *moody, w http.ResponseWriter, r *http.Request, _ int) bool {
		return r.URL.Path == lost && problem(w, 400, "malformed", "no such order", "")
	}
	ca.mu.Unlock()
	w.Solver.PublishOK = nil
	request.Open = keep.Open
	if _, err := w.Obtain(t.Context(), request); err != nil || w.CA.NewOrders() != 2 {
		t.Errorf("%v, with %d orders", err, w.CA.NewOrders())
	}
}

// TestRefusalOfTheAccount is found out by one order, or by two where the CA doesn't say whom it means, and the others aren't
// sent. A refusal of one order is no reason to hold back another.
func TestRefusalOfTheAccount(t *testing.T) {
	tests := []struct {
		name    string
		path    string
		status  int
		kind    string
		detail  string
		retry   string
		domains func(n int) []string
		most    int // requests for 6 orders
	}{
		{"registrations are limited", "sign-me-up", 429, "rateLimited", "too many registrations from this address", "60", nil, 1},
		{"the account is refused", "sign-me-up", 403, "unauthorized", "we don't know you", "", nil, 1},
		{"orders of the account are limited", "order-plz", 429, "rateLimited", "too many new orders (300) from this account", "60", nil, 1},
		{"limited, without a word for what", "order-plz", 429, "rateLimited", "slow down", "60", nil, 2},
		{"limited for one domain, as far as can be seen", "order-plz", 429, "rateLimited", "slow down", "60",
			func(int) []string { return []string{"example.test"} }, 2},
		{"the account is blocked", "order-plz", 403, "unauthorized", "Account blocked", "", nil, 2},
		{"new terms", "order-plz", 403, "userActionRequired", "agree to the new terms", "", nil, 1},
		{"the directory is limited", "dir", 429, "rateLimited", "slow down", "60", nil, 1},
		{"nonces are limited", "nonce-plz", 429, "rateLimited", "nonce-plz answers HTTP 429", "60", nil, 1},
		{"a paused hostname", "order-plz", 429, "rateLimited", "paused: https://ca.test/unpause", "", nil, 6},
		{"hostnames that it doesn't issue for", "order-plz", 400, "rejectedIdentifier", "not ours", "", nil, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ca := &moody{Mood: func(m *moody, w http.ResponseWriter, r *http.Request, _ int) bool {
				return at(r, tt.path) && !m.Flags["done"] && problem(w, tt.status, tt.kind, tt.detail, tt.retry)
			}}
			w := newWorld(t, testbed.CAConfig{Wrap: ca.wrap}, nil)
			if tt.domains == nil {
				tt.domains = func(n int) []string { return []string{fmt.Sprintf("d%d.test", n)} }
			}
			request := func(n int) issuer.Request {
				return issuer.Request{Hostnames: []string{fmt.Sprintf("h%d.example.test", n)}, Domains: tt.domains(n), Orders: &orders{}}
			}
			var group sync.WaitGroup
			for n := range 6 {
				group.Go(func() {
					_, err := w.Obtain(t.Context(), request(n))
					if err == nil || !strings.Contains(said(err), tt.detail) {
						t.Errorf("got %v, want %q", err, tt.detail)
					}
					if tt.retry != "" && issuer.RetryAfter(err).IsZero() {
						t.Errorf("%v doesn't say when to try again", err)
					}
				})
			}
			group.Wait()
			if n := ca.asked(tt.path); n > tt.most {
				t.Errorf("%d requests, want %d", n, tt.most)
			}
			if tt.kind != "rateLimited" || tt.path != "order-plz" {
				return
			}
			ca.set("done") // a renewal that is free of limits finds that out at once, and the others go on then
			free := request(7)
			free.Exempt = true
			for _, r := range []issuer.Request{free, request(8)} {
				if _, err := w.Obtain(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestNewOrderSaysNoMore: what a client has nothing to say about isn't sent.
func TestNewOrderSaysNoMore(t *testing.T) {
	ca := &moody{}
	w := newWorld(t, testbed.CAConfig{Wrap: ca.wrap}, nil)
	if _, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"n.example.test"}, Orders: &orders{}}); err != nil {
		t.Fatal(err)
	}
	if got, want := string(ca.Sent[0]), `{"identifiers":[{"type":"dns","value":"n.example.test"}]}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

// TestServersCertificate: who the CA's server says that it is, and the cure when that isn't believed.
func TestServersCertificate(t *testing.T) {
	good := newWorld(t, testbed.CAConfig{}, nil)
	other := newWorld(t, testbed.CAConfig{Listen: "127.0.0.2:0"}, nil)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	_, port, _ := net.SplitHostPort(nobody)
	tests := []struct {
		name      string
		directory string
		roots     []*x509.Certificate
		says      []string
	}{
		{"no roots", good.CA.Directory(), nil, []string{"by an authority that this machine doesn't trust", `name the CA's root: roots = ["/path/to/root.pem"] below [ca.pebble]`}},
		{"the roots of another CA", good.CA.Directory(), strangers(t), []string{"which none of the configured roots has signed", "CN=Another Root", "are those of another CA"}},
		{"another name", other.CA.Directory(), other.Config.Roots,
			[]string{"the server shows a certificate for ", "not for 127.0.0.2", "write directory below [ca.pebble] with a name that the certificate has"}},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1) + "/dir", good.Config.Roots, []string{"doesn't speak TLS", "check the port in directory below [ca.pebble]"}},
		{"nobody there", "https://localhost:" + port + "/dir", good.Config.Roots, []string{"localhost:" + port + " (", "can't be reached", "firewall"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			iss, err := issuer.New(issuer.Config{Name: "pebble", Directory: tt.directory, AcceptTerms: true, Roots: tt.roots, Storage: &memory{}, Solver: good.Solver})
			if err != nil {
				t.Fatal(err)
			}
			defer iss.Close()
			_, err = iss.Obtain(t.Context(), issuer.Request{Hostnames: []string{"s.example.test"}, Orders: &orders{}})
			t.Log(err)
			for _, want := range tt.says {
				if err == nil || !strings.Contains(said(err), want) {
					t.Errorf("%v doesn't say %q", err, want)
				}
			}
		})
	}
}

// strangers are roots that have signed nothing here.
func strangers(t *testing.T) []*x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Another Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{root}
}

// TestContactWanted: some CAs want a contact, and have no type of problem for that.
func TestContactWanted(t *testing.T) {
	for _, kind := range []string{"malformed", "invalidContact", "unsupportedContact"} {
		w := newWorld(t, testbed.CAConfig{Wrap: answer("sign-me-up", 400, "", kind)}, func(c *issuer.Config) { c.Email = "" })
		_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"c.example.test"}, Orders: &orders{}})
		if err == nil || !strings.Contains(said(err), `email = "you@example.org" below [ca.pebble]`) {
			t.Errorf("%s: %v doesn't name the cure", kind, err)
		}
	}
}
