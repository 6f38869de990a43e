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
	"autocertd/internal/dnsname"
)

// Place is the target of a name, or the reason why it isn't known.
type Place struct {
	Target
	Err error // why DNS doesn't say; Provider and Zone are then those of the configuration, "" where it names none
}

// Places finds the places of several names, as Locate does. A provider whose servers are all silent costs its time once.
func (a *Asker) Places(ctx context.Context, names []string) []Place {
	silent := a.silentProviders(ctx)
	places := make([]Place, len(names))
	each(len(names), func(i int) {
		places[i] = a.place(ctx, names[i], silent)
	})
	return places
}

func (a *Asker) place(ctx context.Context, name string, silent map[string]error) Place {
	p, zone, served := a.ProviderFor(dnsname.Canonical(name))
	place := Place{Target: Target{Chain: []string{dnsname.Canonical(name)}}, Err: silent[p.Name]}
	if place.Err == nil {
		place.Target, place.Err = a.Locate(ctx, name)
	}
	if place.Err != nil && served && len(place.Chain) == 1 {
		place.Provider, place.Zone = p.Name, zone
	}
	return place
}

// silentProviders returns by name the providers of which no server answers, and what was tried.
func (a *Asker) silentProviders(ctx context.Context) map[string]error {
	list := a.providers
	failures := make([]error, len(list))
	each(len(list), func(i int) {
		if p := list[i]; len(p.Servers) > 0 {
			_, failures[i] = responding(ctx, p.servers(), p.anyZone())
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

// responding returns the servers that answer at all, whatever they answer, and an error when none does.
func responding(ctx context.Context, servers []server, zone string) (list []server, err error) {
	failures := make([]error, len(servers))
	each(len(servers), func(i int) {
		_, failures[i] = askOne(ctx, servers[i], question(zone, dns.TypeSOA, false))
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

// askOne asks one server. Its error is short, for a table.
func askOne(ctx context.Context, at server, q *dns.Msg) (*dns.Msg, error) {
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
	names := slices.Sorted(maps.Keys(a.silent))
	a.mu.Unlock()
	each(len(names), func(i int) {
		p, known := a.provider(names[i])
		if !known || len(p.Servers) == 0 {
			return // the next order finds out
		}
		if _, err := responding(ctx, p.servers(), p.anyZone()); err == nil {
			a.Note(p.Name, nil)
		}
	})
}

// TXTValues holds the TXT values at a name, in order, or the reason why they aren't known.
type TXTValues struct {
	Values []string
	Err    error
}

// Find asks for the TXT values at names, without following aliases. It asks the servers that take the provider's updates, or
// the zone's own where there are none; a value that any of them has is there. Silent servers cost their time once a zone.
func (a *Asker) Find(ctx context.Context, names []TXTName) map[TXTName]TXTValues {
	var zones []Zone
	for _, name := range names {
		zones = append(zones, Zone{name.Provider, name.Zone})
	}
	zones = distinct(zones)
	servers, failures := make([][]server, len(zones)), make([]error, len(zones))
	each(len(zones), func(i int) {
		if servers[i], failures[i] = a.authorities(ctx, zones[i]); failures[i] == nil {
			servers[i], failures[i] = responding(ctx, servers[i], zones[i].Name)
		}
	})
	names = distinct(names)
	found := make([]TXTValues, len(names))
	each(len(names), func(i int) {
		zone := slices.Index(zones, Zone{names[i].Provider, names[i].Zone})
		if found[i].Err = failures[zone]; found[i].Err == nil {
			found[i] = valuesAt(ctx, servers[zone], names[i].Name)
		}
	})
	all := map[TXTName]TXTValues{}
	for i, name := range names {
		all[name] = found[i]
	}
	return all
}

// authorities returns the servers that know what is in a zone.
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
	return alive(endpoints), err
}

// valuesAt asks all the servers; one that knows is enough.
func valuesAt(ctx context.Context, servers []server, name string) (found TXTValues) {
	var failures []error
	for _, at := range servers {
		reply, err := askOne(ctx, at, question(name, dns.TypeTXT, false))
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, rr := range reply.Answer {
			if txt, ok := rr.(*dns.TXT); ok && dnsname.Canonical(txt.Hdr.Name) == name {
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
		// By TCP only a machine on the way to the server can answer in its place.
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
		if dnsname.Canonical(txt.Hdr.Name) == name {
			return txt
		}
	}
	return nil
}
