// Package issuer speaks ACME (RFC 8555, RFC 9773) with one CA: account, orders step by step, finalize, renewal
// information. It never touches DNS or disk: records go through a Solver, accounts and open orders through a Storage
// and a Request, both of which the caller provides.
package issuer

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/store"
)

// Record is a TXT record that proves control of a hostname, see dnschallenge.
type Record struct {
	Name  string // fully qualified, no trailing dot: _acme-challenge.host.example.com
	Value string
}

// Solver publishes the records of orders. Begin announces an order that will probably publish soon, so that the solver
// can gather the records of several orders into one update.
type Solver interface {
	Begin() Solution
}

// Solution is the solver's side of one order. Publish and Wait are each called at most once, in this order; Remove
// ends the solution, whatever happened before, and may be called again.
type Solution interface {
	// Publish returns nil when the zones' servers have accepted every record.
	Publish(ctx context.Context, records []Record) error
	// Wait returns nil when every server that must have the records was seen to have them. seen is told of progress:
	// how many of the servers have all of them.
	Wait(ctx context.Context, seen func(have, want int)) error
	// Remove makes sure that the records go, now or later; it doesn't wait for that.
	Remove()
}

// Storage keeps accounts, each of which is written under a lease.
type Storage interface {
	store.Reader
	Acquire(ctx context.Context, name string) (store.Lease, error)
}

// EAB is an external account binding (RFC 8555 section 7.3.4).
type EAB struct {
	KeyID   string
	HMACKey string // base64url, as the CA hands it out
}

// Config says which CA, and as whom.
type Config struct {
	Name           string              // what the configuration calls the CA
	Directory      string              // its directory URL
	Email          string              // the account's contact, or ""
	AcceptTerms    bool                // without it no account is registered
	EAB            *EAB                // nil for most CAs
	Hosts          []string            // host or host:port that the CA's URLs may lead to besides the directory's
	Roots          []*x509.Certificate // trusted for the CA's own HTTPS, instead of the system's
	Profile        string              // for requests that name none; "" for the CA's default
	PreferredChain string              // the wanted root: its common name or its SHA-256 fingerprint in hex; "" for the CA's default
	Challenges     []dnschallenge.Type // of which the first that the CA offers is answered; nil for dns-01
	Concurrency    int                 // orders that talk to the CA at a time; 0 means 16
	Patience       time.Duration       // how long an attempt waits for the CA to decide, before the order is left for later; 0 means 5 min
	Impasse        time.Duration       // when a validation that the CA says is running, and that doesn't end, is given up; 0 means 2 min
	ByFlags        bool                // flags name the CA, not a table of the configuration, so that cures name flags
	UserAgent      string
	Storage        Storage
	Solver         Solver
	Logger         *slog.Logger
	Transport      http.RoundTripper // nil for a real one that trusts Roots; tests put faults here
}

// Issuer is one CA with one account.
type Issuer struct {
	cfg    Config
	http   *http.Client
	client *client
	slots  chan struct{}
	door   chan struct{} // see knock

	answers answers

	mu      sync.Mutex // guards what follows; held while the account is being made, so that it is made once
	account *acme.Account
	stored  accountFiles // what account was made of
	told    bool         // UpdateContact was here
}

// What the zero values of a Config stand for.
const (
	defaultConcurrency = 16
	defaultPatience    = 5 * time.Minute
	defaultImpasse     = 2 * time.Minute
)

// New makes an issuer. It asks the CA nothing yet.
func New(cfg Config) (*Issuer, error) {
	cfg.Concurrency = cmp.Or(cfg.Concurrency, defaultConcurrency)
	cfg.Patience = cmp.Or(cfg.Patience, defaultPatience)
	cfg.Impasse = cmp.Or(cfg.Impasse, defaultImpasse)
	if len(cfg.Challenges) == 0 {
		cfg.Challenges = []dnschallenge.Type{dnschallenge.DNS01}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	base := cfg.Transport
	if base == nil {
		base = newTransport(cfg.Roots, cfg.Concurrency)
	}
	i := &Issuer{cfg: cfg, slots: make(chan struct{}, cfg.Concurrency), door: make(chan struct{}, 1)}
	i.client = newClient(cfg, base)
	i.http = i.client.http
	return i, nil
}

// Name is what the configuration calls the CA.
func (i *Issuer) Name() string { return i.cfg.Name }

// DirectoryURL is the CA's directory URL.
func (i *Issuer) DirectoryURL() string { return i.cfg.Directory }

// Close drops idle connections.
func (i *Issuer) Close() { i.http.CloseIdleConnections() }

func (i *Issuer) String() string { return fmt.Sprintf("CA %s (%s)", i.cfg.Name, i.cfg.Directory) }
