// Package issuer speaks ACME (RFC 8555, RFC 9773) with one CA: account, orders step by step, finalize, renewal
// information. It never touches DNS or disk: records go through a Solver, accounts and open orders through a Storage
// and a Request, both of which the caller provides.
package issuer

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

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
	// Wait returns nil when every server that must have the records was seen to have them. seen is called with the progress:
	// how many of the servers have all of them.
	Wait(ctx context.Context, seen func(have, want int)) error
	// Remove has the records removed, now or later; it doesn't wait for that.
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

// Config describes a CA and our account there.
type Config struct {
	Name           string              // of the CA in the configuration
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

// What the zero values of a Config stand for.
const (
	defaultConcurrency = 16
	defaultPatience    = 5 * time.Minute
	defaultImpasse     = 2 * time.Minute
)

// setting says in a cure where something about the CA is set: in its table, or by a flag.
func (c Config) setting(inTable, flag string) string {
	if c.ByFlags {
		return flag
	}
	return fmt.Sprintf("%s below [ca.%s]", inTable, c.Name)
}

// methods lists the types of challenges that are answered.
func (c Config) methods(separator string) string {
	var list []string
	for _, t := range c.Challenges {
		list = append(list, string(t))
	}
	return strings.Join(list, separator)
}

// argument names the CA in a command.
func (c Config) argument() string {
	if c.ByFlags {
		return "--directory " + c.Directory
	}
	return c.Name
}
