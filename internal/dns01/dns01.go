// Package dns01 is the only writer of TXT records: it finds the zone to write to, gathers the records of all running
// orders into one update per zone, waits until every server has them, removes them, and remembers in a journal what it
// must still remove. Providers are handed to it; what orders are and why they want records is the issuer's business.
package dns01

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/secret"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// Client writes records into zones. Both methods must be idempotent and safe for concurrent use, return soon after their
// context ends, and delete only the exact values given. After an error any part of the records may have been written.
type Client interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Check says which servers must be seen to have a record before the CA is asked to look.
type Check string

// What may be checked: every authoritative server of the zone, only the one that takes the updates, the configured
// resolvers after the authoritative servers, or none.
const (
	CheckAuthoritative Check = "authoritative"
	CheckPrimary       Check = "primary"
	CheckResolvers     Check = "resolvers"
	CheckNone          Check = "none"
)

// Provider is a configured way to write records into zones.
type Provider struct {
	Name               string
	Client             Client
	Zones              []string      // zones that it serves, without trailing dot; empty for a lone provider that serves what it serves
	Servers            []string      // host:port of servers that know its zones first; empty for an HTTP API
	Key                *Key          // signs what is asked of Servers; nil asks unsigned
	Nameservers        []string      // host:port of those who must have a record; empty for the zone's NS records
	Check              Check         // "" means CheckAuthoritative
	MinNameservers     int           // how many servers are enough; 0: all of them
	Settle             bool          // each server must be seen to have a record twice in a row
	Timeout            time.Duration // how long one call may take; 0 for half a minute
	PropagationTimeout time.Duration
	TTL                time.Duration
}

// Key signs queries (RFC 8945), so that a server with several views answers from the one that the key opens.
type Key struct {
	Name      string
	Algorithm string
	Secret    secret.Secret // base64
}

// Storage keeps the journal, whose slots are written through their leases.
type Storage interface {
	store.Reader
	store.Leaser
}

// Config is what a Solver needs beside providers.
type Config struct {
	Storage   Storage
	Resolvers []string // host:port of recursive resolvers, asked about what no server of ours knows; empty for the system's
	Logger    *slog.Logger

	// System finds this machine's resolvers, host:port; nil reads /etc/resolv.conf.
	System func() ([]string, error)

	// Answered is told the name of a provider whose servers answer again after they had been silent: what failed for want of
	// an answer may be tried at once. It must return soon. Nil is fine.
	Answered func(provider string)

	// Wanted lists the hostnames of the orders that are open, whoever made them. While one of those may go on after a
	// crash, a record that the dead process published for its hostname isn't removed. Nil: none is open.
	Wanted func(ctx context.Context) (hostnames []string, err error)
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

type zoneKey struct{ provider, zone string }

// Solver implements issuer.Solver for all orders of the process. An order has one of its own: it shares everything with the
// others but the table, which stays the one that the order began with.
type Solver struct {
	*shared
	began    *table // nil: what is configured at the moment
	watchers watchers
}

// table is what one configuration says. It is never changed; Use puts another in its place.
type table struct {
	providers []Provider
	resolving []string // configured resolvers, host:port
	hostnames []string // for hints; see With
}

// shared is what all orders have in common.
type shared struct {
	cfg       Config
	system    func() ([]string, error) // this machine's resolvers
	current   atomic.Pointer[table]
	sightings *sightings
	tasks     tasks
	ctx       context.Context // of all that is sent; ended by stop
	stop      context.CancelFunc

	// journal guards what follows and is taken before mu. It is held while storage is waited for.
	journal  sync.Mutex
	slots    map[string]store.Lease // journal slots that are ours; nil when the solver is closed
	slot     string                 // the one that we write to; "" before the first record
	unfit    map[string]bool        // slots that are ours and can't be written
	aside    map[string]bool        // objects and slots that can't be read, which was told
	sequence int64

	// mu guards what follows. It is never held while a server or storage is waited for.
	mu        sync.Mutex
	mute      map[string]bool   // providers whose servers were silent the last time
	located   map[string]bool   // zones that names were found in
	deaf      time.Time         // when this machine's resolvers didn't answer
	answering map[string]string // by provider, the one of its servers that answered last
	queues    map[zoneKey]*queue
	records   map[recordKey]*record
	expected  int // solutions that haven't published yet: worth waiting for
	active    int // solutions that haven't ended yet: their removals are still to come
	closing   bool
}

// New makes a solver without providers; see Configure. It must be closed.
func New(cfg Config) *Solver {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.System == nil {
		cfg.System = systemResolvers
	}
	s := &Solver{shared: &shared{cfg: cfg, system: cfg.System, slots: map[string]store.Lease{},
		unfit: map[string]bool{}, aside: map[string]bool{}, answering: map[string]string{}, located: map[string]bool{}, mute: map[string]bool{},
		queues: map[zoneKey]*queue{}, records: map[recordKey]*record{}, sightings: &sightings{}}}
	s.current.Store(&table{resolving: cfg.Resolvers})
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.watchers = watchers{s.sightings, s}
	return s
}

// during returns the solver that goes by a table for as long as it lives.
func (s *Solver) during(t *table) *Solver {
	view := &Solver{shared: s.shared, began: t}
	view.watchers = watchers{s.sightings, view}
	return view
}

// table returns what the solver goes by.
func (s *Solver) table() *table {
	if s.began != nil {
		return s.began
	}
	return s.current.Load()
}

// Configure is Use with the resolvers that there are.
func (s *Solver) Configure(providers []Provider) { s.Use(providers, s.recursive()) }

// UseResolvers is Use with the providers that there are.
func (s *Solver) UseResolvers(list []string) { s.Use(s.table().providers, list) }

// Use replaces the providers and the resolvers, host:port; see With and Adopt.
func (s *Solver) Use(providers []Provider, resolvers []string) { s.Adopt(s.With(providers, resolvers)) }

// With returns a solver with other providers and resolvers, for the orders that begin with it and for as long as they last.
// It changes nothing for others, and needs no Close. The hostnames are all that are configured: when one is in no zone, the
// error says which zones the others are in.
func (s *Solver) With(providers []Provider, resolvers []string, hostnames ...string) *Solver {
	providers = slices.Clone(providers) // the defaults are ours
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
	return s.during(&table{providers: providers, resolving: resolvers, hostnames: hostnames})
}

// Adopt makes the providers and resolvers of a solver that With returned those of all that begins from now on. Orders that
// have begun go on with the ones that they found. A record whose provider is gone is removed by it as long as the process
// remembers it; those of earlier processes wait until it is back, and are removed by the next Sweep then.
func (s *Solver) Adopt(other *Solver) {
	s.current.Store(other.table())
	s.sightings.forget()
}

// recursive returns the configured resolvers.
func (s *Solver) recursive() []string { return s.table().resolving }

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
		if len(r.groups) == 0 || errors.Is(r.failure, errNoProvider) {
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
