package dns01

import (
	"context"

	"autocertd/internal/zones"
	"autocertd/issuer"
)

// Look implements issuer.Looker.
func (sol *solution) Look(ctx context.Context, records []issuer.Record) error {
	for _, r := range records {
		if p, ok := sol.solver.serving(r.Name); !ok || !p.Manual {
			return nil // another provider was configured since
		}
	}
	return sol.solver.awaited(ctx, records)
}

// withoutByHand returns the records that are ours to write. Those that a person writes must be there already: nothing is
// published for an order that can't go on yet.
func (s *Solver) withoutByHand(ctx context.Context, keys []zones.TXT) ([]zones.TXT, error) {
	var ours []zones.TXT
	var theirs []issuer.Record
	for _, key := range keys {
		if p, ok := s.provider(key.Provider); ok && p.Manual {
			theirs = append(theirs, issuer.Record{Name: key.Name, Value: key.Value})
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
	for _, lookup := range s.Zones().LookFor(ctx, wanted(records)) {
		if !lookup.Found() {
			found = false
			waiting.Missing = append(waiting.Missing, lookup.Missing()...)
		}
	}
	if found || ctx.Err() != nil {
		return ctx.Err()
	}
	return waiting
}

func wanted(records []issuer.Record) []zones.Wanted {
	list := make([]zones.Wanted, len(records))
	for i, r := range records {
		list[i] = zones.Wanted{Name: r.Name, Value: r.Value}
	}
	return list
}

// serving returns the provider that serves a name.
func (s *Solver) serving(name string) (Provider, bool) {
	facts, _, ok := s.Zones().ProviderFor(name)
	if !ok {
		return Provider{}, false
	}
	return s.provider(facts.Name)
}
