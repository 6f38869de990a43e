package zones

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/cure"
)

// Place is where the record of a name is written.
type Place struct {
	Target
	Err error // why DNS doesn't say. Provider and Zone are the configuration's then, and "" where it says nothing
}

// Places finds the places of several names, as Locate does. A provider whose servers are all silent is noticed once.
func (a *Asker) Places(ctx context.Context, names []string) []Place {
	silent := a.silent(ctx)
	places := make([]Place, len(names))
	each(len(names), func(i int) {
		places[i] = a.place(ctx, names[i], silent)
	})
	return places
}

func (a *Asker) place(ctx context.Context, name string, silent map[string]error) Place {
	p, zone, served := a.ProviderFor(Canonical(name))
	place := Place{Target: Target{Chain: []string{Canonical(name)}}, Err: silent[p.Name]}
	if place.Err == nil {
		place.Target, place.Err = a.Locate(ctx, name)
	}
	if place.Err != nil && served && len(place.Chain) == 1 {
		place.Provider, place.Zone = p.Name, zone
	}
	return place
}

// silent returns the providers none of whose servers answers anything, with what was tried.
func (a *Asker) silent(ctx context.Context) map[string]error {
	list := a.providers
	failures := make([]error, len(list))
	each(len(list), func(i int) {
		zone := "."
		if len(list[i].Zones) > 0 {
			zone = list[i].Zones[0]
		}
		if p := list[i]; len(p.Servers) > 0 {
			_, failures[i] = awake(ctx, p.servers(), zone)
		}
	})
	silent := map[string]error{}
	for i, err := range failures {
		if err != nil {
			silent[list[i].Name] = err
		}
	}
	return silent
}

// awake returns the servers that answer at all, whatever they answer, and an error when none does.
func awake(ctx context.Context, servers []server, zone string) (list []server, err error) {
	failures := make([]error, len(servers))
	each(len(servers), func(i int) {
		_, failures[i] = lookAt(ctx, servers[i], question(zone, dns.TypeSOA, false))
	})
	for i, err := range failures {
		var refused *refusedQuery
		if err == nil || errors.As(err, &refused) {
			list = append(list, servers[i])
		}
	}
	if len(list) == 0 {
		return nil, cure.Join(failures...)
	}
	return list, nil
}

// lookAt asks one server, and says what is wrong with it in words for a table.
func lookAt(ctx context.Context, at server, q *dns.Msg) (*dns.Msg, error) {
	reply, err := askFirst(ctx, []server{at}, q)
	var refused *refusedQuery
	if err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("%s %s", at.addr, unreachable(err))
	}
	return reply, err
}

// Probe asks the providers that were silent whether they answer again.
func (a *Asker) Probe(ctx context.Context) {
	a.mu.Lock()
	names := slices.Sorted(maps.Keys(a.mute))
	a.mu.Unlock()
	each(len(names), func(i int) {
		p, known := a.provider(names[i])
		if !known || len(p.Servers) == 0 {
			return // the next order finds out
		}
		zone := "."
		if len(p.Zones) > 0 {
			zone = p.Zones[0]
		}
		if _, err := awake(ctx, p.servers(), zone); err == nil {
			a.Heard(p.Name, nil)
		}
	})
}

// TXTValues are the TXT values at a spot, in order, or why they aren't known.
type TXTValues struct {
	Values []string
	Err    error
}

// Find asks for the TXT values at spots, without following aliases: the servers that take the provider's updates, or for
// want of such the zone's own. What any of them has is there. Servers that are silent are noticed once for each zone.
func (a *Asker) Find(ctx context.Context, spots []TXTName) map[TXTName]TXTValues {
	var zones []Zone
	for _, spot := range spots {
		zones = append(zones, Zone{spot.Provider, spot.Zone})
	}
	zones = distinct(zones)
	servers, failures := make([][]server, len(zones)), make([]error, len(zones))
	each(len(zones), func(i int) {
		if servers[i], failures[i] = a.authorities(ctx, zones[i]); failures[i] == nil {
			servers[i], failures[i] = awake(ctx, servers[i], zones[i].Name)
		}
	})
	spots = distinct(spots)
	found := make([]TXTValues, len(spots))
	each(len(spots), func(i int) {
		zone := slices.Index(zones, Zone{spots[i].Provider, spots[i].Zone})
		if found[i].Err = failures[zone]; found[i].Err == nil {
			found[i] = valuesAt(ctx, servers[zone], spots[i].Name)
		}
	})
	all := map[TXTName]TXTValues{}
	for i, spot := range spots {
		all[spot] = found[i]
	}
	return all
}

