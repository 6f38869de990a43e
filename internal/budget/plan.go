package budget

import (
	"cmp"
	"container/heap"
	"time"
)

// A Claim is what a certificate needs of a CA's limits, from the moment on at which it is due.
type Claim struct {
	Name    string
	Due     time.Time
	Urgency float64   // the lowest first
	Since   time.Time // when it began to wait for room; the earliest of equally urgent ones comes first
	Ledger  *Ledger   // of the CA that it goes to; nil when nothing is limited there
	Keys    []Key     // buckets that it takes a token from; none when it is exempt
	Needs   []Key     // buckets that must not be empty either
	AtOnce  bool      // it takes its tokens whether they are there or not
}

// A Turn is when a claim is granted.
type Turn struct {
	Name  string
	At    time.Time
	Tight Key       // the last bucket that had room; "" when nothing was waited for
	Last  []Key     // buckets of which it takes the last token
	Since time.Time // when it began to wait, for a certificate in a Queue
}

// Plan says when each claim is granted, in the order in which they are: at once when it is due and there is room, the most
// urgent first. The ledgers stay as they are.
func Plan(now time.Time, claims []Claim) []Turn {
	p := newPlanner()
	for _, w := range claims {
		if p.ledgers[w.Ledger] == nil && w.Ledger != nil {
			p.ledgers[w.Ledger] = w.Ledger.Clone()
			p.ledgers[w.Ledger].Advance(now, func(Running) bool { return false }) // running orders will have taken theirs
		}
		p.heap = append(p.heap, &waiting{Claim: w, at: later(w.Due, now)})
	}
	heap.Init(&p.heap)
	turns := make([]Turn, 0, len(claims))
	for len(p.heap) > 0 {
		w := heap.Pop(&p.heap).(*waiting)
		if turn, granted := p.grant(w); granted {
			turns = append(turns, turn)
		} else {
			heap.Push(&p.heap, w)
		}
	}
	return turns
}

// waiting is a claim on its way through a plan.
type waiting struct {
	Claim
	at    time.Time // not before this
	tight Key       // the bucket in whose queue it is
}

type bucket struct {
	ledger *Ledger
	key    Key
}

type planner struct {
	heap    claimHeap
	ledgers map[*Ledger]*Ledger // the copies that are planned with
	queued  map[bucket]int      // how many wait for each bucket
	least   map[bucket]float64  // how urgent the last of those is
}

func newPlanner() *planner {
	return &planner{ledgers: map[*Ledger]*Ledger{}, queued: map[bucket]int{}, least: map[bucket]float64{}}
}

// grant grants a claim at its moment, or gives it a later one.
func (p *planner) grant(w *waiting) (Turn, bool) {
	turn := Turn{Name: w.Name, At: w.at, Tight: w.tight}
	ledger := p.ledgers[w.Ledger]
	if ledger == nil {
		return turn, true
	}
	at, tight := w.room(ledger, nil)
	if at.After(w.at) && !w.AtOnce {
		p.queue(w, ledger, tight)
		return turn, false
	}
	ledger.Spend(w.Keys, w.at)
	for _, key := range w.Keys {
		if ledger.Left(key, w.at) == 0 {
			turn.Last = append(turn.Last, key)
		}
	}
	p.leave(w)
	return turn, true
}

// queue gives a claim the moment at which it looks for room again. The first time it goes behind those that wait already
// for the same bucket, unless it is more urgent, so that a long queue isn't looked through at every token. One that was
// overtaken tries for the next token.
func (p *planner) queue(w *waiting, ledger *Ledger, tight Key) {
	ahead := func(key Key) int { return p.queued[bucket{w.Ledger, key}] }
	p.leave(w)
	if b := (bucket{w.Ledger, tight}); w.tight == tight || w.Urgency < p.least[b] {
		ahead = nil
	} else {
		p.least[b] = w.Urgency
	}
	w.at, w.tight = w.room(ledger, ahead)
	w.tight = cmp.Or(w.tight, tight)
	p.queued[bucket{w.Ledger, w.tight}]++
}

// leave takes a claim out of the queue that it is in, if any.
func (p *planner) leave(w *waiting) {
	if w.tight != "" {
		p.queued[bucket{w.Ledger, w.tight}]--
	}
}

// room is when there is room for all that a claim takes and needs, not before its moment.
func (w *waiting) room(ledger *Ledger, ahead func(Key) int) (at time.Time, tight Key) {
	at, tight = ledger.Room(w.Keys, w.at, ahead)
	if t, key := ledger.Room(w.Needs, w.at, nil); t.After(at) {
		return t, key
	}
	return at, tight
}

type claimHeap []*waiting

func (h claimHeap) Len() int { return len(h) }

func (h claimHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	if a.Urgency != b.Urgency {
		return a.Urgency < b.Urgency
	}
	return cmp.Or(a.Since.Compare(b.Since), a.Due.Compare(b.Due), cmp.Compare(a.Name, b.Name)) < 0
}

func (h claimHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *claimHeap) Push(w any)   { *h = append(*h, w.(*waiting)) }
func (h *claimHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}
