package event

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestLog shows the lines that events become, told as values and as records of a log.
func TestLog(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	refused := errors.New("refused")
	for _, tt := range []struct {
		what string
		tell func(Sink)
		want string
	}{
		{"a value", func(s Sink) {
			s.Tell(Event{Kind: NotIssued, Certificate: "web", CA: "one", Retry: at, Err: refused, Details: []slog.Attr{slog.Int("failures", 2)}})
		}, `level=WARN msg="certificate not issued" certificate=web ca=one failures=2 retry=2026-06-01T12:00:00Z err=refused`},
		{"a moment with a name of its own", func(s Sink) { s.Tell(Event{Kind: Held, Certificate: "web", Retry: at}) },
			`level=INFO msg="certificate held" certificate=web until=2026-06-01T12:00:00Z`},
		{"a record", func(s Sink) {
			Logger(s, slog.New(slog.DiscardHandler)).With("zone", "a").Error("certificates can't be scheduled", "ca", "one", "err", refused, "retry", at.Format(time.RFC3339))
		}, `level=ERROR msg="certificates can't be scheduled" ca=one zone=a retry=2026-06-01T12:00:00Z err=refused`},
		{"a record whose keys have an order of their own", func(s Sink) {
			Logger(s, slog.New(slog.DiscardHandler)).Info("certificate revoked", "serial", "03", "hostnames", "a.test", "ca", "one", "reason", "superseded")
		}, `level=INFO msg="certificate revoked" serial=03 hostnames=a.test ca=one reason=superseded`},
		{"a record of a kind that isn't known", func(s Sink) { Logger(s, slog.New(slog.DiscardHandler)).Error("surprise") }, `level=ERROR msg=surprise`},
	} {
		var out bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		var heard []Event
		tt.tell(All(Log(logger), nil, func(e Event) { heard = append(heard, e) }))
		if out.String() != tt.want+"\n" {
			t.Errorf("%s: %s, want %s", tt.what, out.String(), tt.want)
		}
		if len(heard) != 1 || heard[0].At.IsZero() {
			t.Errorf("%s: heard %+v", tt.what, heard)
		}
	}
}

// TestDebug gives records for developers to the log alone.
func TestDebug(t *testing.T) {
	var out bytes.Buffer
	debug := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	logger := Logger(func(e Event) { t.Errorf("told %+v", e) }, debug)
	if logger.With("zone", "a").Debug("update sent", "records", 2); !strings.Contains(out.String(), `msg="update sent" records=2 zone=a`) {
		t.Errorf("the log is %s", out.String())
	}
	if Logger(nil, slog.New(slog.DiscardHandler)).Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug records are made for nobody")
	}
}

// TestKindsAreKnown wants a kind for each message that a package gives to its logger, and its level in one place.
func TestKindsAreKnown(t *testing.T) {
	source, err := os.ReadFile("kinds.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, found := range regexp.MustCompile(`Kind = "([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		if known[found[1]] {
			t.Errorf("%q stands there twice", found[1])
		}
		known[found[1]] = true
		if _, has := kinds[Kind(found[1])]; !has {
			t.Errorf("%q has no row in the table of kinds", found[1])
		}
	}
	if len(known) != len(kinds) {
		t.Errorf("%d kinds have names, and %d rows", len(known), len(kinds))
	}
	call := regexp.MustCompile(`\.(Info|Warn|Error)(?:Context)?\((?:ctx, )?"([^"]+)"`)
	count := 0
	for _, root := range []string{"../../cmd/autocertd", "..", "../../issuer", "../../providers", "../../scheduler"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testbed") || strings.Contains(path, "storetest") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, found := range call.FindAllStringSubmatch(string(source), -1) {
				count++
				kind, _, _ := strings.Cut(found[2], "; \"")
				kind = strings.TrimSuffix(kind, "; ")
				if !known[kind] {
					t.Errorf("%s: %q is no kind of event", path, kind)
				} else if level := strings.ToUpper(found[1]); Kind(kind).level().String() != level {
					t.Errorf("%s: %q is told at %s, and known as %s", path, kind, level, Kind(kind).level())
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if count < 30 {
		t.Errorf("only %d messages were found", count)
	}
}
