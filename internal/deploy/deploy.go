// Package deploy brings the files of a certificate to the places and formats that services want, reloads those services and
// runs commands, again and again until each has succeeded. It leaves to its caller when to look, where the bundle and the
// state are kept, and that only one pass at a time works on a certificate; it never sees an account key.
package deploy

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"
)

// State says for each output, by [Output.ID], which bundle with which reloads and runs was completed there.
// The caller stores it between passes. A lost State costs one superfluous reload, nothing else.
type State map[string]string

// Config is what a Deployer needs. The zero value runs real processes, gives each a minute and logs nothing.
type Config struct {
	Run     Runner        // nil: real processes
	Logger  *slog.Logger  // nil: silent
	Timeout time.Duration // for each reload and each run; 0: one minute

	// Working is told of each certificate whose files are in place and whose reloads and runs begin, which may take long; nil
	// is fine.
	Working func(certificate string)
}

// Deployer applies bundles to outputs. It is safe for concurrent use with different certificates; those share reloads.
type Deployer struct {
	runner  Runner
	log     *slog.Logger
	timeout time.Duration
	working func(certificate string)
	disk    disk
	units   units
}

// New returns a Deployer.
func New(c Config) *Deployer {
	d := &Deployer{runner: c.Run, log: c.Logger, timeout: c.Timeout, working: c.Working}
	if d.runner == nil {
		d.runner = processes{}
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.timeout <= 0 {
		d.timeout = time.Minute
	}
	return d
}

// Result is what a pass did and what it left to do.
type Result struct {
	State    State    // to be stored by the caller, also after an error
	Changed  []string // paths that were rewritten
	Reloaded []string // units that were reloaded
	Stopped  []string // units that would have been, and don't run
	Pending  []string // what still has to be done, one short sentence each
}

// Apply brings every output to b: files first, then the reloads, then the runs of those outputs whose files changed or whose
// reloads and runs haven't succeeded yet for this bundle. When all is right already, it only reads. An output that fails
// doesn't stop the others. The returned error joins one [*Error] for each thing that failed; Apply is to be called again
// then. Reloads and runs happen at least once for each change, and more often after a failure or a crash.
func (d *Deployer) Apply(ctx context.Context, b Bundle, outputs []Output, st State) (Result, error) {
	p := pass{Deployer: d, bundle: b, res: Result{State: State{}}, taken: map[string]bool{}}
	if err := b.check(); err != nil {
		p.res.State = maps.Clone(st)
		return p.res, err
	}
	var due []*task
	for _, o := range outputs {
		t := &task{output: o, id: o.ID(b.Name), mark: o.mark(b)}
		old, known := st[t.id]
		if known {
			// Still true when this output fails below: a change of its files is remembered beside them, by the marker.
			p.res.State[t.id] = old
		}
		changed, err := p.files(ctx, t)
		if err != nil {
			p.fail(t, StepFiles, t.id, err)
			continue
		}
		if changed {
			d.log.Info("files written", "certificate", b.Name, "output", t.id, "repaired", old == t.mark)
		}
		if changed || t.pending || old != t.mark {
			due = append(due, t)
		}
	}
	p.work(ctx, due)
	return p.res, errors.Join(p.errs...)
}

// Right reports whether Apply would find nothing to do. It only reads, so that nobody need be kept from the files.
func (d *Deployer) Right(b Bundle, outputs []Output, st State) bool {
	for _, o := range outputs {
		if st[o.ID(b.Name)] != o.mark(b) {
			return false
		}
		place, err := o.place(&d.disk, b)
		if err != nil {
			return false
		}
		if right, pending, err := place.look(); !right || pending || err != nil {
			return false
		}
	}
	return true
}
