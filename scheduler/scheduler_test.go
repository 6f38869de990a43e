package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// journal is a Reconciler that notes when it starts what. Its fields say what it does; it refuses to work on a
// name twice at a time.
type journal struct {
	takes time.Duration
	next  func(name string) time.Time // nil is in an hour

	mu      sync.Mutex
	began   time.Time
	started []string // "NAME at SECONDS"
	running map[string]bool
	most    int // names at a time
	overlap bool
}

func newJournal() *journal {
	return &journal{began: time.Now(), running: map[string]bool{}}
}

func (j *journal) Reconcile(ctx context.Context, name string) (time.Time, error) {
	j.mu.Lock()
	j.started = append(j.started, fmt.Sprintf("%s at %.0f", name, time.Since(j.began).Seconds()))
	j.overlap = j.overlap || j.running[name]
	j.running[name] = true
	j.most = max(j.most, len(j.running))
	j.mu.Unlock()

	select {
	case <-ctx.Done():
	case <-time.After(j.takes):
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.running, name)
	if j.next == nil {
		return time.Now().Add(time.Hour), nil
	}
	return j.next(name), errors.New("logged by the one who returns it")
}

func (j *journal) check(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.started, want) {
		t.Errorf("started %q, want %q", j.started, want)
	}
	if j.overlap {
		t.Error("a name ran twice at a time")
	}
}

// run starts a Scheduler inside a bubble and returns a function that stops it.
func run(t *testing.T, s *Scheduler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
}

func names(text string) (items []Item) {
	for name := range strings.FieldsSeq(text) {
		items = append(items, Item{Name: name})
	}
	return items
}

func TestRunLooksAtOnceAndAtEveryTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		s := New(Config{Reconciler: j})
		s.Set([]Item{{"now", time.Time{}}, {"soon", j.began.Add(90*time.Second + 1)}, {"as soon", j.began.Add(91 * time.Second)},
			{"in a while", j.began.Add(10*time.Minute + time.Second)}, {"later", j.began.Add(day)}})
		stop := run(t, s)
		time.Sleep(61 * time.Minute)
		stop()
		slices.Sort(j.started[1:3]) // which are looked at together
		j.check(t, "now at 0", "as soon at 91", "soon at 91", "in a while at 660", "now at 3600")
	})
}

func TestMostUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 10 * time.Second
		s := New(Config{Reconciler: j, Workers: 1, Patience: day, Urgency: func(name string, now time.Time) float64 {
			return float64(strings.Index("first second third fourth", name))
		}})
		s.Set(names("third second fourth"))
		stop := run(t, s)
		synctest.Wait() // "second" runs
		s.Set(names("third fourth first"))
		s.Wake()
		time.Sleep(45 * time.Second)
		stop()
		// No tick was needed for the rest: a free worker takes the next one at once.
		j.check(t, "second at 0", "first at 10", "third at 20", "fourth at 30")
	})
}

func TestUrgencyMayAskTheScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		var s *Scheduler
		s = New(Config{Reconciler: j, Urgency: func(string, time.Time) float64 { return float64(s.Stats().Items) }})
		s.Set(names("a"))
		stop := run(t, s)
		synctest.Wait()
		stop()
		j.check(t, "a at 0")
	})
}

func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 10 * time.Minute // over many ticks
		j.next = func(string) time.Time { return j.began }
		s := New(Config{Reconciler: j, Workers: 3, Patience: day})
		s.Set(names("a b c d e f g"))
		stop := run(t, s)
		synctest.Wait()
		if got, want := s.Stats(), (Stats{Items: 7, Running: 3, Due: 4, Next: j.began.Add(time.Minute).Round(0)}); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
		time.Sleep(100 * time.Minute)
		stop()
		if j.most != 3 || j.overlap {
			t.Errorf("%d names at a time, the same one twice: %t", j.most, j.overlap)
		}
		if got := s.Stats(); got.Running != 0 || got.Items != 7 {
			t.Errorf("after the end Stats = %+v", got)
		}
	})
}

