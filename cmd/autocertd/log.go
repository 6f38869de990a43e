package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/event"
	"autocertd/internal/printable"
)

// newLogger logs to standard error. Under systemd the journal adds the time, and each line begins with its priority as
// sd-daemon(3) says, so that journalctl -p warning finds it.
func newLogger(c config.Log) *slog.Logger { return eventLogger(handlerFor(c)) }

// eventLogger returns a logger whose lines are made from events alone, but for those for developers.
func eventLogger(h slog.Handler) *slog.Logger {
	lines := slog.New(h)
	return event.Logger(event.Log(lines), lines)
}

func handlerFor(c config.Log) slog.Handler {
	options := &slog.HandlerOptions{Level: c.Level}
	switch {
	case c.Format == "json":
		return cureHandler{slog.NewJSONHandler(os.Stderr, options)}
	case c.Format == "auto" && toJournal():
		return cureHandler{newJournalHandler(os.Stderr, options)}
	}
	return cureHandler{slog.NewTextHandler(os.Stderr, options)}
}

// cureHandler adds the cure to each record with an error. Its err is the problem alone.
type cureHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h cureHandler) Handle(ctx context.Context, r slog.Record) error {
	var failures []error
	r.Attrs(func(attr slog.Attr) bool {
		if err, ok := attr.Value.Any().(error); ok {
			failures = append(failures, err)
		}
		return true
	})
	if text := cure.Of(cure.Join(failures...)); text != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("cure", text))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h cureHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return cureHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h cureHandler) WithGroup(name string) slog.Handler {
	return cureHandler{h.Handler.WithGroup(name)}
}

// liveHandler passes records to a handler that can be replaced, for all loggers that were derived from one.
type liveHandler struct {
	current *atomic.Pointer[slog.Handler]
	derive  []func(slog.Handler) slog.Handler // what WithAttrs and WithGroup asked for, in turn
}

func newLiveHandler(h slog.Handler) *liveHandler {
	live := &liveHandler{current: new(atomic.Pointer[slog.Handler])}
	live.replace(h)
	return live
}

func (h *liveHandler) replace(other slog.Handler) { h.current.Store(&other) }

// Enabled implements slog.Handler.
func (h *liveHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return (*h.current.Load()).Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *liveHandler) Handle(ctx context.Context, r slog.Record) error {
	target := *h.current.Load()
	for _, derive := range h.derive {
		target = derive(target)
	}
	return target.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *liveHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(target slog.Handler) slog.Handler { return target.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *liveHandler) WithGroup(name string) slog.Handler {
	return h.with(func(target slog.Handler) slog.Handler { return target.WithGroup(name) })
}

func (h *liveHandler) with(derive func(slog.Handler) slog.Handler) slog.Handler {
	return &liveHandler{h.current, append(slices.Clip(h.derive), derive)}
}

// toJournal reports whether standard error is the journal: systemd says in $JOURNAL_STREAM which file that would be.
func toJournal() bool {
	var stat unix.Stat_t
	if unix.Fstat(int(os.Stderr.Fd()), &stat) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// commandLogger returns the logger of a command that a person runs. It logs to the journal, beside the daemon, and to
// standard error unless quiet: a screen shows the same then.
func commandLogger(c config.Log, command string, quiet bool) *slog.Logger {
	var handlers []slog.Handler
	if !quiet {
		handlers = append(handlers, newLogger(c).Handler())
	}
	if !toJournal() && journal.Enabled() {
		h := newSendingHandler(journal.Send, &slog.HandlerOptions{Level: c.Level})
		by := cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("LOGNAME"), os.Getenv("USER"), "uid "+strconv.Itoa(os.Getuid()))
		handlers = append(handlers, cureHandler{h}.WithAttrs([]slog.Attr{slog.String("command", command), slog.String("by", printable.Short(by, 64))}))
	}
	return eventLogger(slog.NewMultiHandler(handlers...))
}

// warn logs the warnings of a configuration.
func warn(logger *slog.Logger, warnings config.Problems) {
	for _, w := range warnings {
		logger.Warn("configuration", "warning", w)
	}
}

// journalHandler passes each record to emit as text and priority.
type journalHandler struct {
	slog.Handler               // writes into line
	line         *bytes.Buffer // shared, like mu, by all that were derived from one
	mu           *sync.Mutex
	emit         func(priority journal.Priority, line []byte) error
}

func newHandler(options *slog.HandlerOptions, emit func(journal.Priority, []byte) error) *journalHandler {
	options.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && (attr.Key == slog.TimeKey || attr.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return attr
	}
	line := new(bytes.Buffer)
	return &journalHandler{slog.NewTextHandler(line, options), line, new(sync.Mutex), emit}
}

// newJournalHandler writes to standard error of a service, where a line begins with its priority.
func newJournalHandler(out io.Writer, options *slog.HandlerOptions) *journalHandler {
	return newHandler(options, func(p journal.Priority, line []byte) error {
		_, err := fmt.Fprintf(out, "<%d>%s", p, line)
		return err
	})
}

// newSendingHandler writes to the journal itself, under the name that the service has there.
func newSendingHandler(send func(string, journal.Priority, map[string]string) error, options *slog.HandlerOptions) *journalHandler {
	return newHandler(options, func(p journal.Priority, line []byte) error {
		return send(strings.TrimSuffix(string(line), "\n"), p, map[string]string{"SYSLOG_IDENTIFIER": "autocertd"})
	})
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	return h.emit(priority(r.Level), h.line.Bytes())
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.Handler.WithAttrs(attrs), h.line, h.mu, h.emit}
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.Handler.WithGroup(name), h.line, h.mu, h.emit}
}

// priority returns the syslog priority of a level.
func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
