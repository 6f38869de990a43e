package dns01

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"autocertd/internal/zones"
)

// inBubble runs f with a solver on a fake client, in virtual time, and closes it: at the end nothing of its own is left
// in the zones or in the journal.
func inBubble(t *testing.T, client *fakeClient, f func(t *testing.T, s *Solver)) {
	t.Helper()
	files := openFiles(t, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		s := newSolver(files, fake(client))
		f(t, s)
		closeSolver(t, s)
		if n := s.Left(); n != 0 {
			t.Errorf("the solver remembers %d records", n)
		}
	})
	if n := client.Left(); n != 0 {
		t.Errorf("%d records are left in the zone", n)
	}
	if objects := journalObjects(t, files); len(objects) != 0 {
		t.Errorf("left in the journal: %q", objects)
	}
}

func begin(s *Solver) *solution { return s.Begin().(*solution) }

// beginAll announces n orders before any of them goes on.
func beginAll(s *Solver, n int) []*solution {
	all := make([]*solution, n)
	for i := range all {
		all[i] = begin(s)
	}
	return all
}

func mustSubmit(t *testing.T, sol *solution, keys ...zones.TXT) {
	t.Helper()
	if err := sol.submit(t.Context(), keys); err != nil {
		t.Error(err)
	}
}

func TestOneOrderIsSentAtOnce(t *testing.T) {
	client := &fakeClient{}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		start := time.Now()
		sol := begin(s)
		mustSubmit(t, sol, key("a", "1"), key("b", "2"))
		sol.Remove()
		synctest.Wait()
		if calls := client.Calls(""); len(calls) != 2 || len(calls[0].Records) != 2 || len(calls[1].Records) != 2 {
			t.Errorf("calls %+v, want one of each method with two records", calls)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %s of virtual time", took)
		}
	})
}

func TestOrdersOnTheirWayAreSentTogether(t *testing.T) {
	const orders = 450
	client := &fakeClient{Delay: 10 * time.Millisecond}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		var group sync.WaitGroup
		for i, sol := range beginAll(s, orders) {
			group.Go(func() {
				defer sol.Remove()
				time.Sleep(time.Duration(i) * time.Millisecond)
				mustSubmit(t, sol, key(fmt.Sprint(i), "x"))
			})
		}
		group.Wait()
		synctest.Wait()
	})
	for _, method := range []string{"append", "delete"} {
		var sizes []int
		for _, c := range client.Calls(method) {
			sizes = append(sizes, len(c.Records))
		}
		if want := []int{200, 200, 50}; !slices.Equal(sizes, want) {
			t.Errorf("%s: groups of %v, want %v", method, sizes, want)
		}
	}
}

func TestSlowOrderHoldsTheOthersUpOnlyShortly(t *testing.T) {
	tests := []struct {
		name   string
		orders int
		every  time.Duration // between two arrivals
		sent   []time.Duration
	}{
		{name: "nobody comes for 250 ms", orders: 3, every: 100 * time.Millisecond, sent: []time.Duration{450 * time.Millisecond}},
		{name: "somebody always comes, 2 s for the first", orders: 12, every: 200 * time.Millisecond,
			sent: []time.Duration{2 * time.Second, 2450 * time.Millisecond}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := &fakeClient{}
			inBubble(t, client, func(t *testing.T, s *Solver) {
				start := time.Now()
				slow := begin(s)
				defer slow.Remove()
				var group sync.WaitGroup
				for i := range tt.orders {
					sol := begin(s)
					group.Go(func() {
						defer sol.Remove()
						time.Sleep(time.Duration(i) * tt.every)
						mustSubmit(t, sol, key(fmt.Sprint(i), "x"))
					})
				}
				group.Wait()
				var sent []time.Duration
				for _, c := range client.Calls("append") {
					sent = append(sent, c.At.Sub(start))
				}
				if !slices.Equal(sent, tt.sent) {
					t.Errorf("sent after %v, want %v", sent, tt.sent)
				}
			})
		})
	}
}

