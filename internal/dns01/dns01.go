// Package dns01 is the only writer of TXT records: it finds the zone to write to, gathers the records of all running
// orders into one update per zone, waits until every server has them, removes them, and remembers in a journal what it
// must still remove. Providers are handed to it; what orders are and why they want records is the issuer's business.
package dns01

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/libdns/libdns"

	"autocertd/issuer"
)

// Client writes records into zones. Both methods must be idempotent and safe for concurrent use, and delete only the
// exact values given.
type Client interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Check says which servers must be seen to have a record before the CA is asked to look.
type Check string

// What may be checked: every authoritative server of the zone, only the one that takes the updates, or none.
const (
	CheckAuthoritative Check = "authoritative"
	CheckPrimary       Check = "primary"
	CheckNone          Check = "none"
)

// Provider is a configured way to write records into zones.
type Provider struct {
	Name               string
	Client             Client
	Zones              []string // zones that it serves, without trailing dot; empty for a lone provider that serves what it serves
	Servers            []string // host:port of servers that know its zones first; empty for an HTTP API
	Nameservers        []string // host:port of those who must have a record; empty for the zone's NS records
	Check              Check    // "" means CheckAuthoritative
	PropagationTimeout time.Duration
	TTL                time.Duration
}

// Storage keeps the journal. Save returns nil when the object is durable; TryLock fails at once when another process
// holds the lock.
type Storage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Save(ctx context.Context, key string, data []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix string) ([]string, error)
	TryLock(ctx context.Context, name string) (unlock func(), err error)
}

// Config is what a Solver needs beside providers.
type Config struct {
	Storage   Storage
	Resolvers []string // host:port of recursive resolvers, asked only about zones that no server of ours knows; empty for the system's
	Logger    *slog.Logger
}

const (
	defaultTTL                = time.Minute
	defaultPropagationTimeout = 2 * time.Minute
)

// recordKey names one record: exactly this value, at this name, in this zone, written by this provider. Names are lower
// case without trailing dot.
type recordKey struct{ provider, zone, name, value string }

// record is a record that we published, or are about to, and haven't removed.
type record struct {
	recordKey
	users    int      // solutions that need it; two orders may share an authorization
	groups   []*group // journal objects that hold it
	leaving  bool     // in its queue's removals
	sending  bool     // taken from its queue's additions, and not yet settled
	failures int      // removals that failed
	retryAt  time.Time
}

type zoneKey struct{ provider, zone string }

// Solver implements issuer.Solver for all orders of the process.
type Solver struct {
	cfg      Config
	watchers watchers

	// What follows is guarded by mu, which is never held while a server is waited for.
	mu        sync.Mutex
	providers []Provider
	queues    map[zoneKey]*queue
	records   map[recordKey]*record
	slots     map[string]func() // journal slots that are ours, with what gives them back
	slot      string            // the one that we write to; "" before the first record
	sequence  int64
	expected  int // solutions that haven't published yet: worth waiting for
	active    int // solutions that haven't ended yet: their removals are still to come
	closing   bool
	running   sync.WaitGroup
}

// New makes a solver without providers; see Configure.
func New(cfg Config) *Solver {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Solver{cfg: cfg, queues: map[zoneKey]*queue{}, records: map[recordKey]*record{}, slots: map[string]func(){}}
	s.watchers.solver = s
	return s
}

// Configure replaces the providers. Records on their way go on; those of a provider that is gone can't be removed until
// it is back.
func (s *Solver) Configure(providers []Provider) {
	for i := range providers {
		p := &providers[i]
		if p.Check == "" {
			p.Check = CheckAuthoritative
		}
		if p.TTL == 0 {
			p.TTL = defaultTTL
		}
		if p.PropagationTimeout == 0 {
			p.PropagationTimeout = defaultPropagationTimeout
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.providers = providers
	s.watchers.forget()
}

func (s *Solver) provider(name string) (Provider, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.providers {
		if p.Name == name {
			return p, true
		}
	}
	return Provider{}, false
}

// Begin implements issuer.Solver.
func (s *Solver) Begin() issuer.Solution {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected++
	s.active++
	return &solution{solver: s, expected: true}
}

// Close sends what still waits, removals above all, and gives the journal back. What can't be removed before the
// context ends stays in the journal for the next process.
func (s *Solver) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.pokeAll()
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.Join(errors.New("records are left in the journal; the next start removes them"), ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, release := range s.slots {
		release()
	}
	clear(s.slots)
	return err
}

// Left returns how many records are published or still to be removed.
func (s *Solver) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}