// hang is a Reconciler for names that begin with "hang" and never come to an end by themselves. Others are done at once.
func hang(j *journal) Reconciler {
	return reconcilerFunc(func(ctx context.Context, name string) (time.Time, error) {
		if strings.HasPrefix(name, "hang") {
			<-ctx.Done()
			return time.Time{}, ctx.Err()
		}
		return j.Reconcile(ctx, name)
	})
}

// many returns n items whose names begin alike.
func many(prefix string, n int) (items []Item) {
	for i := range n {
		items = append(items, Item{Name: fmt.Sprintf("%s%05d", prefix, i)})
	}
	return items
}

// TestWhatHangsHoldsUpNobody has names that never come to an end, more than there are places, and in the worst rows more
// than may run at all. The healthy one is the least urgent of all.
func TestWhatHangsHoldsUpNobody(t *testing.T) {
	tests := []struct {
		name    string
		hanging []Item
		lane    func(name string) string
		told    bool // each says at once that it waits
		want    string
	}{
		{"in the same lane, and nobody says so", many("hang", 150), nil, false, "well at 3"},
		{"in the same lane, and each says so", many("hang", 150), nil, true, "well at 0"},
		{"another lane", many("hang", 150), byFirstLetter, false, "well at 0"},
		{"another lane, 50,000 names", many("hang", 50_000), byFirstLetter, false, "well at 0"},
		{"ten other lanes, 40,000 names", many("hang", 40_000), func(name string) string { return name[:1] + name[len(name)-1:] }, true, "well at 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newJournal()
				var s *Scheduler
				inner := hang(j)
				s = New(Config{Workers: 64, Lane: tt.lane, Reconciler: reconcilerFunc(func(ctx context.Context, name string) (time.Time, error) {
					if tt.told {
						s.Yield(name)
					}
					return inner.Reconcile(ctx, name)
				}), Urgency: func(name string, _ time.Time) float64 {
					if name == "well" {
						return 1
					}
					return 0
				}})
				s.Set(append(tt.hanging, Item{Name: "well"}))
				stop := run(t, s)
				time.Sleep(10 * time.Second)
				if got := s.Stats(); got.Running > 2048 {
					t.Errorf("%d run at a time", got.Running)
				}
				stop()
				j.check(t, tt.want)
			})
		})
	}
}

func byFirstLetter(name string) string { return name[:1] }

// TestAYieldedPlaceIsNotTakenTwice lets a name yield by itself, by its patience and by its end.
func TestAYieldedPlaceIsNotTakenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 10 * time.Second
		var s *Scheduler
		s = New(Config{Workers: 1, Reconciler: reconcilerFunc(func(ctx context.Context, name string) (time.Time, error) {
			time.Sleep(500 * time.Millisecond)
			s.Yield(name)
			s.Yield(name)
			s.Yield("nobody")
			return j.Reconcile(ctx, name)
		})})
		s.Set(names("a b c"))
		stop := run(t, s)
		time.Sleep(700 * time.Millisecond)
		if got := s.Stats(); got.Running != 2 || got.Waiting != 1 || got.Due != 1 {
			t.Errorf("Stats = %+v; want one that waits, one that works, and one that is due", got)
		}
		time.Sleep(time.Minute)
		if got := s.Stats(); got.Running != 0 || got.Waiting != 0 {
			t.Errorf("at the end Stats = %+v", got)
		}
		stop()
		if len(j.started) != 3 {
			t.Errorf("started %q", j.started)
		}
	})
}

func TestSetWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 10 * time.Minute
		s := New(Config{Reconciler: j, Workers: 1, Patience: day})
		s.Set(names("a b c d"))
		stop := run(t, s)
		synctest.Wait()
		s.SetWorkers(3)
		synctest.Wait()
		if got := s.Stats(); got.Running != 3 {
			t.Errorf("%d run, want 3", got.Running)
		}
		s.SetWorkers(1)
		time.Sleep(10*time.Minute + time.Second)
		if got := s.Stats(); got.Running != 1 {
			t.Errorf("%d run, want the last one", got.Running)
		}
		stop()
	})
}

