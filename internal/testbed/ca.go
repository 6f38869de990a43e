package testbed

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// CAConfig says how the CA behaves. The zero value issues nothing, since it has no DNS server to ask.
type CAConfig struct {
	DNS                string                          // host:port that validations ask, by TCP
	Lifetime           time.Duration                   // of certificates; default: 90 days
	Profiles           map[string]time.Duration        // several lifetimes by profile, instead of Lifetime for "default"
	AuthzReusePercent  int                             // of new authorizations that an old one stands in for
	NonceRejectPercent int                             // of requests that are answered badNonce without a reason
	Wrap               func(http.Handler) http.Handler // goes in front of the ACME handler: faults, counters
	Log                io.Writer                       // default: nowhere
	Listen             string                          // default: a free port of 127.0.0.1
	EAB                map[string]string               // key id and base64url MAC key; if set, new accounts need one
}

// CA is an ACME server (RFC 8555, RFC 9773), Pebble, behind HTTPS.
//
// Pebble alone comes to a stand-still under concurrent orders; see guard, which lets one request in at a time.
type CA struct {
	server     *http.Server
	served     chan struct{}
	addr       string
	certPEM    []byte
	guard      *guard
	management http.Handler
	log        *lockedWriter
}

// StartCA starts a CA. Pebble takes some of its settings from the environment: they are there while StartCA runs, and
// what was there before is put back.
func StartCA(cfg CAConfig) (*CA, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	cert, certPEM, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("start CA: %w", err)
	}
	c := &CA{certPEM: certPEM, served: make(chan struct{}), log: &lockedWriter{w: cfg.Log}}
	logger := log.New(c.log, "", log.LstdFlags|log.Lmicroseconds)
	handler, err := c.pebble(cfg, logger)
	if err != nil {
		return nil, fmt.Errorf("start CA: %w", err)
	}
	if cfg.Wrap != nil {
		handler = cfg.Wrap(handler)
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("start CA: %w", err)
	}
	c.addr = listener.Addr().String()
	c.server = &http.Server{Handler: handler, TLSConfig: cert, ErrorLog: logger, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(c.served)
		c.server.ServeTLS(listener, "", "")
	}()
	return c, nil
}

// pebbleEnv keeps two CAs that start at once from mixing their settings up.
var pebbleEnv sync.Mutex

// pebble builds Pebble's parts and returns its ACME handler behind the guard.
func (c *CA) pebble(cfg CAConfig, logger *log.Logger) (http.Handler, error) {
	pebbleEnv.Lock()
	defer pebbleEnv.Unlock()
	for name, value := range map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_VA_ALWAYS_VALID": "0",
		"PEBBLE_WFE_NONCEREJECT": strconv.Itoa(cfg.NonceRejectPercent),
		"PEBBLE_AUTHZREUSE":      strconv.Itoa(cfg.AuthzReusePercent),
	} {
		if old, ok := os.LookupEnv(name); ok {
			defer os.Setenv(name, old)
		} else {
			defer os.Unsetenv(name)
		}
		os.Setenv(name, value)
	}
	store := db.NewMemoryStore()
	for id, key := range cfg.EAB {
		if store.AddExternalAccountKeyByID(id, key) != nil { // its error shows the key
			return nil, fmt.Errorf("external account key %q is not base64url", id)
		}
	}
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, cfg.profiles())
	validator := va.New(logger, 0, 0, false, cfg.DNS, store)
	front := wfe.New(logger, store, validator, issuer, []string{"ca.test"}, false, len(cfg.EAB) > 0, 0, 0)
	c.guard = &guard{store: store, handler: front.Handler(), proves: cfg.AuthzReusePercent == 0, requests: map[string]int{}}
	c.management = front.ManagementHandler()
	return c.guard, nil
}

func (cfg CAConfig) profiles() map[string]ca.Profile {
	lifetimes := cfg.Profiles
	if len(lifetimes) == 0 {
		lifetimes = map[string]time.Duration{"default": cfg.Lifetime}
	}
	profiles := map[string]ca.Profile{}
	for name, lifetime := range lifetimes { // 0 is Pebble's own default, 90 days
		profiles[name] = ca.Profile{Description: name, ValidityPeriod: uint64(lifetime / time.Second)}
	}
	return profiles
}

// Directory is the URL that ACME clients start from.
func (c *CA) Directory() string { return "https://" + c.addr + wfe.DirectoryPath }

// TLSRoots is what a client must trust to talk to the CA. It is not what issued certificates chain to.
func (c *CA) TLSRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.certPEM)
	return pool
}

// TLSRootsPEM is TLSRoots for those who read a file.
func (c *CA) TLSRootsPEM() []byte { return c.certPEM }

// IssuerRootPEM is the root that issued certificates chain to.
func (c *CA) IssuerRootPEM() ([]byte, error) {
	return c.manage(http.MethodGet, wfe.RootCertPath+"0", "")
}

// NewOrders says how many orders the CA has created.
func (c *CA) NewOrders() int {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	return c.guard.newOrders
}

// Requests says how many requests of each kind reached the CA behind Wrap. The kinds are the names of the directory
// (RFC 8555, 7.1.1) and besides: directory, account, order, finalize, authorization, challenge, certificate.
func (c *CA) Requests() map[string]int {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	return maps.Clone(c.guard.requests)
}

// SetRenewalInfo makes the CA answer the JSON text, as it is, when it is asked when to renew the certificate (RFC 9773).
func (c *CA) SetRenewalInfo(certPEM []byte, renewalInfo string) error {
	if block, _ := pem.Decode(certPEM); block != nil { // of a chain, the leaf
		certPEM = pem.EncodeToMemory(block)
	}
	body, err := json.Marshal(map[string]string{"Certificate": string(certPEM), "ARIResponse": renewalInfo})
	if err != nil {
		return err
	}
	_, err = c.manage(http.MethodPost, "/set-renewal-info/", string(body))
	return err
}

// CertStatus is "Valid" or "Revoked", for the hexadecimal serial number of a certificate of this CA.
func (c *CA) CertStatus(serial string) (string, error) {
	body, err := c.manage(http.MethodGet, "/cert-status-by-serial/"+serial, "")
	if err != nil {
		return "", err
	}
	var reply struct{ Status string }
	if err := json.Unmarshal(body, &reply); err != nil {
		return "", fmt.Errorf("status of certificate %s: %w", serial, err)
	}
	return reply.Status, nil
}

// manage calls Pebble's management interface, which is not on the network.
func (c *CA) manage(method, path, body string) ([]byte, error) {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	rec := httptest.NewRecorder()
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	request.Header.Set("User-Agent", "testbed") // Pebble insists
	c.management.ServeHTTP(rec, request)
	if rec.Code != http.StatusOK {
		return nil, fmt.Errorf("%s %s at the CA: status %d: %s", method, path, rec.Code, rec.Body)
	}
	return rec.Body.Bytes(), nil
}

// Close ends the server and all its connections. Validations that run go on, but write nothing more to the log.
func (c *CA) Close() error {
	err := c.server.Close()
	<-c.served
	c.log.close()
	return err
}
