package dns01

import (
	"context"
	"time"

	"autocertd/internal/zones"
)

// How long a queue gathers. A group leaves at once when nobody else is on the way to it, so that a single order never
// waits; these bounds are for the case that somebody on the way is slow.
const (
	maxGroup        = 200                    // records in one update; well below the 64 KiB of a DNS message
	addIdle         = 250 * time.Millisecond // nobody has come for that long
	addOldest       = 2 * time.Second        // the first has waited for that long
	removeOldest    = 5 * time.Second
	sendTimeout     = 30 * time.Second // one group at an RFC 2136 server
	sendTimePerItem = time.Second      // and for each record, since an HTTP API takes one request a record
)

// addition is a record on its way into the zone, and where the order waits for the result.
type addition struct {
	record *record
	result chan<- error
}

// queue gathers what is to be written into one zone by one provider. One group at a time is on its way: BIND commits an
// update message with two fsyncs and one at a time per zone, so fewer messages beat faster ones.
//
// The solver's mu guards all fields.
type queue struct {
	zones.Zone
	solver      *Solver
	additions   []addition
	removals    []*record
	firstAdd    time.Time
	lastAdd     time.Time
	firstRemove time.Time
	busy        bool          // its goroutine runs
	poke        chan struct{} // the goroutine should look again
}

// queue returns the queue of the record's zone. mu is held.
func (s *Solver) queue(key zones.TXT) *queue {
	zone := key.In()
	q := s.queues[zone]
	if q == nil {
		q = &queue{Zone: zone, solver: s.during(nil), poke: make(chan struct{}, 1)}
		s.queues[zone] = q
	}
	return q
}

// pokeAll makes every queue look again whether its group may leave. mu is held.
func (s *Solver) pokeAll() {
	for _, q := range s.queues {
		q.look()
	}
}

// add and remove take one more record; mu is held.
func (q *queue) add(a addition) {
	now := time.Now()
	if len(q.additions) == 0 {
		q.firstAdd = now
	}
	q.lastAdd = now
	q.additions = append(q.additions, a)
	q.look()
}

func (q *queue) remove(r *record) {
	if r.leaving {
		return
	}
	if len(q.removals) == 0 {
		q.firstRemove = time.Now()
	}
	r.leaving = true
	q.removals = append(q.removals, r)
	q.look()
}

// look starts the queue's goroutine, or makes it look again. mu is held.
func (q *queue) look() {
	if q.busy {
		select {
		case q.poke <- struct{}{}:
		default: // it was already told to
		}
		return
	}
	if len(q.additions)+len(q.removals) > 0 {
		q.busy = q.solver.tasks.run(q.run)
	}
}

// run sends group after group until nothing is left.
func (q *queue) run() {
	for {
		additions, removals, wait := q.take(time.Now())
		switch {
		case len(additions) > 0:
			q.sendAdditions(additions)
		case len(removals) > 0:
			q.sendRemovals(removals)
		case wait < 0:
			return
		default:
			timer := time.NewTimer(wait)
			select {
			case <-q.poke:
				timer.Stop()
			case <-timer.C:
			}
		}
	}
}

// take returns the group that may leave now, or how long to wait for it; less than zero when there is nothing to do.
func (q *queue) take(now time.Time) (additions []addition, removals []*record, wait time.Duration) {
	s := q.solver
	s.mu.Lock()
	defer s.mu.Unlock()
	q.additions = dropUnwanted(q.additions)
	q.removals = dropWanted(q.removals)
	if len(q.additions)+len(q.removals) == 0 {
		q.busy = false
		return nil, nil, -1
	}
	wait = time.Hour
	if n := min(len(q.additions), maxGroup); n > 0 {
		due := min(q.lastAdd.Add(addIdle).Sub(now), q.firstAdd.Add(addOldest).Sub(now))
		if due <= 0 || n == maxGroup || s.expected == 0 || s.closing {
			additions, q.additions = q.additions[:n:n], q.additions[n:]
			q.firstAdd = now
			for _, a := range additions {
				a.record.sending = true
			}
			return additions, nil, 0
		}
		wait = due
	}
	if n := min(len(q.removals), maxGroup); n > 0 {
		due := q.firstRemove.Add(removeOldest).Sub(now)
		if due <= 0 || n == maxGroup || s.active == 0 || s.closing {
			removals, q.removals = q.removals[:n:n], q.removals[n:]
			q.firstRemove = now
			return nil, removals, 0
		}
		wait = min(wait, due)
	}
	return nil, nil, wait
}

// dropUnwanted leaves out additions whose order was given up before they were sent.
func dropUnwanted(additions []addition) []addition {
	kept := additions[:0]
	for _, a := range additions {
		if a.record.users > 0 {
			kept = append(kept, a)
		} else {
			a.result <- context.Canceled
		}
	}
	return kept
}

// dropWanted leaves out removals of records that an order needs again: it resumed after a crash, or shares an
// authorization.
func dropWanted(removals []*record) []*record {
	kept := removals[:0]
	for _, r := range removals {
		if r.users == 0 {
			kept = append(kept, r)
		} else {
			r.leaving = false
		}
	}
	return kept
}