func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 10 * time.Second
		s := New(Config{Reconciler: j})
		late := j.began.Add(day)
		s.Set([]Item{{"sooner", late}, {"stays", late}, {"later", j.began.Add(3 * time.Minute)}, {"runs", time.Time{}}})
		stop := run(t, s)
		time.Sleep(5 * time.Second)
		s.Update([]Item{{"sooner", j.began.Add(2 * time.Minute)}, {"later", late}, {"runs", j.began.Add(time.Minute)}, {"unknown", time.Time{}}})
		time.Sleep(10 * time.Minute)
		stop()
		j.check(t, "runs at 0", "runs at 60", "sooner at 120")
	})
}

func TestWakeWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 10 * time.Second
		s := New(Config{Reconciler: j})
		late := j.began.Add(day)
		s.Set([]Item{{"waits", late}, {"waits too", late}, {"sleeps", late}, {"waits and runs", time.Time{}}})
		stop := run(t, s)
		time.Sleep(5 * time.Second)
		s.WakeWhere(func(name string) bool { return strings.HasPrefix(name, "waits") })
		time.Sleep(2 * time.Minute)
		stop()
		slices.Sort(j.started)
		j.check(t, "waits and runs at 0", "waits and runs at 60", "waits at 5", "waits too at 5")
	})
}

func TestNextInThePastWaitsForTheTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.next = func(name string) time.Time {
			if name == "now" {
				return time.Now()
			}
			return j.began.Add(-time.Hour)
		}
		s := New(Config{Reconciler: j, Urgency: func(name string, _ time.Time) float64 { return float64(name[0]) }, Workers: 1})
		s.Set(names("a now"))
		stop := run(t, s)
		time.Sleep(150 * time.Second)
		stop()
		j.check(t, "a at 0", "now at 0", "a at 60", "now at 60", "a at 120", "now at 120")
	})
}

func TestSetForgetsWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 90 * time.Second
		s := New(Config{Reconciler: j, Workers: 1, Patience: day})
		s.Set(names("a b c"))
		stop := run(t, s)
		synctest.Wait()
		s.Set(names("c d")) // a runs, b is ready
		time.Sleep(time.Second)
		if got, want := s.Stats(), (Stats{Items: 2, Running: 1, Due: 1, Next: j.began.Add(time.Minute).Round(0)}); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
		time.Sleep(10 * time.Minute)
		stop()
		j.check(t, "a at 0", "c at 90", "d at 180")
	})
}

func TestSetWithANameThatComesBackWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.takes = 90 * time.Second
		s := New(Config{Reconciler: j})
		s.Set(names("a"))
		stop := run(t, s)
		synctest.Wait()
		s.Set(nil)
		s.Set(names("a"))
		s.Wake()
		time.Sleep(5 * time.Minute)
		stop()
		j.check(t, "a at 0", "a at 120")
	})
}

func TestWakeAndSetSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		hourly, err := ParseSchedule("@hourly")
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{Reconciler: j, Schedule: hourly})
		stop := run(t, s)
		time.Sleep(10 * time.Second)
		s.Set(names("woken"))
		time.Sleep(10 * time.Second)
		s.Wake()
		synctest.Wait()
		j.check(t, "woken at 20")

		s.Set(names("minutely"))
		time.Sleep(50 * time.Second)
		j.check(t, "woken at 20", "minutely at 60")

		often, err := ParseSchedule("@every 10s")
		if err != nil {
			t.Fatal(err)
		}
		s.Set(names("often"))
		s.SetSchedule(often) // which has a tick before the one at 120
		time.Sleep(20 * time.Second)
		stop()
		j.check(t, "woken at 20", "minutely at 60", "often at 80")
	})
}

// TestADueTimeThatIsNearIsKept has a name that asks for the next look itself, for a certificate that lives for minutes.
func TestADueTimeThatIsNearIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.next = func(string) time.Time { return time.Now().Add(75 * time.Second) }
		s := New(Config{Reconciler: j})
		s.Set(names("a"))
		stop := run(t, s)
		time.Sleep(4 * time.Minute)
		stop()
		j.check(t, "a at 0", "a at 75", "a at 150", "a at 225")
	})
	synctest.Test(t, func(t *testing.T) { // ten minutes are left to the ticks, and less is not
		time.Sleep(30 * time.Second)
		j := newJournal()
		s := New(Config{Reconciler: j})
		s.Set([]Item{{"far", j.began.Add(10 * time.Minute)}, {"near", j.began.Add(10*time.Minute - 10*time.Second)}})
		stop := run(t, s)
		time.Sleep(11 * time.Minute)
		stop()
		j.check(t, "near at 590", "far at 630")
	})
}

func TestOversightsAreLoggedAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		j := newJournal()
		j.next = func(name string) time.Time {
			switch name {
			case "bad":
				panic("no such luck")
			case "vague":
				return time.Time{}
			}
			return time.Now().Add(time.Hour)
		}
		s := New(Config{Reconciler: j, Workers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		s.Set(names("bad good vague"))
		stop := run(t, s)
		time.Sleep(14*time.Minute + 30*time.Second)
		stop()

		// Back-off: about a minute, then about ten, then about a hundred; each until the tick after it.
		count := map[string]int{}
		for _, line := range j.started {
			name, _, _ := strings.Cut(line, " ")
			count[name]++
		}
		if count["bad"] != 3 || count["vague"] != 3 || count["good"] != 1 {
			t.Errorf("started %q; want bad and vague three times, good once", j.started)
		}
		for _, want := range []string{"certificate=bad", `panic="no such luck"`, "scheduler_test.go"} {
			if got := strings.Count(log.String(), want); got < 3 {
				t.Errorf("%q stands in the log %d times, want three:\n%s", want, got, &log)
			}
		}
		if got := strings.Count(log.String(), "\n"); got != 3 {
			t.Errorf("%d lines in the log, want one for each panic", got)
		}
	})
}

func TestABackoffBeginsAnewAfterAGoodRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		j.next = func(string) time.Time {
			if len(j.started)%2 == 0 {
				return time.Now()
			}
			return time.Time{}
		}
		s := New(Config{Reconciler: j})
		s.Set(names("a"))
		stop := run(t, s)
		time.Sleep(30 * time.Minute)
		stop()
		// Each pair takes two minutes, or three.
		if got := len(j.started); got < 18 {
			t.Errorf("%d runs in half an hour, want at least 18: no oversight follows another", got)
		}
	})
}

func TestOnTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		j := newJournal()
		var ticks []time.Duration
		s := New(Config{
			Reconciler: j,
			Logger:     slog.New(slog.NewTextHandler(&log, nil)),
			OnTick: func(context.Context) {
				ticks = append(ticks, time.Since(j.began))
				time.Sleep(90 * time.Second)
				panic("no such luck")
			},
		})
		s.Set(names("a"))
		stop := run(t, s)
		time.Sleep(150 * time.Second)
		stop()
		j.check(t, "a at 0")
		if want := []time.Duration{0, 2 * time.Minute}; !slices.Equal(ticks, want) {
			t.Errorf("OnTick was called after %s, want %s: it mustn't overlap itself", ticks, want)
		}
		if got := strings.Count(log.String(), "task=tick"); got != 2 {
			t.Errorf("%d panics in the log, want two:\n%s", got, &log)
		}
	})
}

func TestRunWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		finished := false
		s := New(Config{Workers: 1, Patience: day, Reconciler: reconcilerFunc(func(ctx context.Context, name string) (time.Time, error) {
			<-ctx.Done()
			time.Sleep(time.Minute) // cleaning up
			finished = true
			return time.Time{}, ctx.Err()
		})})
		s.Set(names("a b"))
		time.AfterFunc(10*time.Second, cancel)
		began := time.Now()
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(began); !finished || took != 70*time.Second {
			t.Errorf("Run returned after %s; want 70 s: the first name's cleaning up, and not the second name", took)
		}
	})
}

func TestRunUnderAnEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		s := New(Config{Reconciler: j})
		s.Set(names("a"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		j.check(t)
	})
}

// The clock of a bubble can't be set back. A schedule whose next tick comes nearer looks the same from inside:
// only who looks again before the planned tick sees it.
func TestSleepLooksAtTheClockNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		s := New(Config{Reconciler: j, Schedule: scheduleFunc(func(now time.Time) time.Time {
			if now.Sub(j.began) < 10*time.Second {
				return now.Add(day)
			}
			return now.Add(5 * time.Second)
		})})
		stop := run(t, s)
		synctest.Wait()
		s.Set(names("a"))
		time.Sleep(slice + 10*time.Second)
		stop()
		j.check(t, "a at 20")
	})
}

