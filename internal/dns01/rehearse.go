package dns01

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
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
	ByHand    bool          // a person writes the record, so that nothing was tried
	Published time.Duration // until the update was confirmed
	Sightings []Sighting    // one for each server that must have the record
}

// Sighting is when a server was seen to have a record.
type Sighting struct {
	Server string        // its name and address
	After  time.Duration // since the update was confirmed
	Answer string        // what it said last; "" when it has the record
}

// silence is how long a rehearsal asks servers that don't answer at all.
const silence = 10 * time.Second

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
	if p, _ := s.provider(r.Trace.Provider); p.byHand() {
		r.ByHand = true
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

// watchCanary waits as an order does, and notes when each server was seen to have the record.
func (s *Solver) watchCanary(ctx context.Context, key recordKey) ([]Sighting, error) {
	w := &s.watchers
	servers, err := w.quorums(ctx, []recordKey{key})
	if err != nil {
		return nil, err
	}
	resolvers, err := w.resolvers(servers)
	if err != nil {
		return nil, err
	}
	everybody := membersOf(slices.Concat(servers, resolvers))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var end sync.WaitGroup
	defer end.Wait()
	defer cancel(nil)
	end.Go(func() { giveUpOnTheDead(ctx, cancel, membersOf(servers), key) })

	begin, after := time.Now(), map[*member]time.Duration{}
	note := func() {
		for _, m := range everybody {
			if _, known := after[m]; !known && m.complete() {
				after[m] = time.Since(begin)
			}
		}
	}
	for _, stage := range [][]*quorum{servers, resolvers} {
		if err == nil {
			err = w.gather(ctx, stage, note)
		}
	}
	sightings := make([]Sighting, len(everybody))
	for i, m := range everybody {
		_, last := m.missing()
		sightings[i] = Sighting{Server: m.String(), After: after[m], Answer: last}
	}
	if dead, ok := errors.AsType[*silentError](context.Cause(ctx)); ok {
		return sightings, dead
	}
	return sightings, err
}

// silentError says which servers gave no answer at all.
type silentError struct{ servers []string }

func (e *silentError) Error() string {
	return fmt.Sprintf("no answer within %s from %s", silence, strings.Join(e.servers, ", "))
}

// giveUpOnTheDead ends a rehearsal whose missing servers are all silent. An order asks them until the propagation timeout;
// who looks on learns no more by waiting.
func giveUpOnTheDead(ctx context.Context, giveUp context.CancelCauseFunc, members []*member, key recordKey) {
	select {
	case <-time.After(silence):
	case <-ctx.Done():
		return
	}
	dead := &silentError{}
	for _, m := range members {
		if m.complete() {
			continue
		}
		if m.dead == "" {
			if _, err := ask(ctx, server{m.addr, m.key}, question(key.name, dns.TypeTXT, false)); !Silent(err) {
				return // it lives, and may get the record yet
			}
		}
		dead.servers = append(dead.servers, m.String())
	}
	if len(dead.servers) > 0 {
		giveUp(dead)
	}
}
