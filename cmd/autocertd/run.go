package main

import (
	"autocertd/internal/state"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"autocertd/internal/config"
	"autocertd/internal/lifecycle"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// daemonLock is held by the one daemon of a state directory.
const daemonLock = "daemon"

// daemonLockWait is longer than status holds the lock to see whether a daemon does.
const daemonLockWait = 2 * time.Second

// reportDelay is how long changes gather before systemd and status are told.
const reportDelay = time.Second

func runCommand(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: "Run the daemon: get what is missing, renew what is due, look again at every tick.\n" +
			"It reads the configuration again when a file changes and on SIGHUP; one with mistakes changes nothing.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd.Context(), opts.config) },
	}
}

// daemonProcess is the daemon while it runs.
type daemonProcess struct {
	program   *program
	store     *files.Store
	path      string
	scheduler *scheduler.Scheduler
	logger    *slog.Logger
	health    health
	lastTick  time.Time // by the wall clock; only tick uses it
	handwork  string    // as it was last read; only tick uses it, and run before the first tick
	hangup    chan os.Signal
	sources   *config.Sources // the files as they were last read, taken over or not; only the loop of run uses it
	refused   bool            // they can't be taken for a configuration; likewise
	ticked    chan struct{}   // the files should be looked at
	changed   chan struct{}   // a certificate was looked at, or a step was taken
	doings    *doings
	lockFile  fs.FileInfo // of the daemon's lock; only tick uses it
	releases  []func()    // of that lock, of each file that it had; only tick uses it, and the end
	stolen    chan error  // another daemon has the lock
	mu        sync.Mutex  // held while settings change or are handed to the scheduler
	unlisted  bool        // status can't see what was taken over, see saveLists; under mu
}

func runDaemon(ctx context.Context, path string) (err error) {
	hangup := make(chan os.Signal, 1) // before anything that takes time: a signal that nobody waits for ends the process
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	s, err := openSession(path, "autocertd run", writes)
	if err != nil {
		return err
	}
	d, err := newDaemon(s, hangup)
	if err != nil {
		return err
	}
	locking, cancel := context.WithTimeout(ctx, daemonLockWait)
	release, err := d.store.Lock(locking, daemonLock)
	cancel()
	var held *store.HeldError
	if errors.As(err, &held) {
		return anotherDaemon(s.stateDir, held)
	}
	if err != nil {
		return err
	}
	d.releases, d.lockFile = []func(){release}, lockFile(d.store)
	defer func() {
		for _, release := range d.releases {
			release()
		}
	}()
	defer func() { err = errors.Join(err, d.program.close()) }()
	return d.run(ctx)
}

// newDaemon puts a daemon together that doesn't run yet.
func newDaemon(s *session, hangup chan os.Signal) (*daemonProcess, error) {
	live := newLiveHandler(handlerFor(s.settings.Log))
	d := &daemonProcess{path: s.path, store: s.store, logger: slog.New(live), health: health{PID: os.Getpid(), Started: time.Now().UTC()},
		hangup: hangup, sources: s.settings.sources, ticked: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		stolen: make(chan error, 1)}
	d.doings = newDoings(func() { nudge(d.changed) })
	var err error
	d.program, err = s.program(programConfig{logger: d.logger, live: live, progress: func(name string, step issuer.Step) {
		d.doings.step(name, step)
		if step.Name == issuer.Published || step.Name == lifecycle.Deploying { // what is left is to wait for others: DNS and the CA, or services
			d.scheduler.Yield(name)
		}
	}, wake: func(match func(name string) bool) { d.scheduler.WakeWhere(match) }})
	if err != nil {
		return nil, err
	}
	d.scheduler = scheduler.New(scheduler.Config{Reconciler: d, Schedule: s.settings.schedule, Workers: d.program.current.Load().workers(), Most: mostAtATime(),
		Lane: d.program.manager.Lane, Urgency: d.program.manager.Urgency, OnTick: d.tick, Logger: d.logger})
	return d, nil
}

func (d *daemonProcess) settings() *settings { return d.program.current.Load().settings }

// run starts the parts and waits for them.
func (d *daemonProcess) run(ctx context.Context) error {
	d.removeStale()
	warn(d.logger, d.settings().Warnings)
	d.newHandwork(ctx) // all that was left until now is in the states
	if err := d.schedule(ctx); err != nil {
		return err
	}
	watch, err := watchFiles(d.sources)
	if err != nil {
		return err
	}
	defer watch.Close()

	d.logger.Info("started", "version", version(), "certificates", len(d.settings().Certificates), "config", d.path)
	d.report(ctx)
	notifySystemd("READY=1")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.scheduler.Run(ctx) })
	group.Go(func() error { return d.reportChanges(ctx) })
	group.Go(func() error { return d.tidy(ctx) })
	group.Go(func() error { return d.watchDisk(ctx) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.stolen:
			return err
		}
	})
	group.Go(func() error { return keepWatchdog(ctx, func() { d.scheduler.Stats() }) })
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				notifySystemd("STOPPING=1")
				d.logger.Info("stopping")
				return nil
			case <-d.hangup:
				d.reload(ctx, "SIGHUP")
			case <-watch.Changed:
				d.compare(ctx)
			case <-d.ticked:
				if !d.compare(ctx) {
					continue // and the links lead where they led
				}
			}
			watch.Follow(d.sources)
		}
	})
	return group.Wait()
}

