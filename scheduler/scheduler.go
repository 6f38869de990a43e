// Package scheduler decides when: it owns the ticks, the due times, the renewal rule, the back-off, the order
// by urgency, and how many names are worked on at a time, so that a name that hangs holds up no other.
// The work on a name, and all knowledge of its certificate, is left to the Reconciler.
package scheduler

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A Reconciler does what is due for one name.
type Reconciler interface {
	// Reconcile brings one name from its actual to its desired state, and returns when to look again. It
	// retries nothing itself: after a failure, next is when the Scheduler shall try again (see RetryAt). It has
	// logged its error before it returns it; the Scheduler doesn't.
	//
	// A next in the past is due at the next tick, one less than ten minutes ahead to the second, any other at the
	// first tick after it. A zero next, like a panic, is an oversight: the Scheduler
	// waits as Backoff says for so many of them in a row. A name is never reconciled twice at a time. When ctx
	// ends, Reconcile returns soon, and its results no longer matter.
	Reconcile(ctx context.Context, name string) (next time.Time, err error)
}

// Config says what a Scheduler runs, and when. Only the Reconciler is required.
type Config struct {
	Reconciler Reconciler

	// Schedule adds ticks to those of each minute, at which due names are looked for; nil adds none.
	Schedule Schedule

	// Workers is how many names are worked on at a time; zero is 16. Names that wait for a server aren't counted: a name
	// gives up its place when Yield is called for it, and after Patience in any case.
	Workers int

	// Patience is how long a name may hold its place; zero is a second. It's so short that a name that hangs doesn't
	// hold up the others.
	Patience time.Duration

	// Most is how many names run at a time, those included that gave up their places; zero is 2048. It bounds memory
	// and open files.
	Most int

	// Lane names the lane of a name: names that fail or hang together, such as those of one CA and zone, share one; nil
	// is one lane for all. However many names of a lane hang, some of Workers and of Most is left for each other lane.
	// It's called for every due name at every tick, and there should be some hundred lanes at most.
	Lane func(name string) string

	// Urgency orders the due names, the lowest first (see Left); nil orders them by due time. It's called for
	// every due name at every tick, so it must be quick.
	Urgency func(name string, now time.Time) float64

	// OnTick is called at every tick, the one at the start and those of Wake included, unless it still runs. It delays
	// no due name. It may be nil.
	OnTick func(ctx context.Context)

	// Logger gets panics, and nothing else; nil is slog.Default().
	Logger *slog.Logger
}

// A Scheduler reconciles names when they're due, the most urgent first. Its methods may be called at any time
// and by several goroutines, Run once.
type Scheduler struct {
	config  Config
	ticking atomic.Bool // OnTick runs
	woken   chan struct{}
	changed chan struct{} // there is another schedule
	tasks   sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	schedule Schedule
	next     time.Time // the next tick
	queue    *queue
	ctx      context.Context // of Run; nil before it
}

const defaultWorkers = 16

// New returns a Scheduler without names.
func New(config Config) *Scheduler {
	if config.Workers <= 0 {
		config.Workers = defaultWorkers
	}
	if config.Patience <= 0 {
		config.Patience = time.Second
	}
	if config.Most <= 0 {
		config.Most = 2048
	}
	if config.Lane == nil {
		config.Lane = func(string) string { return "" }
	}
	if config.Urgency == nil {
		config.Urgency = func(string, time.Time) float64 { return 0 }
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	s := &Scheduler{
		config:  config,
		woken:   make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		queue:   newQueue(config.Workers, config.Most),
	}
	s.SetSchedule(config.Schedule)
	return s
}

// Set replaces the list of names. The given due times hold; of a name given twice, the last one does. A name that runs gets
// its due time when it has finished, or the one that Reconcile returns if that is earlier. A name that is gone
// finishes if it runs, and is forgotten. Names that are due wait for the next tick; see Wake.
func (s *Scheduler) Set(items []Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := wallNow()
	s.queue.set(items, now)
	for _, item := range items {
		s.wakeSoon(item.Due, now)
	}
}

// Update replaces the due times of names on the list. A name that runs gets its due time as from Set; one that is ready
// stays so.
func (s *Scheduler) Update(items []Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.update(items)
}

// SetSchedule replaces Config.Schedule.
func (s *Scheduler) SetSchedule(schedule Schedule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule, s.next = schedule, time.Time{}
	poke(s.changed)
}

// SetWorkers replaces Config.Workers; zero is 16. Names that have a place keep it.
func (s *Scheduler) SetWorkers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.places = cmp.Or(max(n, 0), defaultWorkers)
	s.Wake()
}

// Wake makes the Scheduler look now and not at the next tick.
func (s *Scheduler) Wake() { poke(s.woken) }

// WakeWhere makes the matching names due, and looks now. A running name is looked at
// again when it has finished. match is called under the Scheduler's lock, so it must not call the Scheduler.
func (s *Scheduler) WakeWhere(match func(name string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.makeDue(match, wallNow())
	s.Wake()
}

// Yield gives the place of a name that waits for a server from now on to another name. The first goes on without a place
// until its run ends.
func (s *Scheduler) Yield(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.queue.running[name]; e != nil && s.queue.yield(e) {
		s.startLocked()
	}
}

// Stats is a Scheduler seen at one moment.
type Stats struct {
	Items   int       // names on the list
	Running int       // names being reconciled
	Waiting int       // those of them that gave up their places
	Due     int       // names that a tick found due and that wait for a place
	Next    time.Time // the next tick; zero before Run
}

// Stats counts.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Items:   len(s.queue.items),
		Running: len(s.queue.running),
		Waiting: len(s.queue.running) - s.queue.placed,
		Due:     s.queue.ready,
		Next:    s.next,
	}
}

