package dns01

import (
	"errors"
	"slices"
	"time"

	"autocertd/internal/store"
	"autocertd/internal/zones"
)

// state says where a record is on its way into a zone and out of it.
type state int

// The states of a record. Orders of ours need it in stateWanted and statePublished, and perhaps while it is on its way.
const (
	stateGone      state = iota // nothing of it is in the zone or in the journal
	stateWanted                 // an order needs it, and nothing of it is in the zone
	stateSending                // its addition is on its way
	statePublished              // an order needs it, and it is in the zone or may be
	stateKept                   // an earlier process left it, and that process's order may yet go on
	stateLeaving                // it waits for its removal
	stateRemoving               // its removal is on its way
	stateFailed                 // its removal failed, and will be tried again
)

// record is a record that we published, or are about to, and haven't removed. Its state, and what belongs to it, changes only
// by the methods in this file. Each is an event, reports false where that can't occur, and changes nothing then. The solver's
// mu guards all but the first three fields, which never change.
type record struct {
	zones.TXT
	challenge string        // the name that led here; Name itself, unless that is an alias
	ttl       time.Duration // 0 for the provider's

	state     state
	users     int       // solutions that need it; two orders may share an authorization
	table     *table    // that of the order that published it; nil: of an earlier process, or its provider can't remove it
	confirmed bool      // a server confirmed the addition
	groups    []*group  // journal objects that hold it
	until     time.Time // when a kept record leaves
	failures  int       // removals that failed in a row
	failure   error     // why the last of them failed
	retryAt   time.Time
}

// group is one object of the journal.
type group struct {
	object string
	lease  store.Lease // of its slot
	left   int         // records not yet removed; guarded by the solver's mu
}

// need adds an order, which goes by a table. A record whose removal is on its way is published again by the order's addition.
func (r *record) need(by *table) bool {
	switch r.state {
	case stateGone:
		r.state = stateWanted
	case stateKept, stateLeaving, stateFailed:
		r.state = statePublished
		r.failures, r.failure = 0, nil
	}
	if r.users++; r.users == 1 {
		r.table = by
	}
	return true
}

// release takes an order away. What is on its way is followed by a removal when it is through.
func (r *record) release() bool {
	if r.users == 0 {
		return false
	}
	if r.users--; r.users > 0 {
		return true
	}
	switch r.state {
	case stateWanted:
		r.state = stateGone
	case statePublished:
		r.state = stateLeaving
	}
	return true
}

// send takes the record into a group of additions.
func (r *record) send() bool {
	if r.users == 0 || r.state != stateWanted && r.state != statePublished {
		return false
	}
	r.state = stateSending
	return true
}

// enter notes that a journal object holds the record, before that is sent.
func (r *record) enter(g *group) bool {
	if r.state != stateSending {
		return false
	}
	r.groups = append(r.groups, g)
	return true
}

// withdraw notes that the record isn't in the zone on account of a group, and reports whether that is empty now.
func (r *record) withdraw(g *group) (empty bool) {
	i := slices.Index(r.groups, g)
	if r.state != stateSending || i < 0 {
		return false
	}
	r.groups = slices.Delete(r.groups, i, i+1)
	g.left--
	return g.left == 0
}

// sent notes the result of an addition. A record that is in the journal may be in the zone, whatever the result was.
func (r *record) sent(err error) bool {
	if r.state != stateSending {
		return false
	}
	r.confirmed = r.confirmed || err == nil
	switch journaled := len(r.groups) > 0; {
	case r.users > 0 && journaled:
		r.state = statePublished
	case r.users > 0:
		r.state = stateWanted
	case journaled:
		r.state = stateLeaving
	default:
		r.state = stateGone
	}
	return true
}

// inherit notes that a dead process's journal object holds the record. It is kept until a moment, zero for no time, unless an
// order of ours needs it.
func (r *record) inherit(g *group, until time.Time) bool {
	r.groups = append(r.groups, g)
	g.left++
	switch r.state {
	case stateWanted:
		r.state = statePublished
	case stateGone, stateKept, stateFailed:
		if r.state, r.until = stateLeaving, until; !until.IsZero() {
			r.state = stateKept
		}
	}
	return true
}

// expire ends the time of a kept record.
func (r *record) expire() bool {
	if r.state != stateKept {
		return false
	}
	r.state = stateLeaving
	return true
}

// remove takes the record into a group of removals.
func (r *record) remove() bool {
	if r.state != stateLeaving {
		return false
	}
	r.state = stateRemoving
	return true
}

// removed notes that the record isn't in the zone any more, and returns the journal objects that are empty now. An order that
// needs it again has its addition in the queue.
func (r *record) removed() (empty []*group, ok bool) {
	if r.state != stateRemoving {
		return nil, false
	}
	if r.state = stateGone; r.users > 0 {
		r.state = stateWanted
	}
	r.failures, r.failure = 0, nil
	return r.forget(), true
}

// fail notes that a removal failed. The next try is with the provider that is configured then: perhaps the key was replaced.
func (r *record) fail(err error, now time.Time) bool {
	if r.state != stateRemoving {
		return false
	}
	if r.users > 0 {
		r.state = statePublished
		return true
	}
	r.state = stateFailed
	r.table = nil
	r.failures++
	r.failure, r.retryAt = err, now.Add(removalBackoff(r.failures))
	return true
}

// removalBackoff returns when a removal is tried again after it failed: after a minute, then ever later up to an hour.
func removalBackoff(failures int) time.Duration {
	return min(time.Minute<<min(failures-1, 6), time.Hour)
}

// isDue reports whether a failed removal may be tried again at a moment. One that failed since its provider was gone may at
// once.
func (r *record) isDue(at time.Time) bool {
	return r.state == stateFailed && (errors.Is(r.failure, zones.ErrNoProvider) || !at.Before(r.retryAt))
}

// retry lets a failed removal be tried again.
func (r *record) retry() bool {
	if r.state != stateFailed {
		return false
	}
	r.state = stateLeaving
	return true
}

// abandon leaves a record whose removal failed to another process, which needs it by now, and returns the journal objects
// that are empty now.
func (r *record) abandon() (empty []*group, ok bool) {
	if r.state != stateFailed {
		return nil, false
	}
	r.state = stateGone
	return r.forget(), true
}

// forget takes the record out of all journal objects, and returns those that are empty now.
func (r *record) forget() (empty []*group) {
	for _, g := range r.groups {
		if g.left--; g.left == 0 {
			empty = append(empty, g)
		}
	}
	r.groups = nil
	return empty
}
