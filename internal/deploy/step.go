package deploy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"autocertd/internal/state"
)

// State holds the steps of each output that have succeeded.
type State = state.Outputs

// step is one thing that an output needs. Doing it again does no harm, and dying within it leaves what the next pass heals.
type step interface {
	kind() Step
	subject() string // the unit or the program; "": the output
	words() []string // all that makes it another step when it changes, besides kind and bundle
	do(ctx context.Context, p *pass, t *task) error
	pending() string // a sentence about what is left to do, with places for the subject and the output
}

// markOf stands for a step that was done for a bundle.
func markOf(s step, b Bundle) string {
	return sumOf(strings.ToLower(b.Fingerprint), s.kind(), s.words())
}

// wholeMark is the mark that earlier versions kept of an output whose steps were all done for a bundle.
func wholeMark(o Output, b Bundle) string {
	return sumOf(strings.ToLower(b.Fingerprint), o.Reload, o.Run)
}

func sumOf(values ...any) string {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(values) // writing strings to a hash can't fail
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// filesStep writes the files, where they differ from the bundle.
type filesStep struct{}

func (filesStep) kind() Step      { return StepFiles }
func (filesStep) subject() string { return "" }
func (filesStep) words() []string { return nil }
func (filesStep) pending() string { return "%[2]s is not written" }

func (s filesStep) do(ctx context.Context, p *pass, t *task) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.place, err = t.output.place(&p.deployer.disk, p.bundle)
	if err != nil {
		return err
	}
	// Two outputs for one path would undo each other's work at every look.
	for _, path := range t.place.paths() {
		if p.taken[path] {
			return fmt.Errorf("another output of this certificate writes %s", path)
		}
		p.taken[path] = true
	}
	right, change, err := t.place.look()
	if err != nil {
		return err
	}
	if right {
		if change == unknownChange || change != "" && change != t.done.Change { // nothing is known of what came after that change
			t.done.Steps = nil
		}
		t.done.Change = change
		return nil
	}
	if err := p.bundle.pair(); err != nil {
		return err
	}
	change = rand.Text()
	if err := t.place.write(change); err != nil {
		return err
	}
	repaired := t.done.Has(t.steps[0].mark)
	p.res.Changed, p.res.Repaired = append(p.res.Changed, t.place.paths()...), p.res.Repaired || repaired
	p.deployer.config.Logger.Info("files written", "certificate", p.bundle.Name, "output", t.id, "repaired", repaired)
	t.done = state.Done{}
	if len(t.steps) > 1 {
		t.done.Change = change
	}
	return nil
}

// reloadStep reloads a systemd unit.
type reloadStep struct{ unit string }

func (reloadStep) kind() Step        { return StepReload }
func (s reloadStep) subject() string { return s.unit }
func (s reloadStep) words() []string { return []string{s.unit} }
func (reloadStep) pending() string   { return "%s is not reloaded after a change of %s" }

// do reloads the unit once for all outputs of the certificate: their files are all in place by now.
func (s reloadStep) do(ctx context.Context, p *pass, _ *task) error {
	err, known := p.reloads[s.unit]
	if !known {
		err = p.deployer.reload(ctx, s.unit)
		p.reloads[s.unit] = err
		switch {
		case errors.Is(err, errNotRunning):
			p.res.Stopped = append(p.res.Stopped, s.unit)
		case err == nil:
			p.res.Reloaded = append(p.res.Reloaded, s.unit)
		}
	}
	if errors.Is(err, errNotRunning) {
		return nil
	}
	return err
}

// runStep runs a command.
type runStep struct{ args []string }

func (runStep) kind() Step        { return StepRun }
func (s runStep) subject() string { return program(s.args) }
func (s runStep) words() []string { return s.args }
func (runStep) pending() string   { return "%s has not succeeded after a change of %s" }

// do runs the command with the certificate's facts in its environment.
func (s runStep) do(ctx context.Context, p *pass, t *task) error {
	if program(s.args) == "" {
		return errNoProgram
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b := p.bundle
	args := make([]string, len(s.args))
	for i, a := range s.args {
		args[i] = expand(a, b.Name)
	}
	env := append(baseEnv(),
		"AUTOCERTD_NAME="+b.Name,
		"AUTOCERTD_HOSTNAMES="+strings.Join(b.Hostnames, " "),
		"AUTOCERTD_DIR="+t.output.dir(b.Name),
		"AUTOCERTD_NOT_AFTER="+b.NotAfter.UTC().Format(time.RFC3339),
		"AUTOCERTD_SERIAL="+b.Serial,
		"AUTOCERTD_FINGERPRINT="+b.Fingerprint,
	)
	err := p.deployer.start(ctx, args, append(env, t.place.env()...))
	if err == nil {
		p.deployer.config.Logger.Info("command done", "certificate", b.Name, "output", t.id, "program", program(s.args))
	}
	return err
}
