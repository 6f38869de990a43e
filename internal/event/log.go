package event

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"
)

// Log returns the sink that writes the lines of the log: one for each event, with the kind as its message.
func Log(logger *slog.Logger) Sink {
	return func(e Event) {
		ctx, level := context.Background(), e.Level()
		if !logger.Enabled(ctx, level) {
			return
		}
		logger.LogAttrs(ctx, level, string(e.Kind), e.attrs()...)
	}
}

func (e Event) attrs() []slog.Attr {
	list := make([]slog.Attr, 0, len(e.Details)+5)
	text := func(key, value string) {
		if value != "" {
			list = append(list, slog.String(key, value))
		}
	}
	moment := func(key string, t time.Time) {
		if !t.IsZero() {
			list = append(list, slog.String(key, t.UTC().Format(time.RFC3339)))
		}
	}
	text("certificate", e.Certificate)
	text("ca", e.CA)
	list = append(list, e.Details...)
	moment("not_after", e.NotAfter)
	moment(e.Kind.retryKey(), e.Retry)
	if e.Err != nil {
		list = append(list, slog.Any("err", e.Err))
	}
	if order := kinds[e.Kind].order; order != nil {
		slices.SortStableFunc(list, func(a, b slog.Attr) int {
			return cmp.Compare(slices.Index(order, a.Key), slices.Index(order, b.Key))
		})
	}
	return list
}
