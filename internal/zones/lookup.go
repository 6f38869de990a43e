package zones

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

// Wanted is a value that a CA looks for at a name.
type Wanted struct{ Name, Value string }

// Lookup is what the servers of a zone say of one record.
type Lookup struct {
	Wanted
	Target  Target     // to the place where it belongs
	Servers []Sighting // each that must have it; an empty Answer is one that has
	Err     error      // why the servers aren't known

	enough int // servers; 0 for all
}

// Found reports whether the CA may be asked to look.
func (l Lookup) Found() bool {
	have := 0
	for _, at := range l.Servers {
		if at.Answer == "" {
			have++
		}
	}
	return l.Err == nil && have > 0 && have >= min(cmp.Or(l.enough, len(l.Servers)), len(l.Servers))
}

// Missing says in a sentence for each server why the record isn't found.
func (l Lookup) Missing() (texts []string) {
	if l.Err != nil {
		return []string{l.Err.Error()}
	}
	for _, at := range l.Servers {
		if at.Answer != "" {
			texts = append(texts, fmt.Sprintf("%s %s when asked for %s", at.Server, at.Answer, l.Target.Name()))
		}
	}
	return texts
}

// anybody is the provider of names that none is configured for.
const anybody = "by hand"

// LookFor asks every authoritative server for records that a person publishes, as dig would, once. Names that no provider
// serves are found through the resolvers.
func (a *Asker) LookFor(ctx context.Context, records []Wanted) []Lookup {
	lookups := a.locateAll(ctx, records)
	a.askAll(ctx, lookups)
	var unserved []int
	for i := range lookups {
		if _, none := errors.AsType[*NoProviderError](lookups[i].Err); none {
			unserved = append(unserved, i)
		}
	}
	if len(unserved) == 0 {
		return lookups
	}
	others := New(Config{System: a.cfg.System}).With([]Provider{{Name: anybody}}, a.resolving)
	for _, i := range unserved {
		found := others.locateAll(ctx, records[i:i+1])
		others.askAll(ctx, found)
		lookups[i] = found[0]
	}
	return lookups
}

func (a *Asker) locateAll(ctx context.Context, records []Wanted) []Lookup {
	lookups := make([]Lookup, len(records))
	each(len(records), func(i int) {
		lookups[i].Wanted = records[i]
		lookups[i].Target, lookups[i].Err = a.Locate(ctx, records[i].Name)
	})
	return lookups
}

// askAll asks the servers of all records whose zone was found.
func (a *Asker) askAll(ctx context.Context, lookups []Lookup) {
	endpoints := map[Zone][]endpoint{}
	failures := map[Zone]error{}
	type look struct{ record, server int }
	var looks []look
	var addrs []server
	for i := range lookups {
		at := &lookups[i]
		if at.Err != nil {
			continue
		}
		p, _ := a.provider(at.Target.Provider)
		at.enough = p.MinNameservers
		zone := Zone{p.Name, at.Target.Zone}
		if _, known := endpoints[zone]; !known {
			p.Check = CheckAuthoritative // whatever orders wait for
			endpoints[zone], failures[zone] = a.endpoints(ctx, p, zone.Name)
		}
		at.Err = failures[zone]
		for n, e := range endpoints[zone] {
			at.Servers = append(at.Servers, Sighting{Server: e.String(), Answer: e.dead})
			if e.dead != "" {
				continue
			}
			looks = append(looks, look{i, n})
			addrs = append(addrs, server{e.addr, e.key})
		}
	}
	each(len(looks), func(n int) {
		at := &lookups[looks[n].record]
		reply, err := ask(ctx, addrs[n], question(at.Target.Name(), dns.TypeTXT, false))
		switch {
		case err != nil:
			at.Servers[looks[n].server].Answer = unreachable(err)
		case !holds(reply, at.Value):
			at.Servers[looks[n].server].Answer = answered(reply)
		}
	})
}
