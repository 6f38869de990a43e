// Package deploy brings the files of a certificate to the places and in the formats that services want, reloads those
// services and runs commands, again and again until each has succeeded. [Deployer.Run] keeps files as they have to be. What a
// bundle is made of is left to others; no account key is seen here.
package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"autocertd/internal/event"
	"autocertd/internal/state"
)

// Config is what a Deployer needs. The zero value runs real processes, gives each a minute and logs nothing.
type Config struct {
	Store   state.Store   // of bundles and deployments; nil for a Deployer that only applies and checks
	Node    string        // of this host's deployments; "" is state.LocalNode
	Run     Runner        // nil: real processes
	Tell    event.Sink    // of what became of a bundle; nil is fine
	Logger  *slog.Logger  // of single steps; nil: silent
	Timeout time.Duration // for each reload and each run; 0: one minute
	Wait    bool          // for a certificate that another process deploys; else Reconcile leaves it to that process
	Blind   bool          // don't have the kernel report changes of files; they are looked at one by one

	// Working is called for each certificate whose files are in place and whose reloads and runs begin, which may take long;
	// nil is fine.
	Working func(certificate string)
}

// Deployer applies bundles to outputs. It is safe for concurrent use with different certificates; those share reloads.
type Deployer struct {
	config Config
	disk   disk
	units  units

	mu      sync.Mutex
	outputs Outputs
	sites   map[string]*site // of the certificates that are configured, by name
	order   []*site          // the same
	failing map[string]bool  // names of those whose last pass failed
}

// New returns a Deployer.
func New(c Config) *Deployer {
	c.Node = cmp.Or(c.Node, state.LocalNode)
	if c.Run == nil {
		c.Run = processes{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	return &Deployer{config: c, failing: map[string]bool{}}
}

// Result is what a pass did and what it left to do.
type Result struct {
	State    State    // to be stored by the caller, also after an error
	Changed  []string // paths that were rewritten
	Repaired bool     // some of them were right for this bundle before
	Reloaded []string // units that were reloaded
	Stopped  []string // units that would have been, and don't run
	Pending  []string // what still has to be done, one short sentence each
}

// Apply brings every output to b, one kind of steps after another: the files of all outputs, then the reloads, then the runs,
// as far as they aren't done for this bundle and for the files that are there. When all is right already, it only reads. A
// step that fails keeps the later steps of its output waiting only if it is the files, and no other output. The returned error
// joins one [*Error] for each step that failed; Apply is to be called again then. A step is done at least once for each
// change, and more often after a failure or a crash.
func (d *Deployer) Apply(ctx context.Context, b Bundle, outputs []Output, st State) (Result, error) {
	if err := b.check(); err != nil {
		return Result{State: maps.Clone(st)}, err
	}
	p := &pass{
		deployer: d,
		bundle:   b,
		res:      Result{State: State{}},
		taken:    map[string]bool{},
		reloads:  map[string]error{},
	}
	tasks := make([]*task, len(outputs))
	for i, o := range outputs {
		tasks[i] = newTask(o, b, st)
		if done, known := st[tasks[i].id]; known {
			// Still true when the files fail below: a change of them is remembered beside them, by the marker.
			p.res.State[tasks[i].id] = done
		}
	}
	for _, kind := range []Step{StepFiles, StepReload, StepRun} {
		for _, t := range tasks {
			p.do(ctx, t, kind)
		}
	}
	for _, t := range tasks {
		p.finish(t)
	}
	return p.res, errors.Join(p.errs...)
}

// Right reports whether Apply would find nothing to do. It only reads, so that nobody need be kept from the files.
func (d *Deployer) Right(b Bundle, outputs []Output, st State) bool {
	for _, o := range outputs {
		t := newTask(o, b, st)
		place, err := o.place(&d.disk, b)
		if err != nil {
			return false
		}
		right, change, err := place.look()
		if !right || change != "" || err != nil || slices.ContainsFunc(t.steps, func(s todo) bool { return !t.done.Has(s.mark) }) {
			return false
		}
	}
	return true
}

// pass is one call of Apply.
type pass struct {
	deployer *Deployer
	bundle   Bundle
	res      Result
	errs     []error
	taken    map[string]bool  // paths of the outputs so far
	reloads  map[string]error // of the units that were reloaded in this pass
	working  bool             // the caller was told
}

// task is one output in one pass.
type task struct {
	output Output
	id     string     // where it writes
	steps  []todo     // in the order in which they are done, the files first
	done   state.Done // the steps that have succeeded
	place  place
	failed bool
	broken bool // the files aren't as they have to be, so that no later step makes sense
}

// todo is a step for the bundle of a pass.
type todo struct {
	step step
	mark string
}

func newTask(o Output, b Bundle, st State) *task {
	t := &task{output: o, id: o.ID(b.Name)}
	t.done = st[t.id]
	all := t.done.Whole != "" && t.done.Whole == wholeMark(o, b)
	t.done.Steps, t.done.Whole = slices.Clone(t.done.Steps), ""
	add := func(s step) {
		mark := markOf(s, b)
		t.steps = append(t.steps, todo{s, mark})
		if all {
			t.done.Add(mark)
		}
	}
	add(filesStep{})
	for _, unit := range o.Reload {
		add(reloadStep{unit})
	}
	for _, args := range o.Run {
		add(runStep{args})
	}
	return t
}

// do does the steps of a kind that aren't done yet. The files are compared with the bundle, whatever was done before.
func (p *pass) do(ctx context.Context, t *task, kind Step) {
	for _, s := range t.steps {
		if s.step.kind() != kind || t.broken || kind != StepFiles && t.done.Has(s.mark) {
			continue
		}
		if kind != StepFiles && !p.working && p.deployer.config.Working != nil {
			p.working = true
			p.deployer.config.Working(p.bundle.Name)
		}
		if err := s.step.do(ctx, p, t); err != nil {
			p.fail(t, s.step, err)
			continue
		}
		t.done.Add(s.mark)
	}
}

// finish removes the marker of an output whose steps are all done, and notes what is done.
func (p *pass) finish(t *task) {
	if t.broken {
		return
	}
	if !t.failed && t.done.Change != "" {
		// Dying before the marker goes, or before the caller has stored the state, does the reloads and runs once more.
		if err := t.place.done(); err != nil {
			p.fail(t, filesStep{}, err)
			return
		}
		t.done.Change = ""
	}
	current := state.Done{Change: t.done.Change}
	for _, s := range t.steps {
		if t.done.Has(s.mark) {
			current.Add(s.mark)
		}
	}
	p.res.State[t.id] = current
}

// fail notes what went wrong with an output, for the error and for the list of what is left to do.
func (p *pass) fail(t *task, s step, err error) {
	t.failed = true
	t.broken = t.broken || s.kind() == StepFiles
	subject := cmp.Or(s.subject(), t.id)
	p.errs = append(p.errs, &Error{
		Output:  t.id,
		Step:    s.kind(),
		Subject: subject,
		cure:    cureFor(s.kind(), t.output, subject, err),
		Err:     err,
	})
	p.res.Pending = append(p.res.Pending, fmt.Sprintf(s.pending(), subject, t.id))
}
