// Package dns01 is the only writer of TXT records: it gathers the records of all running orders into one update per zone,
// has package zones wait until every server has them, removes them, and remembers in a journal what it must still remove.
// Providers are handed to it; what orders are and why they want records is left to the issuer.
package dns01

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/store"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// Client writes records into zones. Both methods must be idempotent and safe for concurrent use, return soon after their
// context ends, and delete only the exact values given. After an error any part of the records may have been written.
type Client interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Provider is a configured way to write records into zones: what asking needs to know of it, and who writes.
type Provider struct {
	zones.Provider
	Client  Client
	Manual  bool          // a person writes the records, and Client is never called
	Timeout time.Duration // how long one call may take; 0 for half a minute
	TTL     time.Duration
}

// Storage keeps the journal, whose slots are written through their leases.
type Storage interface {
	store.Reader
	store.Leaser
}

// Config says what a Solver needs beside providers.
type Config struct {
	Storage Storage
	Zones   *zones.Asker // asks DNS; closed with the solver. Nil makes one of its own.
	Logger  *slog.Logger

	// Wanted lists the hostnames of the orders that are open, whoever made them. While one of those may go on after a
	// crash, a record that the dead process published for its hostname isn't removed. Nil: none is open.
	Wanted func(ctx context.Context) (hostnames []string, err error)
}

const defaultTTL = time.Minute

// record is a record that we published, or are about to, and haven't removed.
type record struct {
	zones.TXT
	table     *table        // that of the order that published it; nil: of an earlier process, or its provider can't remove it
	challenge string        // the name that led here; name itself, unless that is an alias
	ttl       time.Duration // 0 for the provider's
	there     bool          // a server confirmed the addition
	users     int           // solutions that need it; two orders may share an authorization
	groups    []*group      // journal objects that hold it
	kept      time.Time     // until when it stays though nobody of ours uses it: an open order of a dead process may; zero for no time
	leaving   bool          // in its queue's removals, or taken from there and not yet settled
	sending   bool          // taken from its queue's additions, and not yet settled
	failures  int           // removals that failed in a row
	failure   error         // why the last of them failed
	retryAt   time.Time
}

// Solver implements issuer.Solver for all orders of the process. An order has one of its own: it shares everything with the
// others but the table, which stays the one that the order began with.
type Solver struct {
	*shared
	began *table // nil: what is configured at the moment
}

// table is what one configuration says. It is never changed; Adopt puts another in its place.
type table struct {
	providers []Provider
	asker     *zones.Asker // knows the same providers
}

// shared is what all orders have in common.
type shared struct {
	cfg     Config
	current atomic.Pointer[table]
	tasks   tasks
	ctx     context.Context // of all that is sent; ended by stop
	stop    context.CancelFunc

	// journal guards what follows and is taken before mu. It is held while storage is waited for.
	journal  sync.Mutex
	slots    map[string]store.Lease // journal slots that are ours; nil when the solver is closed
	slot     string                 // the one that we write to; "" before the first record
	unfit    map[string]bool        // slots that are ours and can't be written
	aside    map[string]bool        // objects and slots that can't be read, which was told
	sequence int64

	// mu guards what follows. It is never held while a server or storage is waited for.
	mu       sync.Mutex
	queues   map[zones.Zone]*queue
	records  map[zones.TXT]*record
	expected int // solutions that haven't published yet: worth waiting for
	active   int // solutions that haven't ended yet: their removals are still to come
	closing  bool
}

