package event

import (
	"context"
	"log/slog"
	"time"
)

// Logger returns a logger for packages that say what happens as records of a log. Each record from level Info on is told to
// the sink, as the event whose kind is its message. Records below are for developers, and go to debug alone.
func Logger(sink Sink, debug *slog.Logger) *slog.Logger {
	return slog.New(handler{sink: sink, debug: debug.Handler()})
}

type handler struct {
	sink  Sink
	debug slog.Handler
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.debug.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		r.AddAttrs(h.attrs...)
		return h.debug.Handle(ctx, r)
	}
	e := Event{Kind: Kind(r.Message), At: r.Time, level: &r.Level}
	for _, a := range h.attrs {
		e.add(a)
	}
	r.Attrs(func(a slog.Attr) bool {
		e.add(a)
		return true
	})
	h.sink.Tell(e)
	return nil
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return h
}

// WithGroup implements slog.Handler. Events have no groups.
func (h handler) WithGroup(string) slog.Handler { return h }

// add puts a fact into the field that it has, else among the details.
func (e *Event) add(a slog.Attr) {
	value := a.Value.Resolve()
	switch err, failed := value.Any().(error); {
	case a.Equal(slog.Attr{}):
	case a.Key == "certificate":
		e.Certificate = value.String()
	case a.Key == "ca":
		e.CA = value.String()
	case a.Key == "err" && failed:
		e.Err = err
	default:
		if at, err := time.Parse(time.RFC3339, value.String()); err == nil && a.Key == e.Kind.retryKey() {
			e.Retry = at
			return
		}
		e.Details = append(e.Details, a)
	}
}
