package dns01

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"time"

	"autocertd/internal/zones"
)

// Rehearsal is the result of publishing a record that no CA asked for.
type Rehearsal struct {
	Target    zones.Target
	Step      string // that failed: "locate", "publish" or "wait"; "" when all went well
	Err       error
	ByHand    bool             // a person writes the record, so that nothing was tried
	Published time.Duration    // until the update was confirmed
	Sightings []zones.Sighting // one for each server that must have the record

	solver *Solver
	key    zones.TXT
	end    func()
}

// rehearsedTTL is the TTL of a rehearsed record, where the provider has servers of its own: a resolver that was asked for it
// soon forgets it.
const rehearsedTTL = time.Second

// Rehearse does for one record what an order does, with a random value: it finds its target, publishes it through the
// same queue and journal, and looks whether all servers get it. The record stays until End. progress is called with each
// step as it begins.
func (s *Solver) Rehearse(ctx context.Context, name string, progress func(step string)) (r Rehearsal) {
	sol := s.begin()
	r.solver, r.end = s, sol.Remove
	progress("locate")
	if r.Target, r.Err = s.Zones().Locate(ctx, name); r.Err != nil {
		if r.Step = "locate"; zones.RefusesKey(r.Err) { // as the update would be
			r.Step = "publish"
		}
		return r
	}
	p, _ := s.table().provider(r.Target.Provider)
	if p.Manual {
		r.ByHand = true
		return r
	}
	if len(p.Servers) > 0 {
		sol.ttl = rehearsedTTL
	}
	progress("publish")
	r.key = r.Target.TXT(canary())
	begin := time.Now()
	if r.Err = sol.submit(ctx, []zones.TXT{r.key}); r.Err != nil {
		r.Step = "publish"
		return r
	}
	r.Published = time.Since(begin)
	progress("wait")
	if r.Sightings, r.Err = s.Zones().Watch(ctx, r.key); r.Err != nil {
		r.Step = "wait"
	}
	return r
}

// End removes the record. The removal is done when the solver is closed, which returns an error for one that failed.
func (r Rehearsal) End() {
	if r.end != nil {
		r.end()
	}
}

// canary returns a value that looks like those of a CA (RFC 8555, section 8.4) and is none.
func canary() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	return base64.RawURLEncoding.EncodeToString(random)
}

// Glances asks others than the servers that must have the record whether they see it; see [zones.Asker.Glances].
func (r Rehearsal) Glances(ctx context.Context) []zones.Glance {
	if r.solver == nil || r.ByHand || r.Step != "" {
		return nil
	}
	return r.solver.Zones().Glances(ctx, r.key)
}
