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
		answer, err := s.soa(ctx, p, name)
		if err != nil {
			return location{}, fmt.Errorf("finding the zone of %s: %w", written(chain), err)
		}
		alias, zone := readSOA(answer, name)
		switch {
		case alias != "" && slices.Contains(chain, alias):
			return location{}, fmt.Errorf("%s: the aliases go round in a circle", written(append(chain, alias)))
		case alias != "" && len(chain) == maxAliases:
			return location{}, fmt.Errorf("%s: more than %d aliases", written(chain), maxAliases)
		case alias != "":
			chain = append(chain, alias)
		case !served:
			return location{}, &NoProviderError{Name: written(chain), Zone: zone, Zones: s.zones()}
		case zone == "":
			return location{}, fmt.Errorf("finding the zone of %s: the servers of provider %q name no zone; perhaps the name is delegated to others", written(chain), p.Name)
		default:
			return location{p.Name, zone, name}, nil
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

// soa asks for the SOA of a name: the answer holds its alias or, in one section or another, its zone. A provider's own
// servers are asked where it has any; resolvers otherwise, or when those servers don't know the name.
func (s *Solver) soa(ctx context.Context, p Provider, name string) (*dns.Msg, error) {
	answer, err := askFirst(ctx, p.Servers, question(name, dns.TypeSOA, false))
	var refused *refusedQuery
	switch {
	case err == nil && answer != nil:
		return answer, nil
	case len(p.Servers) > 0 && (!errors.As(err, &refused) || len(s.cfg.Resolvers) == 0):
		return nil, err // never this machine's resolvers behind the back of who named servers
	}
	resolvers := s.cfg.Resolvers
	if len(resolvers) == 0 {
		if resolvers, err = systemResolvers(); err != nil {
			return nil, err
		}
	}
	return askFirst(ctx, resolvers, question(name, dns.TypeSOA, true))
}

// readSOA reads the answer to an SOA question: the end of the alias chain when the name is an alias, else the zone that
// holds the name, "" when the answer names none.
func readSOA(answer *dns.Msg, name string) (alias, zone string) {
	target := name
	for range len(answer.Answer) {
		next := ""
		for _, rr := range answer.Answer {
			if c, ok := rr.(*dns.CNAME); ok && hostOf(c.Hdr.Name) == target {
				next = hostOf(c.Target)
			}
		}
		if next == "" {
			break
		}
		target = next
	}
	if target != name {
		return target, ""
	}
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		if soa, ok := rr.(*dns.SOA); ok && inZone(name, hostOf(soa.Hdr.Name)) {
			return "", hostOf(soa.Hdr.Name)
		}
	}
	return "", ""
}
