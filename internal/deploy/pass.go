package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// pass is one call of Apply.
type pass struct {
	*Deployer
	bundle Bundle
	res    Result
	errs   []error
	taken  map[string]bool // paths of the outputs so far
}

// task is one output in one pass.
type task struct {
	output  Output
	id      string // where it writes
	mark    string // what the state says once all is done
	place   place
	pending bool // something has to happen after an earlier change of the files
	failed  bool
}

// files compares what is on disk with the bundle and writes where they differ.
func (p *pass) files(ctx context.Context, t *task) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	t.place, err = t.output.place(&p.disk, p.bundle)
	if err != nil {
		return false, err
	}
	// Two outputs for one path would undo each other's work at every look.
	for _, path := range t.place.paths() {
		if p.taken[path] {
			return false, fmt.Errorf("another output of this certificate writes %s", path)
		}
		p.taken[path] = true
	}
	right, pending, err := t.place.look()
	t.pending = pending
	if right || err != nil {
		return false, err
	}
	if err := p.bundle.pair(); err != nil {
		return false, err
	}
	if err := t.place.write(); err != nil {
		return false, err
	}
	p.res.Changed = append(p.res.Changed, t.place.paths()...)
	return true, nil
}

// work reloads and runs for the outputs that are due, all reloads before any run.
func (p *pass) work(ctx context.Context, due []*task) {
	if p.working != nil && slices.ContainsFunc(due, func(t *task) bool { return len(t.output.Reload)+len(t.output.Run) > 0 }) {
		p.working(p.bundle.Name)
	}
	// Each unit once for all outputs: their files are all in place by now.
	done := map[string]error{}
	for _, t := range due {
		for _, unit := range t.output.Reload {
			err, known := done[unit]
			if !known {
				err = p.reload(ctx, unit)
				done[unit] = err
			}
			switch {
			case errors.Is(err, errNotRunning):
				p.res.Stopped = added(p.res.Stopped, unit)
			case err != nil:
				p.fail(t, StepReload, unit, err)
			default:
				p.res.Reloaded = added(p.res.Reloaded, unit)
			}
		}
	}
	for _, t := range due {
		for _, args := range t.output.Run {
			if err := p.run(ctx, t, args); err != nil {
				p.fail(t, StepRun, program(args), err)
			}
		}
		if t.failed {
			continue
		}
		// Dying before the marker goes, or before the caller has stored the state, does the reloads and runs once more.
		if err := t.place.done(); err != nil {
			p.fail(t, StepFiles, t.id, err)
			continue
		}
		p.res.State[t.id] = t.mark
	}
}

// added is the list with the entry, once.
func added(list []string, entry string) []string {
	if slices.Contains(list, entry) {
		return list
	}
	return append(list, entry)
}

// fail notes what went wrong with an output, for the error and for the list of what is left to do.
func (p *pass) fail(t *task, step Step, subject string, err error) {
	t.failed = true
	p.errs = append(p.errs, &Error{Output: t.id, Step: step, Subject: subject, Hint: hint(step, t.output, subject, err), Err: err})
	sentence := fmt.Sprintf("%s is not written", t.id)
	switch step {
	case StepReload:
		sentence = fmt.Sprintf("%s is not reloaded after a change of %s", subject, t.id)
	case StepRun:
		sentence = fmt.Sprintf("%s has not succeeded after a change of %s", subject, t.id)
	}
	p.res.Pending = append(p.res.Pending, sentence)
}