func TestRemovalsGather(t *testing.T) {
	client := &fakeClient{}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		first, second, third := begin(s), begin(s), begin(s)
		for i, sol := range []*solution{first, second, third} {
			mustSubmit(t, sol, key(fmt.Sprint(i), "x"))
		}
		start := time.Now()
		first.Remove()
		time.Sleep(time.Second)
		second.Remove()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if calls := client.Calls("delete"); len(calls) != 1 || calls[0].At.Sub(start) != removeOldest || len(calls[0].Records) != 2 {
			t.Errorf("while an order is active: %+v, want one removal of two records after %s", calls, removeOldest)
		}
		start = time.Now()
		third.Remove()
		synctest.Wait()
		if calls := client.Calls("delete"); len(calls) != 2 || !calls[1].At.Equal(start) {
			t.Errorf("when nobody is active any more: %+v, want one more removal at once", calls)
		}
	})
}

func TestZonesDoNotWaitForEachOther(t *testing.T) {
	var gate chan struct{}
	client := &fakeClient{Before: func(c call) (bool, error) {
		if c.Zone == "slow.test." && c.Method == "append" {
			<-gate
		}
		return true, nil
	}}
	files := openFiles(t, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		gate = make(chan struct{})
		s := newSolver(files, fake(client))
		slow, fast := begin(s), begin(s)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			defer slow.Remove()
			mustSubmit(t, slow, zones.TXT{Provider: "bind", Zone: "slow.test", Name: "_acme-challenge.slow.test", Value: "x"})
		})
		synctest.Wait()
		mustSubmit(t, fast, key("a", "x")) // doesn't return while it waits for the other
		fast.Remove()
		close(gate)
		waiting.Wait()
		closeSolver(t, s)
	})
}

func TestOrderCancelledBeforeItsRecordsAreSent(t *testing.T) {
	client := &fakeClient{}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		other := begin(s) // on its way, so that the records wait for it
		defer other.Remove()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		sol := begin(s)
		if err := sol.submit(ctx, keys(1, "x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("submit: %v", err)
		}
		sol.Remove()
		sol.Remove() // may be called again
		time.Sleep(time.Minute)
	})
	if calls := client.Calls(""); len(calls) != 0 {
		t.Errorf("its records were sent: %+v", calls)
	}
}

func TestOrderCancelledWhileItsRecordsAreSent(t *testing.T) {
	client := &fakeClient{Delay: time.Second}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		sol := begin(s)
		if err := sol.submit(ctx, keys(1, "x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("submit: %v", err)
		}
		sol.Remove()
		if calls := client.Calls("append"); len(calls) != 0 {
			t.Fatalf("it was sent before it was cancelled: %+v", calls)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(client.Calls("append")) != 1 || len(client.Calls("delete")) != 1 || client.Left() != 0 {
			t.Errorf("calls %+v, want one of each", client.Calls(""))
		}
	})
}

func TestSharedRecordGoesWithTheLastOrder(t *testing.T) {
	client := &fakeClient{}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		first, second := begin(s), begin(s)
		mustSubmit(t, first, key("a", "shared"), key("b", "own"))
		mustSubmit(t, second, key("a", "shared"))
		first.Remove()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := client.Left(); n != 1 {
			t.Errorf("%d records are left after the first order, want the shared one", n)
		}
		second.Remove()
		synctest.Wait()
		if n := client.Left(); n != 0 {
			t.Errorf("%d records are left after both orders", n)
		}
	})
}

// An addition that is refused doesn't take away what an earlier one put there.
func TestRefusedAdditionOfRecordInUse(t *testing.T) {
	var refuse atomic.Bool
	client := &fakeClient{Before: func(c call) (bool, error) {
		if c.Method == "append" && refuse.Load() {
			return false, errors.New("refused")
		}
		return true, nil
	}}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		first, second := begin(s), begin(s)
		mustSubmit(t, first, key("a", "x"))
		refuse.Store(true)
		if err := second.submit(t.Context(), []zones.TXT{key("a", "x")}); err == nil {
			t.Error("the refusal isn't told")
		}
		second.Remove()
		time.Sleep(time.Minute)
		if n := client.Left(); n != 1 {
			t.Error("the record of the first order was removed")
		}
		first.Remove()
	})
}

