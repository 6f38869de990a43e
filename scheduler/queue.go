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

// queue holds every entry at its stage. It does no locking and starts nothing.
type queue struct {
	items   map[string]*entry // the list
	waiting dueHeap
	ready   []*entry          // the most urgent last
	running map[string]*entry // by name, so that a name that left the list and came back doesn't run twice
}

func newQueue() *queue {
	return &queue{items: map[string]*entry{}, running: map[string]*entry{}}
}

// set replaces the list.
func (q *queue) set(items []Item, now time.Time) {
	old := q.items
	q.items = make(map[string]*entry, len(items))
	for _, item := range items {
		q.items[item.Name] = q.place(item, old[item.Name], now)
	}
	q.ready = slices.DeleteFunc(q.ready, func(e *entry) bool { return !q.isReady(e) })
	q.waiting = q.waiting[:0:0]
	for _, e := range q.items {
		if e.stage == waiting {
			q.waiting = append(q.waiting, e)
		}
	}
	heap.Init(&q.waiting)
}

// place finds the entry for an item of a new list. One that runs goes on, and one that is ready and due keeps
// its place; everything else begins anew.
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

// takeDue removes from the waiting entries those that are due. They're nowhere until enqueue gets them.
func (q *queue) takeDue(now time.Time) (due []*entry) {
	for len(q.waiting) > 0 && !q.waiting[0].due.After(now) {
		e := heap.Pop(&q.waiting).(*entry)
		e.stage = ready
		due = append(due, e)
	}
	return due
}

// enqueue puts due entries, all with a fresh rank, among the ready ones. It drops what a new list has
// replaced since takeDue.
func (q *queue) enqueue(due []*entry) {
	for _, e := range due {
		if q.isReady(e) {
			q.ready = append(q.ready, e)
		}
	}
	slices.SortFunc(q.ready, func(a, b *entry) int {
		return -cmp.Or(cmp.Compare(a.rank, b.rank), a.due.Compare(b.due), cmp.Compare(a.name, b.name))
	})
}

func (q *queue) isReady(e *entry) bool { return e.stage == ready && q.items[e.name] == e }

// start takes the most urgent ready entry; nil when there is none.
func (q *queue) start() *entry {
	last := len(q.ready) - 1
	if last < 0 {
		return nil
	}
	e := q.ready[last]
	q.ready[last] = nil
	q.ready = q.ready[:last]
	e.stage = running
	q.running[e.name] = e
	return e
}

// finish lets an entry that ran wait until next, or until the due time that a new list gave it meanwhile,
// whichever is earlier. An entry that left the list is forgotten.
func (q *queue) finish(e *entry, next time.Time) {
	delete(q.running, e.name)
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
