package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQueueOrder(t *testing.T) {
	now := date(t, "2026-05-01T12:00:00Z")
	q := newQueue(100, 100)
	q.set([]Item{
		{"c", now.Add(-time.Hour)},
		{"b", now.Add(-time.Hour)},
		{"a", now},
		{"urgent", now},
		{"later", now.Add(time.Nanosecond)},
	}, now)
	due := q.takeDue(now)
	lanes, ranks := make([]string, len(due)), make([]float64, len(due))
	for i, e := range due {
		lanes[i] = e.name // the order is that of all lanes together
		if e.name != "urgent" {
			ranks[i] = 1
		}
	}
	q.enqueue(due, lanes, ranks)

	var got []string
	for e := q.start(); e != nil; e = q.start() {
		got = append(got, e.name)
	}
	if want := []string{"urgent", "b", "c", "a"}; !slices.Equal(got, want) {
		t.Errorf("started %q, want %q: by rank, then due time, then name", got, want)
	}
}

func TestQueueSetKeepsWhatIsReady(t *testing.T) {
	now := date(t, "2026-05-01T12:00:00Z")
	q := newQueue(100, 100)
	q.set([]Item{{"still due", now}, {"put off", now}, {"gone", now}}, now)
	enqueue(q, q.takeDue(now))
	q.set([]Item{{"still due", now.Add(-time.Hour)}, {"put off", now.Add(time.Hour)}, {"new", now}}, now)
	if list := q.readyEntries(); q.ready != 1 || len(list) != 1 || list[0].name != "still due" {
		t.Errorf("%d entries are ready, want the one that is still due", q.ready)
	}
	if len(q.waiting) != 2 || q.waiting[0].name != "new" {
		t.Errorf("%d entries wait, want the new one and the one that was put off", len(q.waiting))
	}
}

func TestQueueFinish(t *testing.T) {
	now := date(t, "2026-05-01T12:00:00Z")
	tests := []struct {
		name   string
		lists  [][]Item // set while "a" runs
		next   time.Duration
		listed bool
		want   time.Duration
	}{
		{"no new list", nil, 5 * time.Hour, true, 5 * time.Hour},
		{"a list with a later due time", [][]Item{{{"a", now.Add(9 * time.Hour)}}}, 5 * time.Hour, true, 5 * time.Hour},
		{"a list with an earlier due time", [][]Item{{{"a", now.Add(time.Hour)}}}, 5 * time.Hour, true, time.Hour},
		{"two lists, the last counts", [][]Item{{{"a", now.Add(time.Hour)}}, {{"a", now.Add(2 * time.Hour)}}}, 5 * time.Hour, true, 2 * time.Hour},
		{"a list without it", [][]Item{{{"b", now}}}, 5 * time.Hour, false, 0},
		{"a list without it, then one with it", [][]Item{{{"b", now}}, {{"a", now.Add(time.Hour)}}}, 5 * time.Hour, true, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := newQueue(1, 1)
			q.set([]Item{{Name: "a"}}, now)
			enqueue(q, q.takeDue(now))
			e := q.start()
			for _, list := range tt.lists {
				q.set(list, now)
			}
			if twice := slices.ContainsFunc(q.takeDue(now), func(e *entry) bool { return e.name == "a" }); twice {
				t.Fatal("it's due again while it runs")
			}
			q.finish(e, now.Add(tt.next))
			got := q.items["a"]
			if (got != nil) != tt.listed {
				t.Fatalf("listed = %t, want %t", got != nil, tt.listed)
			}
			if got != nil && !got.due.Equal(now.Add(tt.want)) {
				t.Errorf("due after %s, want after %s", got.due.Sub(now), tt.want)
			}
		})
	}
}

// TestQueueRandomly does anything in any order, and checks each time that every name is in exactly one place.
func TestQueueRandomly(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		now := date(t, "2026-05-01T12:00:00Z")
		soon := func() time.Time { return now.Add(time.Duration(r.IntN(100)-20) * time.Second) }
		q := newQueue(1+r.IntN(4), 1+r.IntN(8))
		var taken []*entry
		for range 500 {
			switch r.IntN(8) {
			case 0:
				var items []Item
				for i := range 10 {
					if r.IntN(3) > 0 {
						items = append(items, Item{fmt.Sprint(i), soon()})
					}
				}
				q.set(items, now)
			case 1:
				taken = append(taken, q.takeDue(now)...)
			case 2:
				enqueue(q, append(taken, q.readyEntries()...))
				taken = nil
			case 3:
				q.start()
			case 4:
				for _, e := range q.running {
					q.finish(e, soon())
					break
				}
			case 5:
				for _, e := range q.running {
					q.yield(e)
					break
				}
			case 6:
				q.makeDue(func(name string) bool { return name < "3" }, now)
			case 7:
				now = now.Add(time.Duration(r.IntN(30)) * time.Second)
			}
			checkQueue(t, q, taken)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

func checkQueue(t *testing.T, q *queue, taken []*entry) {
	t.Helper()
	places := map[*entry]int{}
	for i, e := range q.waiting {
		places[e]++
		if parent := q.waiting[(i-1)/2]; i > 0 && e.due.Before(parent.due) {
			t.Errorf("%s isn't where its due time belongs", e.name)
		}
	}
	inLanes, have := 0, share{}
	for _, l := range q.lanes {
		for _, e := range l.ready {
			places[e]++
			inLanes++
		}
		have.running += l.shares.running
		have.placed += l.shares.placed
	}
	if inLanes != q.ready || have.running != len(q.running) || have.placed != q.placed {
		t.Errorf("%d ready, %d running, %d with a place; the lanes have %d, %d and %d", q.ready, len(q.running), q.placed, inLanes, have.running, have.placed)
	}
	if q.placed > q.places || len(q.running) > q.most {
		t.Errorf("%d of %d places, %d of %d that may run", q.placed, q.places, len(q.running), q.most)
	}
	for _, e := range taken {
		if q.isReady(e) {
			places[e]++
		}
	}
	for name, e := range q.running {
		places[e]++
		if other := q.items[name]; other != nil && other != e {
			t.Errorf("%s runs, and another entry for it exists", name)
		}
	}
	for name, e := range q.items {
		if places[e] != 1 {
			t.Errorf("%s is in %d places", name, places[e])
		}
	}
	if strangers := len(places) - len(q.items); strangers > len(q.running) {
		t.Errorf("%d entries that aren't on the list, and %d run", strangers, len(q.running))
	}
}

// enqueue puts entries into one lane of five, by their names.
func enqueue(q *queue, entries []*entry) {
	lanes, ranks := make([]string, len(entries)), make([]float64, len(entries))
	for i, e := range entries {
		lanes[i] = string(e.name[0] & 7 % 5)
	}
	q.enqueue(entries, lanes, ranks)
}

func TestAllows(t *testing.T) {
	tests := []struct {
		name            string
		has, used, size int
		want            bool
	}{
		{"the first", 0, 0, 1, true},
		{"of one, nothing is left", 1, 1, 1, false},
		{"a lane that is alone", 95, 95, 128, true},
		{"it leaves a quarter", 96, 96, 128, false},
		{"a newcomer beside it", 0, 96, 128, true},
		{"two that hang", 54, 109, 128, true},
		{"a newcomer beside two that hang", 0, 110, 128, true},
		{"the last of all", 0, 127, 128, true},
		{"more than there is, after a change", 0, 200, 128, false},
	}
	for _, tt := range tests {
		if got := allows(tt.has, tt.used, tt.size); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