func TestRecordWantedAgainBeforeItLeaves(t *testing.T) {
	client := &fakeClient{}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		first, second := begin(s), begin(s)
		mustSubmit(t, first, key("a", "x"))
		first.Remove() // the removal waits for those of the second order
		mustSubmit(t, second, key("a", "x"))
		time.Sleep(time.Minute)
		if n := client.Left(); n != 1 {
			t.Error("the record of the second order was removed")
		}
		second.Remove()
	})
}

// A record that is wanted again while its removal is on its way is there when the second order is told so, and a
// removal that is tried again meanwhile doesn't take it away.
func TestRecordWantedAgainWhileItLeaves(t *testing.T) {
	var removable atomic.Bool
	client := &fakeClient{Delay: time.Second, Before: func(c call) (bool, error) {
		if c.Method == "delete" && !removable.Load() {
			return false, errors.New("not now")
		}
		return true, nil
	}}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		first := begin(s)
		mustSubmit(t, first, key("a", "x"))
		first.Remove()
		time.Sleep(2 * time.Minute) // the removal has failed and is due again
		removable.Store(true)
		if err := s.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait() // the second removal is on its way
		if err := s.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		second := begin(s)
		mustSubmit(t, second, key("a", "x"))
		time.Sleep(time.Hour)
		if n := client.Left(); n != 1 {
			t.Error("the record of the second order was removed")
		}
		second.Remove()
	})
}

func TestOneRefusedRecordFailsAlone(t *testing.T) {
	client := &fakeClient{Before: func(c call) (bool, error) {
		if slices.Contains(c.Records, withoutProvider(key("h7", "x"))) {
			return false, errors.New("refused by policy")
		}
		return true, nil
	}}
	inBubble(t, client, func(t *testing.T, s *Solver) {
		var group sync.WaitGroup
		for i, sol := range beginAll(s, 50) {
			group.Go(func() {
				defer sol.Remove()
				if err := sol.submit(t.Context(), keys(50, "x")[i:i+1]); (err != nil) != (i == 7) {
					t.Errorf("record %d: %v", i, err)
				}
			})
		}
		group.Wait()
	})
	last := client.Calls("delete")
	if n := len(last); n != 2 {
		t.Errorf("%d removals, want one of the refused record and one of all others: %+v", n, last)
	}
}

func TestCloseTellsWhatStays(t *testing.T) {
	client := &fakeClient{Before: func(c call) (bool, error) {
		if c.Method == "delete" {
			return false, later{errors.New("the primary is down")}
		}
		return true, nil
	}}
	files := openFiles(t, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		s := newSolver(files, fake(client))
		sol := begin(s)
		mustSubmit(t, sol, keys(2, "x")...)
		sol.Remove()
		err := s.Close(t.Context())
		const want = "2 TXT records are still published; they are in the journal, and the next start removes them: the primary is down"
		if err == nil || err.Error() != want {
			t.Errorf("Close: %v, want %s", err, want)
		}
		if err := begin(s).submit(t.Context(), keys(1, "y")); !errors.Is(err, errClosed) {
			t.Errorf("submit after Close: %v", err)
		}
		if err := s.Close(t.Context()); err == nil {
			t.Error("a second Close forgets what the first said")
		}
	})
	if n := len(client.Calls("delete")); n != 10 {
		t.Errorf("%d attempts to remove, want three of both and one of each, and as many by Close", n)
	}
}

// A provider that hangs until its context ends doesn't keep Close longer than it may take.
func TestCloseBreaksOff(t *testing.T) {
	files := openFiles(t, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		s := newSolver(files, fake(&hanging{}))
		sol := begin(s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sol.submit(ctx, keys(1, "x")); err == nil {
			t.Error("the record was published")
		}
		sol.Remove()
		start := time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("Close took %s", took)
		}
	})
	if n := len(journalObjects(t, files)); n != 1 {
		t.Errorf("%d entries in the journal, want that of the record whose fate isn't known", n)
	}
}
