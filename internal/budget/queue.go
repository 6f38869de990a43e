package budget

import (
	"time"
)

// A Queue holds the certificates that wait for room at one CA, each with the turn that the last plan gave it. The zero
// Queue is empty. It isn't safe for concurrent use.
type Queue struct{ places map[string]*place }

// place is one certificate's in a queue.
type place struct {
	wish Wish
	turn time.Time
}

// turnTaking is how long room is kept for a certificate whose turn has come, and that doesn't ask.
const turnTaking = 2 * time.Minute

// Admit plans for all that ask or wait, and returns the turns of those that ask. One whose turn is now has left the queue, and
// takes its tokens from the ledger, which stays as it is here. The others wait. Certificates that wait, don't ask, and have
// their turn earlier than they know are returned as early.
func (q *Queue) Admit(now time.Time, l *Ledger, asking []Wish) (turns map[string]Turn, early []string) {
	turns = make(map[string]Turn, len(asking))
	for _, w := range asking {
		if p := q.places[w.Name]; p != nil {
			w.Since = p.wish.Since
		}
		q.Wait(w, now)
		turns[w.Name] = Turn{}
	}
	wishes := make([]Wish, 0, len(q.places))
	for name, p := range q.places {
		if _, asks := turns[name]; !asks && now.Sub(p.turn) >= turnTaking {
			delete(q.places, name)
			continue
		}
		p.wish.Due, p.wish.Ledger = now, l
		wishes = append(wishes, p.wish)
	}
	for _, turn := range Plan(now, wishes) {
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
			turn.Since = p.wish.Since
			turns[turn.Name] = turn
		}
	}
	return turns, early
}

// Wait adds a certificate whose turn is known.
func (q *Queue) Wait(w Wish, turn time.Time) {
	if q.places == nil {
		q.places = map[string]*place{}
	}
	q.places[w.Name] = &place{w, turn}
}

// Waits reports whether a certificate is in the queue.
func (q *Queue) Waits(name string) bool { return q.places[name] != nil }

// Leave removes the certificates that match.
func (q *Queue) Leave(match func(name string) bool) {
	for name := range q.places {
		if match(name) {
			delete(q.places, name)
		}
	}
}

// Len returns how many wait.
func (q *Queue) Len() int { return len(q.places) }