// New makes a solver without providers; see Configure. It must be closed.
func New(cfg Config) *Solver {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Zones == nil {
		cfg.Zones = zones.New(zones.Config{Logger: cfg.Logger})
	}
	s := &Solver{shared: &shared{
		cfg:     cfg,
		slots:   map[string]store.Lease{},
		unfit:   map[string]bool{},
		aside:   map[string]bool{},
		queues:  map[zones.Zone]*queue{},
		records: map[zones.TXT]*record{},
	}}
	s.current.Store(&table{asker: cfg.Zones})
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// during returns the solver that goes by a table for as long as it lives.
func (s *Solver) during(t *table) *Solver { return &Solver{shared: s.shared, began: t} }

// table returns what the solver goes by.
func (s *Solver) table() *table {
	if s.began != nil {
		return s.began
	}
	return s.current.Load()
}

// Zones returns what asks DNS by the solver's configuration.
func (s *Solver) Zones() *zones.Asker { return s.table().asker }

// With returns a solver with other providers and resolvers, host:port, for the orders that begin with it and for as long as
// they last. It changes nothing for others, and needs no Close. The hostnames are all that are configured: when one is in no
// zone, the error says which zones the others are in.
func (s *Solver) With(providers []Provider, resolvers []string, hostnames ...string) *Solver {
	providers = slices.Clone(providers) // the defaults are ours
	for i := range providers {
		providers[i].TTL = cmp.Or(providers[i].TTL, defaultTTL)
	}
	return s.during(&table{
		providers: providers,
		asker:     s.cfg.Zones.With(Facts(providers), resolvers, hostnames...),
	})
}

// Facts returns what asking needs to know of providers.
func Facts(providers []Provider) []zones.Provider {
	facts := make([]zones.Provider, len(providers))
	for i, p := range providers {
		facts[i] = p.Provider
	}
	return facts
}

// Adopt makes the providers and resolvers of a solver that With returned those of all that begins from now on. Orders that
// have begun go on with the ones that they found. A record whose provider is gone is removed by it as long as the process
// remembers it; those of earlier processes wait until it is back, and are removed by the next Sweep then.
func (s *Solver) Adopt(other *Solver) {
	s.current.Store(other.table())
	s.Zones().Forget()
}

func (s *Solver) provider(name string) (Provider, bool) { return s.table().provider(name) }

func (t *table) provider(name string) (Provider, bool) {
	i := slices.IndexFunc(t.providers, func(p Provider) bool { return p.Name == name })
	if i < 0 {
		return Provider{}, false
	}
	return t.providers[i], true
}

// Begin implements issuer.Solver.
func (s *Solver) Begin() issuer.Solution { return s.begin() }

func (s *Solver) begin() *solution {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected++
	s.active++
	return &solution{solver: s.during(s.table()), expected: true}
}

// errClosed is what orders hear that come too late.
var errClosed = errors.New("no more records are published: the program is stopping")

// Close sends what still waits, removals above all, tries once more what couldn't be removed, and gives the journal back.
// When the context ends it breaks off. It is called when the orders have ended; nothing is sent after it. What could not
// be removed is an error, and stays in the journal for the next process.
func (s *Solver) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.releaseKept(func(*record) bool { return true })
	s.pokeAll()
	s.mu.Unlock()
	s.finish(ctx)
	if ctx.Err() == nil {
		s.retryNow(ctx)
	}
	s.tasks.close()
	s.finish(ctx)
	s.cfg.Zones.Close()
	s.stop()
	s.journal.Lock()
	for _, lease := range s.slots {
		lease.Release()
	}
	s.slots = nil
	s.journal.Unlock()
	return s.leftBehind(ctx.Err())
}

// finish waits until nothing is on its way; when the context ends, it stops what is.
func (s *Solver) finish(ctx context.Context) {
	idle := s.tasks.idle()
	select {
	case <-idle:
	case <-ctx.Done():
		s.stop()
		<-idle
	}
}

// leftBehind says how many records stay behind and why. Those of a provider that is gone were told of when it went.
func (s *Solver) leftBehind(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, sure := 0, true
	for _, r := range s.records {
		if len(r.groups) == 0 || errors.Is(r.failure, zones.ErrNoProvider) {
			continue
		}
		n++
		sure = sure && r.there
		if why == nil {
			why = r.failure
		}
	}
	switch {
	case n == 0:
		return nil
	case why == nil:
		why = errors.New("their orders haven't ended")
	}
	records, are, them := "records", "are still", "they are in the journal, and the next start removes them"
	if n == 1 {
		records, are, them = "record", "is still", "it is in the journal, and the next start removes it"
	}
	if !sure { // no server said that all of them had been published
		are = "may be"
	}
	return fmt.Errorf("%d TXT %s %s published; %s: %w", n, records, are, them, why)
}

// Left returns how many records are published or still to be removed.
func (s *Solver) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}
