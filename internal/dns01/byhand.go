package dns01

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/miekg/dns"

	"autocertd/issuer"
)

// byHand reports whether a person writes this provider's records: its Client says so, and is never called.
func (p Provider) byHand() bool {
	_, ok := p.Client.(interface{ ByHand() })
	return ok
}

// Sight is what the servers of a zone say of one record.
type Sight struct {
	Record  issuer.Record
	Trace   Trace      // to the place where it belongs
	Servers []Sighting // each that must have it; an empty Answer is one that has
	Err     error      // why the servers aren't known

	enough int // servers; 0 for all
}

// Found reports whether the CA may be asked to look.
func (s Sight) Found() bool {
	have := 0
	for _, at := range s.Servers {
		if at.Answer == "" {
			have++
		}
	}
	return s.Err == nil && have > 0 && have >= min(cmp.Or(s.enough, len(s.Servers)), len(s.Servers))
}

// missing says in a sentence for each server why the record isn't found.
func (s Sight) missing() (texts []string) {
	if s.Err != nil {
		return []string{s.Err.Error()}
	}
	for _, at := range s.Servers {
		if at.Answer != "" {
			texts = append(texts, fmt.Sprintf("%s %s when asked for %s", at.Server, at.Answer, s.Trace.Name()))
		}
	}
	return texts
}

// anybody is the provider of names that none is configured for.
const anybody = "by hand"

// LookFor asks every authoritative server for records that a person publishes, as dig would, once. Names that no provider
// serves are found through the resolvers.
func (s *Solver) LookFor(ctx context.Context, records []issuer.Record) []Sight {
	sights := s.locateAll(ctx, records)
	s.askAll(ctx, sights)
	var unserved []int
	for i := range sights {
		if _, none := errors.AsType[*NoProviderError](sights[i].Err); none {
			unserved = append(unserved, i)
		}
	}
	if len(unserved) == 0 {
		return sights
	}
	others := New(Config{Resolvers: s.recursive(), Logger: s.cfg.Logger})
	defer others.stop()
	others.system = s.system
	others.Configure([]Provider{{Name: anybody}})
	for _, i := range unserved {
		found := others.locateAll(ctx, records[i:i+1])
		others.askAll(ctx, found)
		sights[i] = found[0]
	}
	return sights
}

func (s *Solver) locateAll(ctx context.Context, records []issuer.Record) []Sight {
	sights := make([]Sight, len(records))
	each(len(records), func(i int) {
		sights[i].Record = records[i]
		sights[i].Trace, sights[i].Err = s.Locate(ctx, records[i].Name)
	})
	return sights
}

// askAll asks the servers of all records whose zone was found.
func (s *Solver) askAll(ctx context.Context, sights []Sight) {
	endpoints := map[zoneKey][]endpoint{}
	failures := map[zoneKey]error{}
	type look struct{ record, server int }
	var looks []look
	var addrs []server
	for i := range sights {
		at := &sights[i]
		if at.Err != nil {
			continue
		}
		p, _ := s.provider(at.Trace.Provider)
		at.enough = p.MinNameservers
		zone := zoneKey{p.Name, at.Trace.Zone}
		if _, known := endpoints[zone]; !known {
			p.Check = CheckAuthoritative // whatever orders wait for
			endpoints[zone], failures[zone] = s.endpoints(ctx, p, zone.zone)
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
		at := &sights[looks[n].record]
		reply, err := ask(ctx, addrs[n], question(at.Trace.Name(), dns.TypeTXT, false))
		switch {
		case err != nil:
			at.Servers[looks[n].server].Answer = unreachable(err)
		case !holds(reply, at.Record.Value):
			at.Servers[looks[n].server].Answer = answered(reply)
		}
	})
}

// Look implements issuer.Looker.
func (sol *solution) Look(ctx context.Context, records []issuer.Record) error {
	for _, r := range records {
		if p, ok := sol.solver.providerFor(hostOf(r.Name)); !ok || !p.byHand() {
			return nil // another provider was configured since
		}
	}
	return sol.solver.awaited(ctx, records)
}

// withoutByHand returns the records that are ours to write. Those that a person writes must be there already: nothing is
// published for an order that can't go on yet.
func (s *Solver) withoutByHand(ctx context.Context, keys []recordKey) ([]recordKey, error) {
	var ours []recordKey
	var theirs []issuer.Record
	for _, key := range keys {
		if p, ok := s.provider(key.provider); ok && p.byHand() {
			theirs = append(theirs, issuer.Record{Name: key.name, Value: key.value})
		} else {
			ours = append(ours, key)
		}
	}
	if len(theirs) == 0 {
		return ours, nil
	}
	return ours, s.awaited(ctx, theirs)
}

// awaited returns an *issuer.ByHandError while records are missing. Servers that can't be asked now are no reason to give
// up: a person may take days.
func (s *Solver) awaited(ctx context.Context, records []issuer.Record) error {
	waiting := &issuer.ByHandError{Records: records}
	found := true
	for _, sight := range s.LookFor(ctx, records) {
		if !sight.Found() {
			found = false
			waiting.Missing = append(waiting.Missing, sight.missing()...)
		}
	}
	if found || ctx.Err() != nil {
		return ctx.Err()
	}
	return waiting
}
