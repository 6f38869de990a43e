package zones

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

// NameValue is a value that a CA looks for at a name.
type NameValue struct{ Name, Value string }

// Lookup holds the answers of a zone's servers about one record.
type Lookup struct {
	NameValue
	Target  Target     // to the place where it belongs
	Servers []Sighting // each that must have it; an empty Answer is one that has
	Err     error      // why the servers aren't known

	enough    int // servers; 0 for all
	endpoints []endpoint
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

// LookFor asks every authoritative server for records that a person publishes, as dig would, once. Names that no provider
// serves are found through the resolvers.
func (a *Asker) LookFor(ctx context.Context, records []NameValue) []Lookup {
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
	others := New(Config{System: a.cfg.System}).With([]Provider{{Name: "by hand"}}, a.resolving)
	for _, i := range unserved {
		found := others.locateAll(ctx, records[i:i+1])
		others.askAll(ctx, found)
		lookups[i] = found[0]
	}
	return lookups
}

func (a *Asker) locateAll(ctx context.Context, records []NameValue) []Lookup {
	lookups := make([]Lookup, len(records))
	each(len(records), func(i int) {
		lookups[i].NameValue = records[i]
		lookups[i].Target, lookups[i].Err = a.Locate(ctx, records[i].Name)
	})
	return lookups
}

// askAll asks the servers of all records whose zone was found.
func (a *Asker) askAll(ctx context.Context, lookups []Lookup) {
	endpoints := map[Zone][]endpoint{}
	failures := map[Zone]error{}
	for i := range lookups {
		l := &lookups[i]
		if l.Err != nil {
			continue
		}
		p, _ := a.provider(l.Target.Provider)
		zone := Zone{p.Name, l.Target.Zone}
		if _, known := endpoints[zone]; !known {
			p.Check = CheckAuthoritative // whatever orders wait for
			endpoints[zone], failures[zone] = a.endpoints(ctx, p, zone.Name)
		}
		l.endpoints, l.enough, l.Err = endpoints[zone], p.MinNameservers, failures[zone]
	}
	each(len(lookups), func(i int) { lookups[i].ask(ctx) })
}

// ask asks the servers for the record.
func (l *Lookup) ask(ctx context.Context) {
	l.Servers = make([]Sighting, len(l.endpoints))
	each(len(l.endpoints), func(i int) {
		e := l.endpoints[i]
		l.Servers[i] = Sighting{Server: e.String(), Answer: e.dead}
		if e.dead != "" {
			return
		}
		reply, err := ask(ctx, e.server, question(l.Target.Name(), dns.TypeTXT, false))
		switch {
		case err != nil:
			l.Servers[i].Answer = unreachable(err)
		case !holds(reply, l.Value):
			l.Servers[i].Answer = answered(reply)
		}
	})
}
