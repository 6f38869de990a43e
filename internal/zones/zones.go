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
	Zones              []string // zones that it serves, without trailing dot; empty for a lone provider that serves what it serves
	Servers            []string // host:port of servers that know its zones first; empty for an HTTP API
	Key                *Key     // signs what is asked of Servers; nil asks unsigned
	Nameservers        []string // host:port of those who must have a record; empty for the zone's NS records
	Check              Check    // "" means CheckAuthoritative
	MinNameservers     int      // how many servers are enough; 0: all of them
	Settle             bool     // each server must be seen to have a record twice in a row
	PropagationTimeout time.Duration

	// ExplainKey finds out why a server doesn't take Key; nil where nobody can.
	ExplainKey func(ctx context.Context, server, name string) error
}

// servers are the provider's own, which know its key.
func (p Provider) servers() []server {
	list := unsigned(p.Servers)
	for i := range list {
		list[i].key = p.Key
	}
	return list
}

// keyAt is the key that a server at that address knows: those that take updates know it, others may not.
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
	mute      map[string]bool   // providers whose servers were silent the last time
	located   map[string]bool   // zones that names were found in
	deaf      time.Time         // when this machine's resolvers didn't answer
	answering map[string]string // by provider, the one of its servers that answered last
	watched   map[server]*watched
	told      map[Zone]time.Time // when it was logged last that servers are late
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
		mute:      map[string]bool{},
		located:   map[string]bool{},
		answering: map[string]string{},
		watched:   map[server]*watched{},
		told:      map[Zone]time.Time{},
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
func (a *Asker) Close() {
	a.watching.Wait()
}

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

// providerFor returns the provider with the longest zone that holds the name. A lone provider without zones serves
// whatever its servers do.
func (a *Asker) providerFor(name string) (best Provider, ok bool) {
	providers := a.providers
	if len(providers) == 1 && len(providers[0].Zones) == 0 {
		return providers[0], true
	}
	longest := -1
	for _, p := range providers {
		for _, zone := range p.Zones {
			if inZone(name, zone) && len(zone) > longest {
				best, longest = p, len(zone)
			}
		}
	}
	return best, longest >= 0
}

// ProviderFor returns the provider that serves a name, as the configuration has it, and the zone of it that holds the
// name, "" when the provider names none.
func (a *Asker) ProviderFor(name string) (p Provider, zone string, ok bool) {
	p, ok = a.providerFor(name)
	for _, z := range p.Zones {
		if inZone(name, z) && len(z) > len(zone) {
			zone = z
		}
	}
	return p, zone, ok
}

// named reports whether a provider names a zone that holds the name, other than the given one.
func (a *Asker) named(name, other string) bool {
	return slices.ContainsFunc(a.zones(), func(zone string) bool { return zone != other && inZone(name, zone) })
}

// noteZone remembers a zone that a name was found in.
func (a *Asker) noteZone(zone string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.located[zone] = true
}

// KnownZones are the zones that the providers name, and those that names were found in.
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

// anyServers reports whether the servers of some zones are named, so that this machine's view of DNS isn't wanted.
func (a *Asker) anyServers() bool {
	return slices.ContainsFunc(a.providers, func(p Provider) bool { return len(p.Servers) > 0 })
}

// resolvers returns the configured resolvers, else this machine'a.
func (a *Asker) resolvers() ([]string, error) {
	if len(a.resolving) > 0 {
		return a.resolving, nil
	}
	return a.cfg.System()
}

// deafFor is how long this machine's resolvers aren't asked again about the zones of others when they didn't answer.
const deafFor = time.Minute

var errDeaf = errors.New("this machine's resolvers don't answer")

// ownResolvers are this machine's, unless they didn't answer a moment ago.
func (a *Asker) ownResolvers() ([]string, error) {
	a.mu.Lock()
	deaf := !a.deaf.IsZero() && time.Since(a.deaf) < deafFor
	a.mu.Unlock()
	if deaf {
		return nil, errDeaf
	}
	return a.cfg.System()
}

// heard notes whether this machine's resolvers answered.
func (a *Asker) heard(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deaf = (time.Time{}); Silent(err) {
		a.deaf = time.Now()
	}
}

// Heard notes whether a provider's servers answered, by the result of what was sent to them or asked, and calls
// Config.Answered when they do again. A call that was broken off says nothing.
func (a *Asker) Heard(provider string, err error) {
	silent := Silent(err)
	if !silent && errors.Is(err, context.Canceled) {
		return
	}
	a.mu.Lock()
	again := a.mute[provider] && !silent
	if again {
		delete(a.mute, provider)
	} else if silent {
		a.mute[provider] = true
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
			a.Heard(p.Name, nil)
			return reply, nil
		}
		failures = append(failures, err)
	}
	err := cure.Join(failures...)
	a.Heard(p.Name, err)
	return nil, err
}
