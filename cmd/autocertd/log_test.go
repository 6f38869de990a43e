package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestJournalHandler(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(newJournalHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	logger.Debug("not wanted")
	logger.Info("started", "certificates", 2)
	logger.With("ca", "x").Warn("certificate not issued", "certificate", "a")
	logger.WithGroup("g").Error("disk full", "left", 0)
	want := "<6>msg=started certificates=2\n" +
		"<4>msg=\"certificate not issued\" ca=x certificate=a\n" +
		"<3>msg=\"disk full\" g.left=0\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// TestSendingHandler shows what the journal gets of a command by hand.
func TestSendingHandler(t *testing.T) {
	var got []string
	send := func(message string, p journal.Priority, vars map[string]string) error {
		got = append(got, fmt.Sprintf("%d %s %v", p, message, vars))
		return nil
	}
	logger := slog.New(newSendingHandler(send, &slog.HandlerOptions{Level: slog.LevelInfo})).With("by", "alice")
	logger.Debug("not wanted")
	logger.Info("certificate issued", "certificate", "a")
	logger.Error("certificate not issued", "err", "two\nlines")
	want := []string{
		"6 msg=\"certificate issued\" by=alice certificate=a map[SYSLOG_IDENTIFIER:autocertd]",
		"3 msg=\"certificate not issued\" by=alice err=\"two\\nlines\" map[SYSLOG_IDENTIFIER:autocertd]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
