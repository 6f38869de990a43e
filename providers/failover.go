package providers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// failover is several servers for the same zones. It begins with the one that was good the last time, so that a dead one
// costs its timeouts once and not at every update.
type failover struct {
	servers []string
	good    atomic.Int32 // index of the last one that took an update
}

// each tries the servers in turn until one takes the update, or refuses it for a reason that the next can't heal. An
// error of try that isn't an [*Error] ends it.
func (f *failover) each(ctx context.Context, zone string, try func(ctx context.Context, server string) error) error {
	first := int(f.good.Load())
	var failures []*Error
	for i := range f.servers {
		n := (first + i) % len(f.servers)
		err := try(ctx, f.servers[n])
		if err == nil {
			f.good.Store(int32(n))
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("update of zone %s on %s: %w", zone, f.servers[n], ctx.Err())
		}
		failure, ok := errors.AsType[*Error](err)
		if !ok {
			return err
		}
		failures = append(failures, failure)
		if !failure.Retryable() {
			break
		}
	}
	return combined(zone, failures)
}

// combined makes one error of the failures of several servers. The last one decides whether to try again, and its cure
// is the one to begin with.
func combined(zone string, failures []*Error) *Error {
	last := failures[len(failures)-1]
	if len(failures) == 1 {
		return last
	}
	problems := make([]string, len(failures))
	errs := make([]error, len(failures))
	for i, f := range failures {
		problems[i], errs[i] = f.Problem, f.Err
	}
	all := *last
	if slices.ContainsFunc(failures, (*Error).Uncertain) {
		all.effect = effectMaybe
	}
	all.Problem = fmt.Sprintf("no server took the update of zone %s: %s", zone, strings.Join(problems, "; next, "))
	all.Err = errors.Join(errs...)
	return &all
}
