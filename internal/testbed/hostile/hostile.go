// Package hostile runs a CA that doesn't play fair: Pebble with somebody in front who changes what goes to the client.
// There is a mode for each thing that a client must not believe, follow, wait for or count. It leaves to the tests what
// a client should do then.
package hostile

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"autocertd/internal/testbed"
)

// CA is a CA in one of the modes. It behaves until Turn says otherwise.
type CA struct {
	*testbed.CA
	mode   Mode
	forger *forger

	// Stranger is a server that has nothing to do with the CA, and that nobody should be led to.
	Stranger *Stranger

	mu     sync.Mutex
	turned bool
	seen   map[string]int                      // requests by kind, since it was turned
	csrs   map[string]*x509.CertificateRequest // by the path of the order
	issued map[string]string                   // path of a certificate to that of its order
}

// Start starts a CA that knows a mode; see [Modes].
func Start(mode string, cfg testbed.CAConfig) (*CA, error) {
	m, ok := modes()[mode]
	if !ok {
		m, ok = oddModes()[mode]
	}
	if !ok {
		return nil, fmt.Errorf("a hostile CA has no mode %q", mode)
	}
	c := &CA{mode: m, seen: map[string]int{}, csrs: map[string]*x509.CertificateRequest{}, issued: map[string]string{}}
	var err error
	if c.forger, err = newForger(); err != nil {
		return nil, err
	}
	if c.Stranger, err = startStranger(c.forger); err != nil {
		return nil, err
	}
	cfg.Wrap = c.wrap
	if c.CA, err = testbed.StartCA(cfg); err != nil {
		c.Stranger.Close()
		return nil, err
	}
	return c, nil
}

// OddModes lists the names of more modes, which are variations of the others: for tests to which it doesn't matter how many
// there are.
func OddModes() []string { return slices.Sorted(maps.Keys(oddModes())) }

// Modes lists the names of the modes.
func Modes() []string { return slices.Sorted(maps.Keys(modes())) }

// Turn makes the CA hostile, or has it behave again.
func (c *CA) Turn(hostile bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turned, c.seen = hostile, map[string]int{}
}

// Seen says how many requests of a kind there were since the CA was turned. See [testbed.Kind].
func (c *CA) Seen(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[kind]
}

// TLSRootsPEM is what a client must trust to talk to the CA, and to the stranger too: it isn't the TLS that keeps a
// client from there.
func (c *CA) TLSRootsPEM() []byte { return slices.Concat(c.CA.TLSRootsPEM(), c.forger.rootPEM()) }

// RootsPEM is what the certificates of the CA chain to, Pebble's and those that it forges.
func (c *CA) RootsPEM() ([]byte, error) {
	root, err := c.CA.IssuerRootPEM()
	return slices.Concat(root, c.forger.rootPEM()), err
}

// Close ends the CA and the stranger.
func (c *CA) Close() error {
	c.Stranger.Close()
	return c.CA.Close()
}

// maxRequest bounds what a client may send.
const maxRequest = 1 << 20

func (c *CA) wrap(pebble http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		x := &Exchange{CA: c, Request: r, Payload: payload(body), pebble: pebble, w: w}
		x.Kind = testbed.Kind(r.URL.Path)
		c.mu.Lock()
		turned := c.turned
		if turned {
			c.seen[x.Kind]++
			x.Nth = c.seen[x.Kind]
		}
		c.mu.Unlock()
		if turned {
			c.mode.act(x)
		}
		x.finish()
	})
}

// payload takes the payload out of a signed request (RFC 8555 section 6.2); nil when there is none.
func payload(body []byte) []byte {
	var signed struct{ Payload string }
	_ = json.Unmarshal(body, &signed) // a request without a body has no payload
	data, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	return data
}

// Exchange is a request to the CA and its reply.
type Exchange struct {
	CA      *CA
	Kind    string // see [testbed.Kind]
	Nth     int    // of its kind, from 1, since the CA was turned
	Request *http.Request
	Payload []byte // what was signed, decoded

	pebble http.Handler
	w      http.ResponseWriter
	reply  *httptest.ResponseRecorder // nil until there is one
	raw    bool                       // the mode has written to the client itself, or lets it wait
}

