package budget

import (
	"cmp"
	"container/heap"
	"time"
)

// A Wish is a certificate that is due at some moment.
type Wish struct {
	Name    string
	Due     time.Time
	Urgency float64   // the lowest first
	Since   time.Time // when it began to wait for room; of those that are as urgent the first comes first
	Ledger  *Ledger   // of the CA that it goes to; nil when nothing is limited there
	Keys    []Key     // what it takes; none when it is exempt
	Needs   []Key     // what must not be empty besides
	AtOnce  bool      // it takes what it takes, and waits for no room
}

// A Turn is when a wish is granted.
type Turn struct {
	Name  string
	At    time.Time
	Tight Key       // the last bucket that had room; "" when nothing was waited for
	Last  []Key     // buckets of which it takes the last token
	Since time.Time // when it began to wait, for a certificate in a Queue
}

// Plan says when each wish is granted, in the order in which they are: at once when it is due and there is room, the most
// urgent first. The ledgers stay as they are.
func Plan(now time.Time, wishes []Wish) []Turn {
	p := newPlanner()
	for _, w := range wishes {
		if p.ledgers[w.Ledger] == nil && w.Ledger != nil {
			p.ledgers[w.Ledger] = w.Ledger.Clone()
			p.ledgers[w.Ledger].Mend(now, func(Running) bool { return false }) // what runs will have been taken
		}
		p.heap = append(p.heap, &waiting{Wish: w, at: later(w.Due, now)})
	}
	heap.Init(&p.heap)
	turns := make([]Turn, 0, len(wishes))
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

// waiting is a wish on its way through a plan.
type waiting struct {
	Wish
	at    time.Time // not before this
	tight Key       // the bucket in whose queue it is
}

type bucket struct {
	ledger *Ledger
	key    Key
}

type planner struct {
	heap    wishHeap
	ledgers map[*Ledger]*Ledger // the copies that are planned with
	queued  map[bucket]int      // how many wait for each bucket
	least   map[bucket]float64  // how urgent the last of those is
}

func newPlanner() *planner {
	return &planner{ledgers: map[*Ledger]*Ledger{}, queued: map[bucket]int{}, least: map[bucket]float64{}}
}

// grant grants a wish at its moment, or gives it a later one.
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

// queue gives a wish the moment at which it looks for room again. The first time it goes behind those that wait already
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

// leave takes a wish out of the queue that it is in, if any.
func (p *planner) leave(w *waiting) {
	if w.tight != "" {
		p.queued[bucket{w.Ledger, w.tight}]--
	}
}

// room is when there is room for all that a wish takes and needs, not before its moment.
func (w *waiting) room(ledger *Ledger, ahead func(Key) int) (at time.Time, tight Key) {
	at, tight = ledger.Room(w.Keys, w.at, ahead)
	if t, key := ledger.Room(w.Needs, w.at, nil); t.After(at) {
		return t, key
	}
	return at, tight
}

type wishHeap []*waiting

func (h wishHeap) Len() int { return len(h) }

func (h wishHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	if a.Urgency != b.Urgency {
		return a.Urgency < b.Urgency
	}
	return cmp.Or(a.Since.Compare(b.Since), a.Due.Compare(b.Due), cmp.Compare(a.Name, b.Name)) < 0
}

func (h wishHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *wishHeap) Push(w any)   { *h = append(*h, w.(*waiting)) }
func (h *wishHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}
