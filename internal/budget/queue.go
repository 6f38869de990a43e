package budget

import (
	"time"
)

// A Queue holds the certificates that wait for room at one CA, each with the turn that the last plan gave it. The zero
// Queue is empty. It isn't safe for concurrent use.
type Queue struct{ places map[string]*place }

// place is a certificate's position in a queue.
type place struct {
	claim Claim
	turn  time.Time
}

// turnKept is how long room is kept for a certificate whose turn has come, until it asks.
const turnKept = 2 * time.Minute

// Admit plans for all certificates that ask or wait, and returns the turns of those that ask. A certificate whose turn is now
// has left the queue, and the caller takes its tokens from the ledger, which Admit doesn't change. The others wait. Waiting
// certificates that don't ask and whose turn is now, earlier than the last plan had it, are returned as early.
func (q *Queue) Admit(now time.Time, l *Ledger, asking []Claim) (turns map[string]Turn, early []string) {
	turns = make(map[string]Turn, len(asking))
	for _, w := range asking {
		if p := q.places[w.Name]; p != nil {
			w.Since = p.claim.Since
		}
		q.Wait(w, now)
		turns[w.Name] = Turn{}
	}
	claims := make([]Claim, 0, len(q.places))
	for name, p := range q.places {
		if _, asks := turns[name]; !asks && now.Sub(p.turn) >= turnKept {
			delete(q.places, name)
			continue
		}
		p.claim.Due, p.claim.Ledger = now, l
		claims = append(claims, p.claim)
	}
	for _, turn := range Plan(now, claims) {
		p := q.places[turn.Name]
		_, asks := turns[turn.Name]
		switch admitted := !turn.At.After(now); {
		case asks && admitted:
			delete(q.places, turn.Name)
		case !asks && admitted && p.turn.After(now):
			early = append(early, turn.Name)
			p.turn = now
		case !admitted:
			p.turn = turn.At
		}
		if asks {
			turn.Since = p.claim.Since
			turns[turn.Name] = turn
		}
	}
	return turns, early
}

// Wait adds a certificate whose turn is known.
func (q *Queue) Wait(w Claim, turn time.Time) {
	if q.places == nil {
		q.places = map[string]*place{}
	}
	q.places[w.Name] = &place{w, turn}
}

// Waits reports whether a certificate is in the queue.
func (q *Queue) Waits(name string) bool { return q.places[name] != nil }

// Leave removes the matching certificates.
func (q *Queue) Leave(match func(name string) bool) {
	for name := range q.places {
		if match(name) {
			delete(q.places, name)
		}
	}
}

// Len returns how many wait.
func (q *Queue) Len() int { return len(q.places) }