// tidy removes what processes that died have left: orders that are over, and temporaries, which are too fresh at first after a
// kill right before this start.
func (d *daemonProcess) tidy(ctx context.Context) error {
	if err := state.DropServed(ctx, d.store); err != nil && ctx.Err() == nil {
		d.logger.Warn("orders that are over can't be dropped", "err", err)
	}
	for wait := files.StaleAge + time.Minute; ; wait = 24 * time.Hour {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			d.removeStale()
		}
	}
}

func (d *daemonProcess) removeStale() {
	if err := d.store.RemoveStale(); err != nil {
		d.logger.Warn("old temporary files can't be removed", "err", err)
	}
}

// Reconcile implements scheduler.Reconciler.
func (d *daemonProcess) Reconcile(ctx context.Context, name string) (time.Time, error) {
	next, err := d.program.manager.Reconcile(ctx, name)
	d.doings.end(name)
	nudge(d.changed)
	return next, err
}

// nudge sends to a channel that holds one value, unless it has one already.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reportChanges tells how things are soon after a certificate was looked at, many of them at once.
func (d *daemonProcess) reportChanges(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reportDelay):
			d.report(ctx)
		}
	}
}

// schedule hands the certificates and their due times to the scheduler. mu is held, or nothing else runs yet.
func (d *daemonProcess) schedule(ctx context.Context) error {
	items, err := d.program.manager.Items(ctx)
	if err != nil {
		return d.program.session.hint(err)
	}
	d.saveLists(ctx)
	d.scheduler.SetSchedule(d.settings().schedule)
	d.scheduler.SetWorkers(d.program.current.Load().workers())
	d.scheduler.Set(items)
	d.scheduler.Wake()
	return nil
}

// saveLists saves what status shows of the configuration that was taken over. What can't be saved is tried again when the disk
// has room: an old list would say that a file wasn't taken over. mu is held, or nothing else runs yet.
func (d *daemonProcess) saveLists(ctx context.Context) {
	told := d.unlisted
	d.unlisted = false
	for _, list := range []struct {
		err    error
		effect string
	}{
		{saveRoster(ctx, d.store, d.settings().Certificates), "the list of certificates can't be saved; status can't show it while the configuration has mistakes"},
		{saveSources(ctx, d.store, d.settings().sources), "the list of the configuration's files can't be saved; status can't show which ones changed since"},
	} {
		if list.err == nil {
			continue
		}
		if d.unlisted = true; !told {
			d.logger.Error(list.effect, "err", list.err)
		}
	}
}

// compare has the configuration read again when its files aren't what was last read, and reports whether it was. One that
// was refused is tried in any case, quietly: not every cure is in a file.
func (d *daemonProcess) compare(ctx context.Context) bool {
	changed := d.sources.Changed()
	switch {
	case len(changed) > 0:
		d.reload(ctx, some(changed, "file"))
	case d.refused:
		if _, err := read(d.path); err != nil {
			return false // it was told
		}
		d.reload(ctx, "it can be read now")
	default:
		return false
	}
	return true
}

// reload reads the configuration again: built first, swapped then. A bad one changes nothing and is told.
func (d *daemonProcess) reload(ctx context.Context, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	notifySystemd(reloading())
	defer notifySystemd("READY=1")
	s, err := read(d.path)
	d.sources, d.refused = s.sources, err != nil
	before := d.settings()
	if err == nil {
		err = d.program.use(s)
	}
	if err == nil {
		err = d.schedule(ctx)
	}
	d.health.configured(err)
	if err != nil {
		for _, problem := range problems(err) {
			d.logger.Error("configuration not taken over; the one before stays", "why", why, "err", problem)
		}
	} else {
		warn(d.logger, s.Warnings)
		d.logger.Info("configuration taken over", append([]any{"why", why, "certificates", len(s.Certificates)}, differences(before, s)...)...)
	}
	d.program.closeRetired()
	d.report(ctx)
}

// problems takes the mistakes of a configuration apart, a line each.
func problems(err error) []error {
	var list config.Problems
	if !errors.As(err, &list) {
		return []error{err}
	}
	lines := make([]error, len(list))
	for i, p := range list {
		lines[i] = p
	}
	return lines
}

func warn(logger *slog.Logger, warnings config.Problems) {
	for _, w := range warnings {
		logger.Warn("configuration", "warning", w.Error())
	}
}

// tick is what happens at each tick beside due certificates.
func (d *daemonProcess) tick(ctx context.Context) {
	now := time.Now().Round(0) // the wall clock's time alone
	back := now.Before(d.lastTick)
	if back {
		d.logger.Warn("the clock went back; looking at every certificate again", "from", d.lastTick.UTC().Format(time.RFC3339))
	}
	d.lastTick = now
	if err := d.keepLock(ctx); err != nil {
		select {
		case d.stolen <- err:
		default:
		}
		return
	}
	again := d.newHandwork(ctx) || back
	d.mu.Lock()
	d.program.closeRetired()
	var err error
	if again {
		err = d.schedule(ctx)
	}
	d.mu.Unlock()
	if again {
		if err != nil && ctx.Err() == nil {
			d.logger.Error("certificates can't be scheduled", "err", err)
		}
	}
	nudge(d.ticked)
	if err := d.program.solver.Sweep(ctx); err != nil && ctx.Err() == nil {
		d.logger.Error("records of earlier processes can't be looked for", "err", err)
	}
	d.report(ctx)
}
