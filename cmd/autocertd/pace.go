package main

import (
	"context"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/lifecycle"
	"autocertd/internal/store/files"
	"autocertd/scheduler"
)

// pace judges whether schedule and window leave enough time to renew certificates of a lifetime.
func (s *settings) pace(lifetime, emergency time.Duration) (schedule, window error) {
	now := time.Now()
	return budget.CheckSchedule(s.ticks(), lifetime, now), budget.CheckWindow(s.window, s.ticks(), emergency, lifetime, now)
}

// meet judges whether the schedule looks while the window is open.
func (s *settings) meet() error { return budget.CheckMeeting(s.window, s.ticks(), time.Now().UTC()) }

// ticks is the schedule, the default one when none is configured.
func (s *settings) ticks() scheduler.Schedule {
	if s.schedule != nil {
		return s.schedule
	}
	ticks, err := scheduler.ParseSchedule(config.DefaultSchedule)
	if err != nil {
		panic(err) // a constant, which a test parses
	}
	return ticks
}

// lifetimeOf returns the lifetime of the certificate in a state directory, 0 when there is none or it can't be seen.
func lifetimeOf(stateDir, name string) time.Duration {
	return lifecycle.Lifetime(context.Background(), files.View(stateDir), name)
}