func TestNextTick(t *testing.T) {
	hourly, err := ParseSchedule("@hourly")
	if err != nil {
		t.Fatal(err)
	}
	often, err := ParseSchedule("*/2 * * * *")
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := ParseSchedule("@every 10s")
	if err != nil {
		t.Fatal(err)
	}
	over := scheduleFunc(func(time.Time) time.Time { return time.Time{} })
	stuck := scheduleFunc(func(now time.Time) time.Time { return now })
	tests := []struct {
		name               string
		schedule           Schedule
		planned, now, want string
	}{
		{"nothing planned", nil, "", "2026-05-01T12:10:10Z", "2026-05-01T12:11:00Z"},
		{"at a minute, the next one", nil, "", "2026-05-01T12:10:00Z", "2026-05-01T12:11:00Z"},
		{"a schedule that is sparse takes no tick away", hourly, "", "2026-05-01T12:10:10Z", "2026-05-01T12:11:00Z"},
		{"nor does one that is less so", often, "", "2026-05-01T12:10:10Z", "2026-05-01T12:11:00Z"},
		{"one with more ticks adds them", seconds, "", "2026-05-01T12:10:10Z", "2026-05-01T12:10:20Z"},
		{"on the way", hourly, "2026-05-01T12:11:00Z", "2026-05-01T12:10:59Z", "2026-05-01T12:11:00Z"},
		{"arrived: the planned tick holds", hourly, "2026-05-01T13:00:00Z", "2026-05-01T13:00:00Z", "2026-05-01T13:00:00Z"},
		{"the clock went forward past it: it holds, and is due", hourly, "2026-05-01T13:00:00Z", "2026-05-08T09:30:00Z", "2026-05-01T13:00:00Z"},
		{"the clock went back: an earlier tick", hourly, "2026-05-01T13:00:00Z", "2026-04-01T09:30:10Z", "2026-04-01T09:31:00Z"},
		{"a schedule at its end", over, "", "2026-05-01T12:10:10Z", "2026-05-01T12:11:00Z"},
		{"a schedule that stands still", stuck, "", "2026-05-01T12:10:10Z", "2026-05-01T12:11:00Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var planned time.Time
			if tt.planned != "" {
				planned = date(t, tt.planned)
			}
			if got := nextTick(tt.schedule, planned, date(t, tt.now)); !got.Equal(date(t, tt.want)) {
				t.Errorf("nextTick = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestIdleTickAllocatesNothing(t *testing.T) {
	s, now := idle(20_000)
	if got := testing.AllocsPerRun(100, func() { s.tick(t.Context(), now) }); got != 0 {
		t.Errorf("a tick with nothing due allocates %g times", got)
	}
}

func BenchmarkIdleTick(b *testing.B) {
	s, now := idle(20_000)
	b.ReportAllocs()
	for b.Loop() {
		s.tick(b.Context(), now)
	}
}

// BenchmarkBusyTick is a tick that finds everything due, without the work itself.
func BenchmarkBusyTick(b *testing.B) {
	s, now := idle(20_000)
	items := make([]Item, 0, 20_000)
	for name := range s.queue.items {
		items = append(items, Item{Name: name})
	}
	b.ReportAllocs()
	for b.Loop() {
		s.queue = newQueue(s.queue.places, s.queue.most)
		s.Set(items)
		s.queueDue(now)
	}
}

// idle returns a Scheduler with n names of which none is due.
func idle(n int) (s *Scheduler, now time.Time) {
	now = wallNow()
	items := make([]Item, n)
	for i := range items {
		items[i] = Item{fmt.Sprintf("host%d.corp.example.com", i), now.Add(time.Duration(i+1) * time.Minute)}
	}
	s = New(Config{})
	s.Set(items)
	return s, now
}

type reconcilerFunc func(ctx context.Context, name string) (time.Time, error)

func (f reconcilerFunc) Reconcile(ctx context.Context, name string) (time.Time, error) {
	return f(ctx, name)
}

type scheduleFunc func(time.Time) time.Time

func (f scheduleFunc) Next(t time.Time) time.Time { return f(t) }
