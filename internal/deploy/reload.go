package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

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
		load, state := d.unitState(ctx, unit)
		if load == loaded && (state == "inactive" || state == "failed") {
			d.log.Info("unit isn't running, so it isn't reloaded; it reads the files when it starts", "unit", unit, "state", state)
			return errNotRunning
		}
		// The cures look for its messages, so they have to be in English.
		err := d.start(ctx, []string{"systemctl", "try-reload-or-restart", unit}, append(baseEnv(), "LC_ALL=C"))
		if err == nil {
			d.log.Info("unit reloaded", "unit", unit)
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

// unitState is what systemd calls the states of a unit, first whether it could be read; "" where nobody can be asked.
func (d *Deployer) unitState(ctx context.Context, unit string) (load, active string) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	out, err := d.runner.Run(ctx, []string{"systemctl", "show", "--property=LoadState,ActiveState", "--", unit}, append(baseEnv(), "LC_ALL=C"))
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(out)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
		case "LoadState":
			load = value
		case "ActiveState":
			active = value
		}
	}
	return load, active
}
