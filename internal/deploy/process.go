package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"autocertd/internal/printable"
	"autocertd/internal/proc"
)

const maxOutput = printable.Max // bytes of a process's output, its end, for the error

// Runner starts a process and waits for it. Whatever it printed last comes back as output, bounded; a nil error
// means that it ended with status 0. Its children end with it, and it ends with ctx. It isn't retried here.
type Runner interface {
	Run(ctx context.Context, args, env []string) (output []byte, err error)
}

// processes runs real processes, without a shell.
type processes struct{}

func (processes) Run(ctx context.Context, args, env []string) ([]byte, error) {
	return proc.Command{Args: args, Env: env}.Tail(ctx, maxOutput)
}

// processError is a process that failed, with the end of what it printed.
type processError struct {
	output string // printable
	err    error
}

func (e *processError) Error() string {
	if e.output == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("%v: %s", e.err, e.output)
}

func (e *processError) Unwrap() error { return e.err }

// start runs one process within the time that it may take.
func (d *Deployer) start(ctx context.Context, args, env []string) error {
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	out, err := d.config.Run.Run(ctx, args, env)
	if err == nil {
		return nil
	}
	switch ctx.Err() {
	case context.DeadlineExceeded:
		err = fmt.Errorf("stopped, as it wasn't done within %v: %w", d.config.Timeout, context.DeadlineExceeded)
	case context.Canceled:
		err = fmt.Errorf("stopped: %w", context.Canceled)
	}
	return &processError{output: printable.End(out), err: err}
}

func program(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// baseEnv is all that processes see of our own environment, which may hold secrets.
func baseEnv() []string {
	var env []string
	for _, key := range []string{"PATH", "HOME", "LANG"} {
		if value, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+value)
		}
	}
	return env
}

// units lets certificates share reloads: while a unit reloads, all who come meanwhile share the next reload.
// Everybody is told the result of a reload that began after he asked, thus after his files were in place.
type units struct {
	mu   sync.Mutex
	next map[string]*batch        // unit: the reload that hasn't begun
	busy map[string]chan struct{} // unit: holds one token while a reload runs
}

// batch is one reload and all who wait for it.
type batch struct {
	done chan struct{}
	err  error // valid once done is closed
}

// share has reload run for the unit and returns its result. The first of a batch runs it and stays until it is over, so that
// no reload is left without an owner; the others may leave early with their context.
func (u *units) share(ctx context.Context, unit string, reload func(context.Context) error) error {
	b, busy, first := u.join(unit)
	if !first {
		select {
		case <-b.done:
			return b.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	busy <- struct{}{}
	u.mu.Lock()
	delete(u.next, unit) // who comes from here on needs a later reload
	u.mu.Unlock()
	// Others wait for this one too: it doesn't end because the first of them has to leave.
	b.err = reload(context.WithoutCancel(ctx))
	<-busy
	close(b.done)
	return b.err
}

// join finds or opens the unit's next batch, and says whether the caller is the first in it.
func (u *units) join(unit string) (b *batch, busy chan struct{}, first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.next == nil {
		u.next, u.busy = map[string]*batch{}, map[string]chan struct{}{}
	}
	if u.busy[unit] == nil {
		u.busy[unit] = make(chan struct{}, 1)
	}
	b, waiting := u.next[unit]
	if !waiting {
		b = &batch{done: make(chan struct{})}
		u.next[unit] = b
	}
	return b, u.busy[unit], !waiting
}

// errNotRunning is no failure: a unit that doesn't run reads the new files when it is started.
var errNotRunning = errors.New("it isn't running")

// reload reloads a systemd unit, or restarts it when it can't reload. One that an administrator stopped stays so: that is
// errNotRunning.
func (d *Deployer) reload(ctx context.Context, unit string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if unit == "" || strings.HasPrefix(unit, "-") {
		return errUnitName
	}
	return d.units.share(ctx, unit, func(ctx context.Context) error {
		values := d.properties(ctx, unit, "LoadState", "ActiveState")
		load, state := values["LoadState"], values["ActiveState"]
		if load == loaded && (state == "inactive" || state == "failed") {
			d.config.Logger.Info("unit isn't running, so it isn't reloaded; it reads the files when it starts", "unit", unit, "state", state)
			return errNotRunning
		}
		// The cures look for its messages, so they have to be in English.
		err := d.start(ctx, []string{"systemctl", "try-reload-or-restart", unit}, append(baseEnv(), "LC_ALL=C"))
		if err == nil {
			d.config.Logger.Info("unit reloaded", "unit", unit)
		} else if load == notFound { // polkit refuses it before systemd looks for it, and says nothing of the unit
			return unknownUnit(unit)
		}
		return err
	})
}

// What systemd says of units that it could read, and of those that aren't there.
const (
	loaded   = "loaded"
	notFound = "not-found"
)

// errUnknownUnit says that systemd has no unit of a name.
var errUnknownUnit = errors.New("systemd knows no unit")

func unknownUnit(unit string) error { return fmt.Errorf("%w %s", errUnknownUnit, unit) }

// systemctl runs systemctl for what it prints, in English, within the time that a process may take.
func (d *Deployer) systemctl(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	return d.config.Run.Run(ctx, append([]string{"systemctl"}, args...), append(baseEnv(), "LC_ALL=C"))
}

// properties returns properties of a unit as systemd has them, nil where systemd can't be asked.
func (d *Deployer) properties(ctx context.Context, unit string, names ...string) map[string]string {
	out, err := d.systemctl(ctx, "show", "--property="+strings.Join(names, ","), "--", unit)
	if err != nil {
		return nil
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = value
	}
	return values
}