// authorities returns whom to ask what is in a zone.
func (a *Asker) authorities(ctx context.Context, zone Zone) ([]server, error) {
	p, ok := a.provider(zone.Provider)
	switch {
	case !ok:
		return nil, ErrNoProvider
	case len(p.Servers) > 0:
		return p.servers(), nil
	}
	p.Check = CheckAuthoritative // whatever orders wait for
	endpoints, err := a.endpoints(ctx, p, zone.Name)
	if err != nil {
		return nil, err
	}
	var list []server
	for _, e := range endpoints {
		if e.dead == "" {
			list = append(list, server{e.addr, e.key})
		}
	}
	return list, nil
}

// valuesAt asks all the servers; one that knows is enough.
func valuesAt(ctx context.Context, servers []server, name string) (found TXTValues) {
	var failures []error
	for _, at := range servers {
		reply, err := lookAt(ctx, at, question(name, dns.TypeTXT, false))
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, rr := range reply.Answer {
			if txt, ok := rr.(*dns.TXT); ok && Canonical(txt.Hdr.Name) == name {
				found.Values = append(found.Values, strings.Join(txt.Txt, ""))
			}
		}
	}
	slices.Sort(found.Values)
	found.Values = slices.Compact(found.Values)
	if len(failures) == len(servers) {
		found.Err = cure.Join(failures...)
	}
	return found
}

// Absent reports of each value whether all servers of its provider answer, with authority, that it isn't there.
func (a *Asker) Absent(ctx context.Context, list []TXT) []bool {
	absent := make([]bool, len(list))
	each(len(list), func(i int) {
		p, _ := a.provider(list[i].Provider)
		absent[i] = isAbsent(ctx, p.servers(), list[i])
	})
	return absent
}

func isAbsent(ctx context.Context, servers []server, txt TXT) bool {
	for _, at := range servers {
		// By TCP nobody answers in the server's place who isn't on the way to it.
		reply, err := askBy(ctx, []string{"tcp"}, at, question(txt.Name, dns.TypeTXT, false))
		if err != nil || !isAnswer(reply) || !reply.Authoritative || holds(reply, txt.Value) {
			return false
		}
	}
	return len(servers) > 0
}

// TTLs returns the TTL of the TXT records at those of a provider's names that have some: all records of a set have the same
// TTL (RFC 2181, section 5.2), so one of ours would change that of others. Only servers of the provider know it.
func (a *Asker) TTLs(ctx context.Context, provider string, names []string) map[string]time.Duration {
	p, _ := a.provider(provider)
	if len(p.Servers) == 0 {
		return nil
	}
	found := make([]*dns.TXT, len(names))
	each(len(names), func(i int) { found[i] = a.oneAt(ctx, p, names[i]) })
	ttls := map[string]time.Duration{}
	for i, txt := range found {
		if txt != nil {
			ttls[names[i]] = time.Duration(txt.Hdr.Ttl) * time.Second
		}
	}
	return ttls
}

// oneAt returns one of the TXT records at a name, nil when none is known.
func (a *Asker) oneAt(ctx context.Context, p Provider, name string) *dns.TXT {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	reply, err := a.askOwn(ctx, p, question(name, dns.TypeTXT, false))
	if err != nil {
		return nil
	}
	for _, txt := range recordsIn[*dns.TXT](reply) {
		if Canonical(txt.Hdr.Name) == name {
			return txt
		}
	}
	return nil
}
