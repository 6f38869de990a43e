package dns01

import (
	"cmp"
	"slices"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/zones"
)

// Client writes records into zones. Both methods must be idempotent and safe for concurrent use, return soon after their
// context ends, and delete only the exact values given. After an error any part of the records may have been written.
type Client interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Provider is a configured way to write records into zones: the facts that asking needs, and the client that writes.
type Provider struct {
	zones.Provider
	Client  Client
	Manual  bool          // a person writes the records, and Client is never called
	Timeout time.Duration // how long one call may take; 0 for half a minute
	TTL     time.Duration // of records; 0 for a minute
}

const defaultTTL = time.Minute

// Facts returns what asking needs to know of providers.
func Facts(providers []Provider) []zones.Provider {
	facts := make([]zones.Provider, len(providers))
	for i, p := range providers {
		facts[i] = p.Provider
	}
	return facts
}

// table holds the providers of one configuration. It never changes; a reload makes another one.
type table struct {
	providers []Provider
	asker     *zones.Asker // knows the same providers
}

func newTable(asker *zones.Asker, providers []Provider, resolvers []string, hostnames []string) *table {
	providers = slices.Clone(providers) // the defaults are ours
	for i := range providers {
		providers[i].TTL = cmp.Or(providers[i].TTL, defaultTTL)
	}
	return &table{
		providers: providers,
		asker:     asker.With(Facts(providers), resolvers, hostnames...),
	}
}

func (t *table) provider(name string) (Provider, bool) {
	i := slices.IndexFunc(t.providers, func(p Provider) bool { return p.Name == name })
	if i < 0 {
		return Provider{}, false
	}
	return t.providers[i], true
}

// serving returns the provider that serves a name.
func (t *table) serving(name string) (Provider, bool) {
	facts, _, ok := t.asker.ProviderFor(name)
	if !ok {
		return Provider{}, false
	}
	return t.provider(facts.Name)
}
