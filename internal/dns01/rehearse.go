package dns01

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Rehearsal is what happened to a record that no CA asked for.
type Rehearsal struct {
	Trace     Trace
	Step      string // that failed: "locate", "publish" or "wait"; "" when all went well
	Err       error
	Published time.Duration // until the update was confirmed
	Sightings []Sighting    // one for each server that must have the record
}

// Sighting is when a server was seen to have a record.
type Sighting struct {
	Server string        // its name and address
	After  time.Duration // since the update was confirmed
	Answer string        // what it said last; "" when it has the record
}

// The paces of a rehearsal.
const (
	rehearsalPause = 50 * time.Millisecond
	// silence is how long a server that hasn't answered at all is asked. One that answers, without the record, is asked
	// until the propagation timeout.
	silence = 10 * time.Second
)

// Rehearse does for one record what an order does, with a random value: it finds its place, publishes it through the same
// queue and journal, looks whether all servers get it, and removes it. The removal is done when the solver is closed, which
// tells of one that failed. progress is told each step as it begins.
func (s *Solver) Rehearse(ctx context.Context, name string, progress func(step string)) (r Rehearsal) {
	sol := s.begin()
	defer sol.Remove()
	progress("locate")
	if r.Trace, r.Err = s.Locate(ctx, name); r.Err != nil {
		r.Step = "locate"
		return r
	}
	progress("publish")
	key := recordKey{r.Trace.Provider, r.Trace.Zone, r.Trace.Name(), canary()}
	begin := time.Now()
	if r.Err = sol.submit(ctx, []recordKey{key}); r.Err != nil {
		r.Step = "publish"
		return r
	}
	r.Published = time.Since(begin)
	progress("wait")
	if r.Sightings, r.Err = s.watchCanary(ctx, key); r.Err != nil {
		r.Step = "wait"
	}
	return r
}

// canary is a value that looks like those of a CA (RFC 8555, section 8.4) and is none.
func canary() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	return base64.RawURLEncoding.EncodeToString(random)
}

// watchCanary asks every server that must have the record until each has it.
func (s *Solver) watchCanary(ctx context.Context, key recordKey) ([]Sighting, error) {
	p, ok := s.provider(key.provider)
	if !ok {
		return nil, errNoProvider
	}
	endpoints, err := s.watchers.endpoints(ctx, p, key.zone)
	if err != nil {
		return nil, err
	}
	sightings := make([]Sighting, len(endpoints))
	var all sync.WaitGroup
	for i, e := range endpoints {
		all.Go(func() { sightings[i] = watchOne(ctx, p.PropagationTimeout, e, key) })
	}
	all.Wait()
	have := 0
	var missing []string
	for _, one := range sightings {
		if one.Answer == "" {
			have++
		} else {
			missing = append(missing, one.Server+" "+one.Answer)
		}
	}
	if enough := min(p.MinNameservers, len(endpoints)); len(missing) == 0 || enough > 0 && have >= enough {
		return sightings, ctx.Err()
	}
	return sightings, fmt.Errorf("%d of %d servers have the record: %s", have, len(endpoints), strings.Join(missing, "; "))
}

// watchOne asks one server until it has the record.
func watchOne(ctx context.Context, timeout time.Duration, e endpoint, key recordKey) Sighting {
	begin := time.Now()
	seen := Sighting{Server: e.String()}
	q := question(key.name, dns.TypeTXT, false)
	for answered := false; ; {
		reply, err := ask(ctx, server{e.addr, e.key}, q)
		seen.After = time.Since(begin)
		switch {
		case err != nil:
			seen.Answer = unreachable(err)
		case holds(reply, key.value):
			seen.Answer = ""
			return seen
		default:
			answered, seen.Answer = true, lacks(reply)
		}
		if ctx.Err() != nil || seen.After > timeout || !answered && seen.After > silence {
			return seen
		}
		select {
		case <-time.After(min(max(rehearsalPause, seen.After/watchShare), watchLatest)):
		case <-ctx.Done():
		}
	}
}

// lacks says in words what a server answered that doesn't have the record. On its way there a name server may be asked that
// isn't one for this zone.
func lacks(reply *dns.Msg) string {
	if !reply.Authoritative && reply.Rcode != dns.RcodeNameError {
		return answered(reply) + " and doesn't answer for the zone with authority"
	}
	return answered(reply)
}
