package dns01

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxAliases bounds a chain of CNAMEs. Resolvers give up at about the same length.
const maxAliases = 10

// location is where a record is to be written: by which provider, into which zone, at which name. Names are lower case
// without trailing dot.
type location struct{ provider, zone, name string }

// locate finds the place to write for a name: it follows aliases, asking each zone's own servers and no cache, and takes
// the provider that serves the target.
func (s *Solver) locate(ctx context.Context, name string) (location, error) {
	chain := []string{hostOf(name)}
	for {
		name := chain[len(chain)-1]
		p, served := s.providerFor(name)
		alias, zone, err := s.inspect(ctx, p, name)
		switch {
		case err != nil && (served || ctx.Err() != nil):
			return location{}, fmt.Errorf("finding the zone of %s: %w", written(chain), err)
		case alias == "" && !served:
			return location{}, &NoProviderError{Name: written(chain), Zone: zone, Zones: s.zones()}
		case alias == "" && zone == "":
			return location{}, fmt.Errorf("finding the zone of %s: the servers of provider %q name no zone; perhaps it is delegated to others: dig NS %s", written(chain), p.Name, name)
		case alias == "":
			return location{p.Name, zone, name}, nil
		}
		known := slices.Contains(chain, alias)
		chain = append(chain, alias)
		switch {
		case known:
			return location{}, fmt.Errorf("%s: the CNAMEs go round in a circle; remove one of them", written(chain))
		case len(chain) > 1+maxAliases:
			return location{}, fmt.Errorf("%s: more than %d CNAMEs in a row; resolvers follow no longer chain", written(chain), maxAliases)
		}
	}
}

func written(chain []string) string { return strings.Join(chain, " -> ") }

// NoProviderError says that no configured provider serves a name.
type NoProviderError struct {
	Name  string   // with the aliases that lead to it
	Zone  string   // as DNS has it, "" when not known
	Zones []string // those that are served
}

func (e *NoProviderError) Error() string {
	text := fmt.Sprintf("no provider serves %s", e.Name)
	if e.Zone != "" {
		text += fmt.Sprintf(", which is in zone %s", e.Zone)
	}
	if len(e.Zones) == 0 {
		return text + "; none is configured that names its zones: set zones in the right one"
	}
	return fmt.Sprintf("%s; the providers serve %s: add the zone to zones of the right one", text, strings.Join(e.Zones, ", "))
}

// providerFor returns the provider with the longest zone that holds the name. A lone provider without zones serves
// whatever its servers do.
func (s *Solver) providerFor(name string) (best Provider, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.providers) == 1 && len(s.providers[0].Zones) == 0 {
		return s.providers[0], true
	}
	longest := -1
	for _, p := range s.providers {
		for _, zone := range p.Zones {
			if inZone(name, zone) && len(zone) > longest {
				best, longest = p, len(zone)
			}
		}
	}
	return best, longest >= 0
}

func (s *Solver) zones() (zones []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.providers {
		zones = append(zones, p.Zones...)
	}
	return zones
}

// inspect finds out where the alias of a name points, or else which zone holds it, "" when no answer says so. It asks for
// the CNAME: the answer is either that, and nothing that follows it, or a denial with the zone's SOA (RFC 2308).
//
// A provider's own servers are asked where it has any; resolvers otherwise, or when those servers don't know the name.
func (s *Solver) inspect(ctx context.Context, p Provider, name string) (alias, zone string, err error) {
	if len(p.Servers) > 0 {
		answer, err := askFirst(ctx, p.Servers, question(name, dns.TypeCNAME, false))
		if err == nil {
			return aliasIn(answer, name), zoneIn(answer, name), nil
		}
		var refused *refusedQuery
		if !errors.As(err, &refused) || len(s.cfg.Resolvers) == 0 {
			return "", "", err // never this machine's resolvers behind the back of who named servers
		}
	}
	resolvers, err := s.resolvers(p.Name == "" && s.anyServers())
	if err != nil {
		return "", "", err
	}
	answer, err := askFirst(ctx, resolvers, question(name, dns.TypeCNAME, true))
	if err != nil {
		return "", "", err
	}
	if alias = aliasIn(answer, name); alias != "" {
		return alias, "", nil
	}
	if zone = zoneIn(answer, name); zone != "" {
		return "", zone, nil
	}
	zone, err = climb(ctx, resolvers, name)
	return "", zone, err
}

// climb looks for the zone's apex, name by name upwards: some resolvers leave the SOA out of denials.
func climb(ctx context.Context, resolvers []string, name string) (zone string, err error) {
	for apex, more := name, true; more; _, apex, more = strings.Cut(apex, ".") {
		answer, err := askFirst(ctx, resolvers, question(apex, dns.TypeSOA, true))
		if err != nil {
			return "", err
		}
		if zone := zoneIn(answer, name); zone != "" {
			return zone, nil
		}
	}
	return "", nil
}

// resolvers returns the configured resolvers, else this machine's, unless only configured ones are wanted.
func (s *Solver) resolvers(configuredOnly bool) ([]string, error) {
	switch {
	case len(s.cfg.Resolvers) > 0:
		return s.cfg.Resolvers, nil
	case configuredOnly:
		return nil, errors.New("no resolvers are configured")
	}
	return s.system()
}

// anyServers reports whether the servers of some zones are named, so that this machine's view of DNS isn't wanted.
func (s *Solver) anyServers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.providers, func(p Provider) bool { return len(p.Servers) > 0 })
}

func aliasIn(answer *dns.Msg, name string) string {
	for _, rr := range answer.Answer {
		if c, ok := rr.(*dns.CNAME); ok && hostOf(c.Hdr.Name) == name {
			return hostOf(c.Target)
		}
	}
	return ""
}

func zoneIn(answer *dns.Msg, name string) string {
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		if soa, ok := rr.(*dns.SOA); ok && inZone(name, hostOf(soa.Hdr.Name)) {
			return hostOf(soa.Hdr.Name)
		}
	}
	return ""
}
