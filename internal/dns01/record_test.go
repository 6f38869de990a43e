package dns01

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"autocertd/internal/zones"
)

// TestRecord has every state of a record meet every event, alone and with an order that needs it or that it shares. What is in
// no row is refused and changes nothing.
func TestRecord(t *testing.T) {
	now := time.Now()
	events := []struct {
		name string
		do   func(r *record) bool
	}{
		{"need", func(r *record) bool { return r.need(nil) }},
		{"release", (*record).release},
		{"send", (*record).send},
		{"enter", func(r *record) bool { return r.enter(&group{left: 1}) }},
		{"sent", func(r *record) bool { return r.sent(nil) }},
		{"inherit", func(r *record) bool { return inherits(r, time.Time{}) }},
		{"keep", func(r *record) bool { return inherits(r, now) }},
		{"expire", (*record).expire},
		{"remove", (*record).remove},
		{"removed", func(r *record) bool { _, ok := r.removed(); return ok }},
		{"fail", func(r *record) bool { return r.fail(errors.New("REFUSED"), now) }},
		{"retry", (*record).retry},
		{"abandon", func(r *record) bool { _, ok := r.abandon(); return ok }},
	}
	// A row is a state with the number of orders, an event, and the state with the number of orders after it.
	rows := map[string]string{
		"gone/0 need": "wanted/1", "gone/0 inherit": "leaving/0", "gone/0 keep": "kept/0",

		"wanted/1 need": "wanted/2", "wanted/2 need": "wanted/3",
		"wanted/1 release": "gone/0", "wanted/2 release": "wanted/1",
		"wanted/1 send": "sending/1", "wanted/2 send": "sending/2",
		"wanted/1 inherit": "published/1", "wanted/2 inherit": "published/2",
		"wanted/1 keep": "published/1", "wanted/2 keep": "published/2",

		"sending/0 need": "sending/1", "sending/1 need": "sending/2", "sending/2 need": "sending/3",
		"sending/1 release": "sending/0", "sending/2 release": "sending/1",
		"sending/0 enter": "sending/0", "sending/1 enter": "sending/1", "sending/2 enter": "sending/2",
		"sending/0 sent": "leaving/0", "sending/1 sent": "published/1", "sending/2 sent": "published/2",
		"sending/0 inherit": "sending/0", "sending/1 inherit": "sending/1", "sending/2 inherit": "sending/2",
		"sending/0 keep": "sending/0", "sending/1 keep": "sending/1", "sending/2 keep": "sending/2",

		"published/1 need": "published/2", "published/2 need": "published/3",
		"published/1 release": "leaving/0", "published/2 release": "published/1",
		"published/1 send": "sending/1", "published/2 send": "sending/2", // another order's addition
		"published/1 inherit": "published/1", "published/2 inherit": "published/2",
		"published/1 keep": "published/1", "published/2 keep": "published/2",

		"kept/0 need": "published/1", "kept/0 inherit": "leaving/0", "kept/0 keep": "kept/0", "kept/0 expire": "leaving/0",

		"leaving/0 need": "published/1", "leaving/0 inherit": "leaving/0", "leaving/0 keep": "leaving/0", "leaving/0 remove": "removing/0",

		"removing/0 need": "removing/1", "removing/1 need": "removing/2", "removing/2 need": "removing/3",
		"removing/1 release": "removing/0", "removing/2 release": "removing/1",
		"removing/0 inherit": "removing/0", "removing/1 inherit": "removing/1", "removing/2 inherit": "removing/2",
		"removing/0 keep": "removing/0", "removing/1 keep": "removing/1", "removing/2 keep": "removing/2",
		"removing/0 removed": "gone/0", "removing/1 removed": "wanted/1", "removing/2 removed": "wanted/2",
		"removing/0 fail": "failed/0", "removing/1 fail": "published/1", "removing/2 fail": "published/2",

		"failed/0 need": "published/1", "failed/0 inherit": "leaving/0", "failed/0 keep": "kept/0",
		"failed/0 retry": "leaving/0", "failed/0 abandon": "gone/0",
	}
	names := map[state]string{stateGone: "gone", stateWanted: "wanted", stateSending: "sending", statePublished: "published",
		stateKept: "kept", stateLeaving: "leaving", stateRemoving: "removing", stateFailed: "failed"}
	users := map[state][]int{stateGone: {0}, stateWanted: {1, 2}, stateSending: {0, 1, 2}, statePublished: {1, 2},
		stateKept: {0}, stateLeaving: {0}, stateRemoving: {0, 1, 2}, stateFailed: {0}}
	met := 0
	for from, list := range users {
		for _, n := range list {
			for _, e := range events {
				r := &record{state: from, users: n}
				if from != stateGone && from != stateWanted {
					r.groups = []*group{{left: 1}}
				}
				row := fmt.Sprintf("%s/%d %s", names[from], n, e.name)
				want, allowed := rows[row]
				if !allowed {
					want = fmt.Sprintf("%s/%d", names[from], n)
				} else {
					met++
				}
				ok := e.do(r)
				if got := fmt.Sprintf("%s/%d", names[r.state], r.users); ok != allowed || got != want {
					t.Errorf("%s: %s (%t), want %s (%t)", row, got, ok, want, allowed)
				}
				inJournal := r.state != stateGone && r.state != stateWanted
				if e.name != "send" && inJournal != (len(r.groups) > 0) { // what is sent enters the journal first
					t.Errorf("%s: %s has %d journal objects", row, names[r.state], len(r.groups))
				}
			}
		}
	}
	if met != len(rows) {
		t.Errorf("%d of %d rows were met", met, len(rows))
	}
}

