// Package event says what happened, as values that whoever wants to can listen to: the log, the status line, and later
// metrics, messages and pages. It knows nobody who tells events, and nobody who listens.
package event

import (
	"log/slog"
	"time"
)

// Event is one thing that happened. Fields that say nothing are zero.
type Event struct {
	Kind        Kind
	At          time.Time // when it was told
	Certificate string    // by its name
	CA          string    // by its name
	Err         error     // the problem; its cure is what cure.Of finds
	NotAfter    time.Time // of the certificate that is meant
	Retry       time.Time // when it is tried again; see Kind.retryKey for what the log calls it

	// Details are further facts, under the keys of the log.
	Details []slog.Attr

	level *slog.Level // of the record that it was made of; nil: that of the kind
}

// Level returns how much it matters: a warning is for a person to look at, an error is for a person to do something about.
func (e Event) Level() slog.Level {
	if e.level != nil {
		return *e.level
	}
	return e.Kind.level()
}

// Sink listens to events. It returns soon, and may be called by several goroutines at a time. The zero value listens to
// nothing.
type Sink func(Event)

// Tell gives an event to the sink, with the time if it has none.
func (s Sink) Tell(e Event) {
	if s == nil {
		return
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	s(e)
}

// All returns a sink that gives each event to all of several.
func All(sinks ...Sink) Sink {
	return func(e Event) {
		for _, s := range sinks {
			s.Tell(e)
		}
	}
}
