package main

import (
	"bytes"
	"log/slog"
	"testing"
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
