package main

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"autocertd/internal/lifecycle"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// doing is the step in which a certificate is now.
type doing struct {
	state.Doing
	name issuer.StepName // the step that began it
}

// doings holds the step of each certificate in work.
type doings struct {
	changed func()

	mu    sync.Mutex
	now   map[string]doing
	saved map[string]state.Doing // as it is in the store
}

func newDoings(changed func()) *doings {
	return &doings{changed: changed, now: map[string]doing{}}
}

// step notes a step. How many servers have the records changes what is shown, and not since when it is waited for them.
func (d *doings) step(name string, s issuer.Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := doing{state.Doing{Step: waitsFor(s), Since: time.Now().UTC().Truncate(time.Second)}, s.Name}
	if s.Name == issuer.Seen && s.Have < s.Want {
		next.name = issuer.Published
	}
	if old, ok := d.now[name]; ok && old.name == next.name {
		next.Since = old.Since
	}
	d.now[name] = next
	d.changed()
}

// end notes that nobody works on a certificate any more.
func (d *doings) end(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.now, name)
}

// save writes what changed since the last time.
func (d *doings) save(ctx context.Context, w store.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := make(map[string]state.Doing, len(d.now))
	for name, doing := range d.now {
		now[name] = doing.Doing
	}
	if d.saved != nil && maps.Equal(now, d.saved) {
		return nil
	}
	if err := state.SaveDoings(ctx, w, now); err != nil {
		return err
	}
	d.saved = now
	return nil
}

// waitsFor says what comes after a step, and so what is waited for.
func waitsFor(s issuer.Step) string {
	switch s.Name {
	case lifecycle.Ordering:
		return "making the order at the CA"
	case issuer.Resumed, issuer.Ordered:
		return "publishing the TXT records"
	case issuer.Published:
		return "asking the zone's servers for the records"
	case issuer.Seen:
		if s.Have < s.Want {
			return fmt.Sprintf("%d of %d servers have the records", s.Have, s.Want)
		}
		return "the CA is validating"
	case issuer.Proven, issuer.Validated:
		return "the CA is issuing"
	case issuer.Issued:
		return "writing files, reloading services"
	case lifecycle.Deploying:
		return "reloading services, running commands"
	}
	return string(s.Name)
}
