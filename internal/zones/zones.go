// Package zones asks DNS and writes nothing: where a TXT record belongs, who must have it and who has it, what several
// views of a zone show, which CAA records a CA obeys, and what signatures are worth. It is handed facts about providers
// and never builds one. Writing, proving and forgetting records is left to package dns01.
package zones

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/cure"
	"autocertd/internal/dnsname"
)

// Check says which servers must be seen to have a record before the CA is asked to look.
type Check string

// The checks: every authoritative server of the zone, only the one that takes the updates, the configured resolvers after
// the authoritative servers, or none.
const (
	CheckAuthoritative Check = "authoritative"
	CheckPrimary       Check = "primary"
	CheckResolvers     Check = "resolvers"
	CheckNone          Check = "none"
)

// Provider holds the facts about a configured provider that asking needs.
type Provider struct {
	Name               string
	Zones              []string // zones that it serves, without trailing dot; empty for a lone provider that serves whatever its servers do
	Servers            []string // host:port of servers that know its zones first; empty for an HTTP API
	Key                *Key     // signs what is asked of Servers; nil asks unsigned
	Nameservers        []string // host:port of those that must have a record; empty for the zone's NS records
	Check              Check    // "" means CheckAuthoritative
	MinNameservers     int      // how many servers are enough; 0: all of them
	Settle             bool     // each server must be seen to have a record twice in a row
	PropagationTimeout time.Duration

	// ExplainKey finds out why a server doesn't take Key; nil where that can't be found out.
	ExplainKey func(ctx context.Context, server, name string) error
}

// servers returns the provider's own servers, which know its key.
func (p Provider) servers() []server {
	list := unsigned(p.Servers)
	for i := range list {
		list[i].key = p.Key
	}
	return list
}

// keyAt returns the key that a server at an address knows: those that take updates know it, others may not.
func (p Provider) keyAt(addr string) *Key {
	if slices.Contains(p.Servers, addr) {
		return p.Key
	}
	return nil
}

// Config says what an Asker needs beside providers.
type Config struct {
	Logger *slog.Logger // nil logs nothing

	// System returns this machine's resolvers, host:port; nil reads /etc/resolv.conf.
	System func() ([]string, error)

	// Answered is called with the name of a provider whose servers answer again after they had been silent: what failed for
	// want of an answer may be tried at once. It must return soon. Nil is fine.
	Answered func(provider string)
}

const defaultPropagationTimeout = 2 * time.Minute

// Asker asks DNS by one configuration, which never changes. Askers that come from one another by With share what they
// learned of servers, and the goroutines that watch them.
type Asker struct {
	*memory
	providers []Provider
	resolving []string // configured resolvers, host:port
	hostnames []string // for hints; see With
	searches  *searches
}

// memory holds what all askers of a process learned.
type memory struct {
	cfg      Config
	watching sync.WaitGroup // the goroutines of watched

	// mu guards what follows. It is never held while a server is waited for.
	mu        sync.Mutex
	silent    map[string]bool   // providers whose servers were silent the last time
	located   map[string]bool   // zones that names were found in
	unheard   time.Time         // when this machine's resolvers didn't answer; zero when they did
	answering map[string]string // by provider, the one of its servers that answered last
	watched   map[server]*watched
	warned    map[Zone]time.Time // when it was logged last that servers are late
}

// New returns an Asker without providers and resolvers; see With. It needs no Close unless Wait or Watch was called.
func New(cfg Config) *Asker {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.System == nil {
		cfg.System = systemResolvers
	}
	a := &Asker{memory: &memory{
		cfg:       cfg,
		silent:    map[string]bool{},
		located:   map[string]bool{},
		answering: map[string]string{},
		watched:   map[server]*watched{},
		warned:    map[Zone]time.Time{},
	}}
	return a.With(nil, nil)
}

// With returns an Asker with other providers and resolvers, host:port; without resolvers it asks this machine's about what
// no server of a provider knows. The hostnames are all that are configured: when one is in no zone, the error says which
// zones the others are in.
func (a *Asker) With(providers []Provider, resolvers []string, hostnames ...string) *Asker {
	providers = slices.Clone(providers) // the defaults are ours
	for i := range providers {
		p := &providers[i]
		if p.Check == "" {
			p.Check = CheckAuthoritative
		}
		if p.PropagationTimeout == 0 {
			p.PropagationTimeout = defaultPropagationTimeout
		}
	}
	return &Asker{
		memory:    a.memory,
		providers: providers,
		resolving: resolvers,
		hostnames: hostnames,
		searches:  &searches{zones: map[Zone]*search{}},
	}
}

// Close waits until no server is watched any more. It is called when all calls of Wait and Watch have returned.
func (a *Asker) Close() { a.watching.Wait() }

// ErrNoProvider says why nothing can be asked or written for a provider that a reload took away.
var ErrNoProvider = errors.New("the provider isn't in the configuration any more")