// inherits has an empty journal object of a dead process hold a record, and reports whether it counts that.
func inherits(r *record, until time.Time) bool {
	var g group
	return r.inherit(&g, until) && g.left == 1
}

// TestRecordRefused has the server, or the journal, refuse an addition.
func TestRecordRefused(t *testing.T) {
	g := &group{left: 1}
	for _, tt := range []struct {
		name     string
		users    int
		journal  bool // wrote it
		withdraw bool // the server says that it isn't there
		want     state
	}{
		{"the journal can't be written", 1, false, false, stateWanted},
		{"and the order is given up", 0, false, false, stateGone},
		{"the server refuses it for sure", 1, true, true, stateWanted},
		{"and the order is given up meanwhile", 0, true, true, stateGone},
		{"it isn't known whether it is there", 1, true, false, statePublished},
		{"nor when the order is given up", 0, true, false, stateLeaving},
	} {
		r := &record{state: stateSending, users: tt.users}
		g.left = 1
		if tt.journal && !r.enter(g) {
			t.Errorf("%s: not entered", tt.name)
		}
		if tt.withdraw && (!r.withdraw(g) || r.withdraw(g)) {
			t.Errorf("%s: not withdrawn once", tt.name)
		}
		if ok := r.sent(errors.New("REFUSED")); !ok || r.state != tt.want || r.confirmed {
			t.Errorf("%s: state %d, want %d", tt.name, r.state, tt.want)
		}
	}
}

// TestRecordOfSeveralGroups leaves journal objects to the last of their records.
func TestRecordOfSeveralGroups(t *testing.T) {
	shared, own := &group{left: 2}, &group{left: 1}
	r := &record{state: stateRemoving, groups: []*group{shared, own}, failures: 3, failure: errors.New("SERVFAIL")}
	if empty, ok := r.removed(); !ok || len(empty) != 1 || empty[0] != own || shared.left != 1 || r.failures != 0 || r.failure != nil {
		t.Errorf("empty %v, %d left in the shared one, %+v", empty, shared.left, r)
	}
	if (&record{state: statePublished, groups: []*group{own}}).withdraw(own) {
		t.Error("what is published leaves the journal")
	}
}

// TestRecordRetries has a removal that fails wait longer each time, by the provider that is configured then.
func TestRecordRetries(t *testing.T) {
	now := time.Now()
	r := &record{state: stateRemoving, table: &table{}, confirmed: true}
	r.fail(errors.New("SERVFAIL"), now)
	if r.isDue(now.Add(time.Minute-1)) || !r.isDue(now.Add(time.Minute)) || r.table != nil {
		t.Errorf("after one failure: %+v", r)
	}
	r.retry()
	r.remove()
	r.fail(zones.ErrNoProvider, now)
	if !r.isDue(now) || r.failures != 2 || r.retryAt != now.Add(2*time.Minute) {
		t.Errorf("without a provider: %+v", r)
	}
	by := &table{}
	if r.need(by); r.table != by || r.failures != 0 || r.failure != nil || r.isDue(now) {
		t.Errorf("needed again: %+v", r)
	}
	if r.need(nil); r.table != by {
		t.Error("a second order changes the provider of the first")
	}
}