// Pass lets Pebble answer, unless it has, and returns the reply, which may be changed.
func (x *Exchange) Pass() *httptest.ResponseRecorder {
	if x.reply == nil {
		x.reply = httptest.NewRecorder()
		x.pebble.ServeHTTP(x.reply, x.Request)
		x.CA.note(x)
	}
	return x.reply
}

// note remembers which certificate is for which request.
func (c *CA) note(x *Exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sent struct{ CSR string }
	if x.Kind == "finalize" && json.Unmarshal(x.Payload, &sent) == nil {
		der, _ := base64.RawURLEncoding.DecodeString(sent.CSR)
		if csr, err := x509.ParseCertificateRequest(der); err == nil {
			c.csrs[lastElement(x.Request.URL.Path)] = csr
		}
	}
	var order struct{ Certificate string }
	if (x.Kind == "finalize" || x.Kind == "order") && json.Unmarshal(x.reply.Body.Bytes(), &order) == nil && order.Certificate != "" {
		c.issued[lastElement(order.Certificate)] = lastElement(x.Request.URL.Path)
	}
}

func lastElement(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// CSR is what a certificate was requested by that is being downloaded.
func (x *Exchange) CSR() *x509.CertificateRequest {
	x.CA.mu.Lock()
	defer x.CA.mu.Unlock()
	return x.CA.csrs[x.CA.issued[lastElement(x.Request.URL.Path)]]
}

// Edit changes the JSON object of a reply that isn't an error.
func (x *Exchange) Edit(change func(object map[string]any)) {
	if x.Pass().Code >= http.StatusMultipleChoices {
		return
	}
	object := map[string]any{}
	if json.Unmarshal(x.reply.Body.Bytes(), &object) != nil {
		return
	}
	change(object)
	text, err := json.Marshal(object)
	if err != nil {
		panic(err) // of a mode that makes something up which isn't JSON
	}
	x.Body(string(text))
}

// Body takes the place of the reply's body.
func (x *Exchange) Body(text string) {
	x.Pass().Body = bytes.NewBufferString(text)
	x.reply.Header().Del("Content-Length")
}

// Answer replies in Pebble's place, which doesn't get to see the request.
func (x *Exchange) Answer(status int, contentType, body string) {
	if x.reply == nil {
		x.reply = httptest.NewRecorder()
	}
	x.reply.Code, x.reply.Body = status, bytes.NewBufferString(body)
	x.reply.Header().Set("Content-Type", contentType)
	x.reply.Header().Del("Content-Length")
}

// Problem answers by a problem document (RFC 8555 section 6.7). kind is a type without its prefix.
func (x *Exchange) Problem(status int, kind, detail string) {
	text, err := json.Marshal(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status})
	if err != nil {
		panic(err) // strings and numbers can be marshalled
	}
	x.Answer(status, "application/problem+json", string(text))
}

// Header sets a header of the reply.
func (x *Exchange) Header(name, value string) { x.Pass().Header().Set(name, value) }

// Lose closes the connection without a reply. What the request asked for is done before, where Pass was called.
func (x *Exchange) Lose() {
	x.raw = true
	panic(http.ErrAbortHandler)
}

// Hang doesn't reply at all, and returns when the client is gone.
func (x *Exchange) Hang() {
	x.raw = true
	<-x.Request.Context().Done()
}

// Endless writes a text again and again until the client is gone.
func (x *Exchange) Endless(contentType, text string) {
	x.raw = true
	x.w.Header().Set("Content-Type", contentType)
	for {
		if _, err := io.WriteString(x.w, text); err != nil {
			return
		}
	}
}

// finish sends the reply.
func (x *Exchange) finish() {
	if x.raw {
		return
	}
	reply := x.Pass()
	maps.Copy(x.w.Header(), reply.Header())
	x.w.WriteHeader(reply.Code)
	_, _ = x.w.Write(reply.Body.Bytes()) // a client that is gone needs no reply
}

func pemOf(certs ...*x509.Certificate) string {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a buffer takes everything
	}
	return out.String()
}
