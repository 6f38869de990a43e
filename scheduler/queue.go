package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// An Item is a name and the moment from which on it's to be reconciled; the zero time is at once.
type Item struct {
	Name string
	Due  time.Time
}

// entry is one name on its way round: waiting for its due time, ready, running, waiting again.
type entry struct {
	name   string
	stage  stage
	due    time.Time
	rank   float64   // urgency, while ready
	lane   *lane     // while ready or running
	placed bool      // holds a place, while running
	given  time.Time // due time from the list, while running
	listed bool      // given counts
	lost   int       // runs in a row that left no next due time
}

type stage int

const (
	waiting stage = iota
	ready
	running
)

// lane holds names that fail or hang together, such as those of one CA. Each lane lists its ready names itself, so that the
// next name is found at once, however many names of other lanes can't start.
type lane struct {
	ready  []*entry // the most urgent last
	shares share    // of the names that run
}

// share counts running names: all of them, and those among them that hold a place.
type share struct{ running, placed int }

// laneFactor is how many times the rest that is free a lane may have. A single lane gets three quarters of everything,
// two greedy ones get three sevenths each, and something is always left for one more.
const laneFactor = 3

// allows reports whether a lane that has some may have one more, when all lanes together use so many of size.
func allows(has, used, size int) bool { return has < laneFactor*(size-used) }

// queue holds every entry at its stage. It does no locking and starts nothing.
type queue struct {
	items   map[string]*entry // the list
	waiting dueHeap
	lanes   map[string]*lane  // those in which something is ready or runs
	ready   int               // entries that are ready
	running map[string]*entry // by name, so that a name that left the list and came back doesn't run twice
	placed  int               // entries that hold a place
	places  int               // how many there are
	most    int               // entries that may run at a time
}

func newQueue(places, most int) *queue {
	return &queue{
		items:   map[string]*entry{},
		running: map[string]*entry{},
		lanes:   map[string]*lane{},
		places:  places,
		most:    most,
	}
}

// set replaces the list.
func (q *queue) set(items []Item, now time.Time) {
	old := q.items
	q.items = make(map[string]*entry, len(items))
	for _, item := range items {
		q.items[item.Name] = q.place(item, old[item.Name], now)
	}
	q.ready = 0
	for _, l := range q.lanes {
		l.ready = slices.DeleteFunc(l.ready, func(e *entry) bool { return !q.isReady(e) })
		q.ready += len(l.ready)
	}
	q.waiting = q.waiting[:0:0]
	for _, e := range q.items {
		if e.stage == waiting {
			q.waiting = append(q.waiting, e)
		}
	}
	heap.Init(&q.waiting)
}

// update replaces due times. An entry that is ready stays so.
func (q *queue) update(items []Item) {
	for _, item := range items {
		due := item.Due.Round(0)
		if e := q.running[item.Name]; e != nil {
			e.given, e.listed = due, true
		} else if e := q.items[item.Name]; e != nil && e.stage == waiting {
			e.due = due
		}
	}
	heap.Init(&q.waiting)
}

// place finds the entry for an item of a new list. One that runs goes on, and one that is ready and due keeps
// its place; any other starts over.
func (q *queue) place(item Item, old *entry, now time.Time) *entry {
	due := item.Due.Round(0)
	if e := q.running[item.Name]; e != nil {
		e.given, e.listed = due, true
		return e
	}
	if old != nil && old.stage == ready && !due.After(now) {
		old.due = due
		return old
	}
	return &entry{name: item.Name, due: due}
}

// takeDue removes the due entries from the waiting ones, for enqueue.
func (q *queue) takeDue(now time.Time) (due []*entry) {
	for len(q.waiting) > 0 && !q.waiting[0].due.After(now) {
		e := heap.Pop(&q.waiting).(*entry)
		e.stage = ready
		due = append(due, e)
	}
	return due
}

// readyEntries returns all that are ready.
func (q *queue) readyEntries() (all []*entry) {
	for _, l := range q.lanes {
		all = append(all, l.ready...)
	}
	return all
}

// enqueue makes entries ready, all that are, each in the lane and with the rank of the same index. It drops those that a new
// list has replaced meanwhile.
func (q *queue) enqueue(entries []*entry, lanes []string, ranks []float64) {
	for name, l := range q.lanes {
		l.ready = l.ready[:0]
		if l.shares.running == 0 {
			delete(q.lanes, name)
		}
	}
	q.ready = 0
	for i, e := range entries {
		if !q.isReady(e) {
			continue
		}
		l := q.lanes[lanes[i]]
		if l == nil {
			l = &lane{}
			q.lanes[lanes[i]] = l
		}
		e.lane, e.rank = l, ranks[i]
		l.ready = append(l.ready, e)
		q.ready++
	}
	for _, l := range q.lanes {
		slices.SortFunc(l.ready, func(a, b *entry) int { return -byUrgency(a, b) })
	}
}

// byUrgency has the most urgent first.
func byUrgency(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), a.due.Compare(b.due), cmp.Compare(a.name, b.name))
}

func (q *queue) isReady(e *entry) bool { return e.stage == ready && q.items[e.name] == e }

// start takes the most urgent ready entry whose lane may have one more; nil when there is none.
func (q *queue) start() *entry {
	if q.ready == 0 {
		return nil
	}
	var first *entry
	for _, l := range q.lanes {
		if len(l.ready) == 0 || !allows(l.shares.placed, q.placed, q.places) || !allows(l.shares.running, len(q.running), q.most) {
			continue
		}
		if e := l.ready[len(l.ready)-1]; first == nil || byUrgency(e, first) < 0 {
			first = e
		}
	}
	if first == nil {
		return nil
	}
	l := first.lane
	l.ready[len(l.ready)-1] = nil
	l.ready = l.ready[:len(l.ready)-1]
	q.ready--
	first.stage, first.placed = running, true
	q.running[first.name] = first
	l.shares.running++
	l.shares.placed++
	q.placed++
	return first
}

// yield takes the place of an entry that runs, and reports whether it had one.
func (q *queue) yield(e *entry) bool {
	if !e.placed {
		return false
	}
	e.placed = false
	e.lane.shares.placed--
	q.placed--
	return true
}

// makeDue makes the entries due whose names match.
func (q *queue) makeDue(match func(name string) bool, now time.Time) {
	for name, e := range q.items {
		switch {
		case !match(name):
		case e.stage == running:
			e.given, e.listed = now, true
		case e.stage == waiting && e.due.After(now):
			e.due = now
		}
	}
	heap.Init(&q.waiting)
}

// finish lets an entry that ran wait until next, or until the due time that a new list gave it meanwhile,
// whichever is earlier. An entry that left the list is forgotten.
func (q *queue) finish(e *entry, next time.Time) {
	q.yield(e)
	delete(q.running, e.name)
	e.lane.shares.running--
	e.lane = nil
	if q.items[e.name] != e {
		return
	}
	e.stage, e.due = waiting, next.Round(0)
	if e.listed && e.given.Before(e.due) {
		e.due = e.given
	}
	e.given, e.listed = time.Time{}, false
	heap.Push(&q.waiting, e)
}

// dueHeap has the earliest due time first; it's a heap.Interface.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(e any)        { *h = append(*h, e.(*entry)) }
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
