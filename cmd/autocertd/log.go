package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"autocertd/internal/config"
)

// newLogger logs to standard error. Under systemd the journal adds the time, and each line begins with its priority as
// sd-daemon(3) says, so that journalctl -p warning finds it.
func newLogger(c config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	switch {
	case c.Format == "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	case c.Format == "auto" && toJournal():
		return slog.New(newJournalHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// toJournal reports whether standard error is the journal: systemd says in $JOURNAL_STREAM which file that would be.
func toJournal() bool {
	var stat unix.Stat_t
	if unix.Fstat(int(os.Stderr.Fd()), &stat) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// journalHandler writes each record as text behind its priority.
type journalHandler struct {
	slog.Handler               // writes into line
	line         *bytes.Buffer // shared, like mu and out, by all that were derived from one
	mu           *sync.Mutex
	out          io.Writer
}

func newJournalHandler(out io.Writer, options *slog.HandlerOptions) *journalHandler {
	options.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && (attr.Key == slog.TimeKey || attr.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return attr
	}
	line := new(bytes.Buffer)
	return &journalHandler{slog.NewTextHandler(line, options), line, new(sync.Mutex), out}
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	h.line.WriteString(priority(r.Level))
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.Write(h.line.Bytes())
	return err
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.Handler.WithAttrs(attrs), h.line, h.mu, h.out}
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.Handler.WithGroup(name), h.line, h.mu, h.out}
}

// priority is a level as syslog counts, in front of a line.
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}