func (a *Asker) provider(name string) (Provider, bool) {
	i := slices.IndexFunc(a.providers, func(p Provider) bool { return p.Name == name })
	if i < 0 {
		return Provider{}, false
	}
	return a.providers[i], true
}

func (a *Asker) zones() (zones []string) {
	for _, p := range a.providers {
		zones = append(zones, p.Zones...)
	}
	return zones
}

// ProviderFor returns the provider that serves a name; see [Serving].
func (a *Asker) ProviderFor(name string) (best Provider, zone string, ok bool) {
	return Serving(a.providers, name)
}

// Serving returns the provider with the longest zone that holds a name, and that zone. A lone provider without zones serves
// whatever its servers do, and the zone is "".
func Serving(list []Provider, name string) (best Provider, zone string, ok bool) {
	if len(list) == 1 && len(list[0].Zones) == 0 {
		return list[0], "", true
	}
	for _, p := range list {
		for _, z := range p.Zones {
			if dnsname.In(name, z) && (!ok || len(z) > len(zone)) {
				best, zone, ok = p, z, true
			}
		}
	}
	return best, zone, ok
}

// named reports whether a provider names a zone that holds the name, other than the given one.
func (a *Asker) named(name, other string) bool {
	return slices.ContainsFunc(a.zones(), func(zone string) bool { return zone != other && dnsname.In(name, zone) })
}

// noteZone remembers a zone that a name was found in.
func (a *Asker) noteZone(zone string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.located[zone] = true
}

// KnownZones returns the zones that the providers name, and those that names were found in.
func (a *Asker) KnownZones() []string {
	zones := a.zones()
	a.mu.Lock()
	defer a.mu.Unlock()
	for zone := range a.located {
		zones = append(zones, zone)
	}
	slices.Sort(zones)
	return slices.Compact(zones)
}

// anyZone returns a zone whose servers can be asked whether they answer at all.
func (p Provider) anyZone() string {
	if len(p.Zones) > 0 {
		return p.Zones[0]
	}
	return "."
}

// anyServers reports whether the servers of some zones are named, so that this machine's view of DNS isn't wanted.
func (a *Asker) anyServers() bool {
	return slices.ContainsFunc(a.providers, func(p Provider) bool { return len(p.Servers) > 0 })
}

// knowing returns the servers that know a provider's zones: its own, else the resolvers, which are asked to recurse.
func (a *Asker) knowing(p Provider) (servers []server, recurse bool, err error) {
	if len(p.Servers) > 0 {
		return p.servers(), false, nil
	}
	resolvers, err := a.resolvers()
	return unsigned(resolvers), true, err
}

// resolvers returns the configured resolvers, else this machine's.
func (a *Asker) resolvers() ([]string, error) {
	if len(a.resolving) > 0 {
		return a.resolving, nil
	}
	return a.cfg.System()
}

// unheardFor is the time for which this machine's resolvers aren't asked again when they didn't answer.
const unheardFor = time.Minute

// ownResolvers returns this machine's resolvers, unless they didn't answer a moment ago.
func (a *Asker) ownResolvers() ([]string, error) {
	a.mu.Lock()
	unheard := !a.unheard.IsZero() && time.Since(a.unheard) < unheardFor
	a.mu.Unlock()
	if unheard {
		return nil, errors.New("this machine's resolvers don't answer")
	}
	return a.cfg.System()
}

// noteOwnResolvers notes by a result whether this machine's resolvers answered.
func (a *Asker) noteOwnResolvers(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unheard = (time.Time{}); Silent(err) {
		a.unheard = time.Now()
	}
}

// Note notes by the result of an update or a question whether a provider's servers answered, and calls Config.Answered when
// they do again. A call that was broken off says nothing.
func (a *Asker) Note(provider string, err error) {
	silent := Silent(err)
	if !silent && errors.Is(err, context.Canceled) {
		return
	}
	a.mu.Lock()
	again := a.silent[provider] && !silent
	if again {
		delete(a.silent, provider)
	} else if silent {
		a.silent[provider] = true
	}
	a.mu.Unlock()
	if again && a.cfg.Answered != nil {
		a.cfg.Answered(provider)
	}
}

// askOwn asks a provider's own servers in turn, the one that answered last first: a dead one costs its time once.
func (a *Asker) askOwn(ctx context.Context, p Provider, q *dns.Msg) (*dns.Msg, error) {
	servers := p.servers()
	a.mu.Lock()
	good := slices.IndexFunc(servers, func(at server) bool { return at.addr == a.answering[p.Name] })
	a.mu.Unlock()
	if good > 0 {
		servers[0], servers[good] = servers[good], servers[0]
	}
	var failures []error
	for _, at := range servers {
		reply, err := askFirst(ctx, []server{at}, q)
		if err == nil {
			a.mu.Lock()
			a.answering[p.Name] = at.addr
			a.mu.Unlock()
			a.Note(p.Name, nil)
			return reply, nil
		}
		failures = append(failures, err)
	}
	err := cure.Join(failures...)
	a.Note(p.Name, err)
	return nil, err
}
