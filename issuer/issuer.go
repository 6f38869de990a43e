package issuer

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"

	"autocertd/internal/dnschallenge"
)

// Issuer is one CA with one account.
type Issuer struct {
	cfg     Config
	http    *http.Client
	client  *client
	stored  accountStore
	slots   chan struct{} // of the orders that talk to the CA at a time
	contact chan struct{} // held by the order that makes the first requests; see firstContact
	health  health

	changing chan struct{} // held while the account is made or changed, so that this happens once
	known    atomic.Pointer[knownAccount]
	informed atomic.Bool // UpdateContact was called
}

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
	client := newClient(cfg, base)
	return &Issuer{
		cfg:      cfg,
		http:     client.http,
		client:   client,
		stored:   accountStore{cfg},
		slots:    make(chan struct{}, cfg.Concurrency),
		contact:  make(chan struct{}, 1),
		changing: make(chan struct{}, 1),
	}, nil
}

// Name returns the name of the CA in the configuration.
func (i *Issuer) Name() string { return i.cfg.Name }

// DirectoryURL returns the URL of the CA's directory.
func (i *Issuer) DirectoryURL() string { return i.cfg.Directory }

// Argument names the CA in a command that a message proposes: by its name, or by the flag where flags name it.
func (i *Issuer) Argument() string { return i.cfg.argument() }

// Close drops idle connections.
func (i *Issuer) Close() { i.http.CloseIdleConnections() }

func (i *Issuer) String() string { return fmt.Sprintf("CA %s (%s)", i.cfg.Name, i.cfg.Directory) }

// call makes the requests of a step, and returns the facts of the last reply. Its error is an *Error, with the Retry-After of
// that reply.
func (i *Issuer) call(ctx context.Context, step string, request func(ctx context.Context) error) (reply, error) {
	var r reply
	err := request(with(ctx, func(f *facts) { f.reply = &r }))
	return r, i.cfg.failed(step, r, err)
}
