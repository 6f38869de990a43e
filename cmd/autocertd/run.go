package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"autocertd/internal/lifecycle"
	"autocertd/internal/state"
	"autocertd/issuer"
	"autocertd/scheduler"
)

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
	scheduler *scheduler.Scheduler
	reporter  *reporter
	reloader  *reloader
	lease     *daemonLease
	lastTick  time.Time // by the wall clock; only tick uses it
	logger    *slog.Logger
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
	if d.lease, err = holdLease(ctx, s, d.logger); err != nil {
		return err
	}
	defer d.lease.release()
	defer func() { err = errors.Join(err, d.program.close()) }()
	return d.run(ctx)
}

// newDaemon puts a daemon together that doesn't run yet.
func newDaemon(s *session, hangup chan os.Signal) (*daemonProcess, error) {
	live := newLiveHandler(handlerFor(s.settings.Log))
	d := &daemonProcess{logger: eventLogger(live)}
	changed := make(chan struct{}, 1)
	doings := newDoings(func() { nudge(changed) })
	progress := func(name string, step issuer.Step) {
		doings.step(name, step)
		if step.Name == issuer.Published || step.Name == lifecycle.Deploying { // what is left is to wait for others: DNS and the CA, or services
			d.scheduler.Yield(name)
		}
	}
	var err error
	d.program, err = s.program(programConfig{
		logger:   d.logger,
		live:     live,
		progress: progress,
		wake:     func(match func(name string) bool) { d.scheduler.WakeWhere(match) },
	})
	if err != nil {
		return nil, err
	}
	d.scheduler = scheduler.New(scheduler.Config{
		Reconciler: d,
		Schedule:   s.settings.schedule,
		Workers:    d.program.current.Load().workers(),
		Most:       mostAtATime(),
		Lane:       d.program.manager.Lane,
		Urgency:    d.program.manager.Urgency,
		OnTick:     d.tick,
		Logger:     d.logger,
	})
	d.reporter = &reporter{
		store:     s.store,
		manager:   d.program.manager,
		scheduler: d.scheduler,
		logger:    d.logger,
		health:    health{now: state.Daemon{PID: os.Getpid(), Started: time.Now().UTC()}},
		doings:    doings,
		changed:   changed,
	}
	d.reloader = &reloader{
		program:   d.program,
		scheduler: d.scheduler,
		reporter:  d.reporter,
		logger:    d.logger,
		hangup:    hangup,
		ticked:    make(chan struct{}, 1),
		sources:   s.settings.sources,
	}
	return d, nil
}

// task is a part of the daemon. It runs until its context ends; one that fails ends the others.
type task struct {
	name string
	run  func(ctx context.Context) error
}

func (d *daemonProcess) tasks(changes <-chan []state.Change) []task {
	disk := &diskWatcher{manager: d.program.manager, scheduler: d.scheduler, reporter: d.reporter, reloader: d.reloader}
	return []task{
		{"scheduler", d.scheduler.Run},
		{"files", d.program.deployer.Run},
		{"configuration", d.reloader.run},
		{"reports", d.reporter.run},
		{"disk", disk.run},
		{"lease", d.lease.run},
		{"changes", func(ctx context.Context) error { return d.follow(ctx, changes) }},
		{"leftovers", d.tidy},
		{"watchdog", func(ctx context.Context) error { return keepWatchdog(ctx, func() { d.scheduler.Stats() }) }},
		{"end", d.sayStopping},
	}
}

// run starts the tasks and waits for them.
func (d *daemonProcess) run(ctx context.Context) error {
	s := d.program.settings()
	warn(d.logger, s.Warnings)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()                                                             // ends the watch
	changes, err := state.Watch(ctx, d.program.session.store, state.LocalNode) // before what is there is read
	if err != nil {
		return err
	}
	if err := d.reloader.begin(ctx); err != nil {
		return err
	}
	d.logger.Info("started", "version", version(), "certificates", len(s.Certificates), "config", d.program.session.path)
	d.reporter.report(ctx)
	notifySystemd("READY=1")
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range d.tasks(changes) {
		group.Go(func() error {
			err := t.run(ctx)
			d.logger.Debug("task ended", "task", t.name, "err", err)
			return err
		})
	}
	return group.Wait()
}

// changesGather is the time for which changes gather: a command releases its lease soon after it has saved.
const changesGather = 200 * time.Millisecond

// follow has the certificates looked at that commands have saved, when these say so.
func (d *daemonProcess) follow(ctx context.Context, changes <-chan []state.Change) error {
	for {
		var list []state.Change
		select {
		case <-ctx.Done():
			return nil
		case list = <-changes:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(changesGather):
		}
		var facts, files []string
		for _, c := range list {
			if c.Here {
				files = append(files, c.Name)
			} else {
				facts = append(facts, c.Name)
			}
		}
		d.program.deployer.Changed(ctx, files)
		if items := d.program.manager.Changed(ctx, facts); len(items) > 0 {
			d.scheduler.Update(items)
			d.scheduler.Wake()
		}
		nudge(d.reporter.changed)
	}
}

// sayStopping tells systemd and the log as soon as the daemon is to stop.
func (d *daemonProcess) sayStopping(ctx context.Context) error {
	<-ctx.Done()
	notifySystemd("STOPPING=1")
	d.logger.Info("stopping")
	return nil
}

// tidy removes what processes that died have left: orders that are over, and temporaries, which are too fresh at first after a
// kill right before this start.
func (d *daemonProcess) tidy(ctx context.Context) error {
	if err := state.DropServed(ctx, d.program.session.store); err != nil && ctx.Err() == nil {
		d.logger.Warn("orders that are over can't be dropped", "err", err)
	}
	for wait := staleAge + time.Minute; ; wait = 24 * time.Hour {
		d.removeStale()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (d *daemonProcess) removeStale() {
	if err := d.program.session.store.RemoveStale(); err != nil {
		d.logger.Warn("old temporary files can't be removed", "err", err)
	}
}

// Reconcile implements scheduler.Reconciler.
func (d *daemonProcess) Reconcile(ctx context.Context, name string) (time.Time, error) {
	next, err := d.program.manager.Reconcile(ctx, name)
	d.reporter.doings.end(name)
	nudge(d.reporter.changed)
	return next, err
}

// nudge sends to a channel that holds one value, unless it has one already.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
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
	d.reloader.closeRetired()
	if back {
		if err := d.reloader.schedule(ctx); err != nil && ctx.Err() == nil {
			d.logger.Error("certificates can't be scheduled", "err", err)
		}
	}
	nudge(d.reloader.ticked)
	if err := d.program.solver.Sweep(ctx); err != nil && ctx.Err() == nil {
		d.logger.Error("records of earlier processes can't be looked for", "err", err)
	}
	d.reporter.report(ctx)
}