// Run looks for due names at once and then at every tick. When ctx ends it starts nothing more, waits for what
// runs, which has the same ctx, and returns nil.
func (s *Scheduler) Run(ctx context.Context) error {
	defer s.tasks.Wait()
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	for ctx.Err() == nil {
		s.tick(ctx, wallNow())
		s.sleep(ctx)
	}
	return nil
}

func (s *Scheduler) tick(ctx context.Context, now time.Time) {
	s.startOnTick(ctx)
	s.queueDue(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked()
}

func (s *Scheduler) startOnTick(ctx context.Context) {
	if s.config.OnTick == nil || !s.ticking.CompareAndSwap(false, true) {
		return
	}
	s.tasks.Go(func() {
		defer s.ticking.Store(false)
		defer s.recoverPanic(slog.String("task", "tick"))
		s.config.OnTick(ctx)
	})
}

// queueDue makes the due names ready, and ranks all ready names again. Lane and Urgency are called without the lock,
// for they may need locks of their own.
func (s *Scheduler) queueDue(now time.Time) {
	s.mu.Lock()
	all := append(s.queue.takeDue(now), s.queue.readyEntries()...)
	s.mu.Unlock()
	if len(all) == 0 {
		return
	}

	lanes, ranks := make([]string, len(all)), make([]float64, len(all))
	for i, e := range all {
		lanes[i], ranks[i] = s.config.Lane(e.name), s.config.Urgency(e.name, now)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	// Entries that a worker has taken meanwhile aren't ready any more.
	s.queue.enqueue(all, lanes, ranks)
}

// startLocked starts the ready names that may run.
func (s *Scheduler) startLocked() {
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	for e := s.queue.start(); e != nil; e = s.queue.start() {
		s.tasks.Go(func() { s.work(s.ctx, e) })
	}
}

// work reconciles one name. Its place goes to the next one when it has finished, or has kept it for too long.
func (s *Scheduler) work(ctx context.Context, e *entry) {
	patience := time.AfterFunc(s.config.Patience, func() { s.Yield(e.name) })
	next := s.reconcile(ctx, e.name)
	patience.Stop() // one that fires just now makes the next run of the name yield early, which does no harm
	s.finish(e, next)
}

// reconcile returns the zero time after a panic.
func (s *Scheduler) reconcile(ctx context.Context, name string) (next time.Time) {
	defer s.recoverPanic(slog.String("certificate", name))
	next, _ = s.config.Reconciler.Reconcile(ctx, name)
	return next
}

func (s *Scheduler) finish(e *entry, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := wallNow()
	if next.IsZero() {
		e.lost++
		next = now.Add(Backoff(e.lost, rand.Float64()))
	} else {
		e.lost = 0
		s.wakeSoon(next, now)
	}
	s.queue.finish(e, next)
	s.startLocked()
}

// soon is how near a due time is that isn't left to the ticks. They may be a minute late, which is too late for a
// certificate that lives for minutes.
const soon = 10 * time.Minute

// wakeSoon makes a tick at a due time that is near, in whole seconds so that names that are due together go together.
func (s *Scheduler) wakeSoon(due, now time.Time) {
	if wait := due.Sub(now); wait > 0 && wait < soon {
		time.AfterFunc(due.Add(time.Second-1).Truncate(time.Second).Sub(now), s.Wake)
	}
}

// recoverPanic is deferred around foreign code, so that one name's panic is its own problem.
func (s *Scheduler) recoverPanic(where slog.Attr) {
	if v := recover(); v != nil {
		s.config.Logger.Error("panic", where, "panic", v, "stack", string(debug.Stack()))
	}
}

// slice is the longest sleep. Timers don't count while the machine is suspended and don't follow the wall clock
// when it's set, so the sleeper looks at the clock now and then.
const slice = 15 * time.Second

// sleep waits for the next tick, for Wake, or for the end of ctx.
func (s *Scheduler) sleep(ctx context.Context) {
	now := wallNow()
	next := s.plan(time.Time{}, now)
	for now.Before(next) {
		select {
		case <-ctx.Done():
			return
		case <-s.woken:
			return
		case <-s.changed:
			next = time.Time{}
		case <-time.After(min(next.Sub(now), slice)):
		}
		now = wallNow()
		next = s.plan(next, now)
	}
}

// plan notes the next tick, for Stats too.
func (s *Scheduler) plan(planned, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = nextTick(s.schedule, planned, now)
	return s.next
}

// nextTick returns the planned tick, unless there is an earlier one: that's so when nothing is planned yet, and when the
// wall clock went back.
func nextTick(schedule Schedule, planned, now time.Time) time.Time {
	next := now.Truncate(time.Minute).Add(time.Minute)
	if schedule != nil {
		if t := schedule.Next(now); t.After(now) && t.Before(next) {
			next = t
		}
	}
	if planned.IsZero() || next.Before(planned) {
		return next
	}
	return planned
}

// wallNow is the wall clock, without the monotonic reading that would make comparisons blind to its jumps.
func wallNow() time.Time { return time.Now().Round(0) }

// poke leaves a note in a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
