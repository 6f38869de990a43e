// Package dns01 is the only writer of TXT records: it gathers the records of all running orders into one update per zone,
// has package zones wait until every server has them, removes them, and remembers in a journal what it must still remove.
// Providers are handed to it; what orders are and why they want records is left to the issuer.
package dns01

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"autocertd/internal/zones"
)

// Config says what a Solver needs beside providers.
type Config struct {
	Storage Storage
	Zones   *zones.Asker // asks DNS; closed with the solver. Nil makes one of its own.
	Logger  *slog.Logger // nil logs nothing

	// OpenHostnames lists the hostnames of the orders that are open, in this process and in others. While one of those
	// may go on after a crash, a record that the dead process published for its hostname isn't removed. Nil: none is
	// open.
	OpenHostnames func(ctx context.Context) (hostnames []string, err error)
}

// Solver implements issuer.Solver for all orders of the process. An order has one of its own: it shares everything with the
// others but the table, which stays the one that the order began with.
type Solver struct {
	*shared
	began *table // nil: what is configured at the moment
}

// shared holds the state that all orders have in common.
type shared struct {
	cfg     Config
	current atomic.Pointer[table]
	journal *journal
	ctx     context.Context // of all that is sent; ended by stop, since orders come and go while a group is on its way
	stop    context.CancelFunc

	// mu guards what follows, and the records. It is never held while a server or storage is waited for.
	mu       sync.Mutex
	queues   map[zones.Zone]*queue
	records  map[zones.TXT]*record
	expected int // solutions that haven't published yet: worth waiting for
	active   int // solutions that haven't ended yet: their removals are still to come
	closing  bool
	closed   bool          // no queue begins to send any more
	running  int           // queues whose goroutine runs
	idle     chan struct{} // closed when none runs any more; nil before the first
}

// queue gathers what is to be written into one zone by one provider. One group at a time is on its way: BIND commits an
// update message with two fsyncs and one at a time per zone, so fewer messages beat faster ones.
//
// The solver's mu guards all fields.
type queue struct {
	zone        zones.Zone
	solver      *Solver
	additions   []addition
	removals    []*record
	firstAdd    time.Time
	lastAdd     time.Time
	firstRemove time.Time
	busy        bool          // its goroutine runs
	poke        chan struct{} // the goroutine should look again
}

// addition is a record on its way into the zone, and the channel where its order waits for the result.
type addition struct {
	record *record
	result chan<- error
}

// New makes a solver without providers; see Adopt. It must be closed.
func New(cfg Config) *Solver {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Zones == nil {
		cfg.Zones = zones.New(zones.Config{Logger: cfg.Logger})
	}
	s := &Solver{shared: &shared{
		cfg:     cfg,
		journal: newJournal(cfg.Storage, cfg.Logger),
		queues:  map[zones.Zone]*queue{},
		records: map[zones.TXT]*record{},
	}}
	s.current.Store(&table{asker: cfg.Zones})
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// With returns a solver with other providers and resolvers, host:port, for the orders that begin with it and for as long as
// they last. It changes nothing for others, and needs no Close. The hostnames are all that are configured: when one is in no
// zone, the error says which zones the others are in.
func (s *Solver) With(providers []Provider, resolvers []string, hostnames ...string) *Solver {
	return s.during(newTable(s.cfg.Zones, providers, resolvers, hostnames))
}

// Adopt makes the providers and resolvers of a solver that With returned those of all that begins from now on. Orders that
// have begun go on with the ones that they found. A record whose provider is gone is removed by it as long as the process
// remembers it; those of earlier processes wait until it is back, and are removed by the next Sweep then.
func (s *Solver) Adopt(other *Solver) {
	s.current.Store(other.table())
	s.Zones().Forget()
}

// Zones returns what asks DNS by the solver's configuration.
func (s *Solver) Zones() *zones.Asker { return s.table().asker }

// during returns the solver that goes by a table for as long as it lives.
func (s *Solver) during(t *table) *Solver { return &Solver{shared: s.shared, began: t} }

// table returns what the solver goes by.
func (s *Solver) table() *table {
	if s.began != nil {
		return s.began
	}
	return s.current.Load()
}

// Left returns how many records are published or still to be removed.
func (s *Solver) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

// Took reports whether a sweep has made the record's slot of the journal ours. It is asked before the solver is closed.
func (s *Solver) Took(r JournalRecord) bool { return s.journal.has(r.Object) }

// Unremoved reports whether a record of ours is still to be removed, and why the last try failed. The journal alone doesn't
// say so: an entry stays whole until the last of its records is removed.
func (s *Solver) Unremoved(r JournalRecord) (still bool, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.records[r.TXT]
	if known == nil {
		return false, nil
	}
	return true, known.failure
}
