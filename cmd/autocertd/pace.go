package main

import (
	"context"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/lifecycle"
	"autocertd/internal/storage"
	"autocertd/scheduler"
)

// pace judges whether schedule and window leave enough time to renew certificates of a lifetime.
func (s *settings) pace(lifetime, emergency time.Duration) (schedule, window error) {
	ticks, now := s.schedule, time.Now()
	if ticks == nil {
		var err error
		if ticks, err = scheduler.ParseSchedule(config.DefaultSchedule); err != nil {
			return err, nil
		}
	}
	return budget.CheckSchedule(ticks, lifetime, now), budget.CheckWindow(s.window, ticks, emergency, lifetime, now)
}

// lifetimeOf returns the lifetime of the certificate in a state directory, 0 when there is none or it can't be seen.
func lifetimeOf(stateDir, name string) time.Duration {
	return lifecycle.Lifetime(context.Background(), storage.ViewFiles(stateDir), name)
}
