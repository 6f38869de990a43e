package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"

	"autocertd/internal/cure"
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

// TestMessagesAreDocumented wants every message of the log in the table of docs/operate.md, at least as far as its first
// comma or semicolon.
func TestMessagesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| message | level | means |")
	table, _, _ = strings.Cut(table, "\n\n")
	call := regexp.MustCompile(`(?:\.(?:Info|Warn|Error)\(|Kind += )"([^"]+)"`)
	var documented []string
	for _, found := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1) {
		documented = append(documented, found[1])
	}
	count := 0
	for _, root := range []string{".", "../../internal", "../../issuer", "../../providers", "../../scheduler"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testbed") || strings.Contains(path, "storetest") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, found := range call.FindAllStringSubmatch(string(source), -1) {
				count++
				begin := found[1][:cmp.Or(max(strings.IndexAny(found[1], ",;"), 0), len(found[1]))]
				if !slices.ContainsFunc(documented, func(message string) bool { return strings.HasPrefix(message, begin) }) {
					t.Errorf("%s: %q isn't in the table of messages", path, found[1])
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if count < 40 {
		t.Errorf("only %d messages were found", count)
	}
}

// TestCureHandler shows that a record with an error has problem and cure apart.
func TestCureHandler(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(cureHandler{newJournalHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})})
	logger.With("ca", "x").Warn("certificate not issued", "err", fmt.Errorf("zone a: %w", cure.New("refused", "rndc thaw")))
	logger.Warn("certificate not issued", "err", fs.ErrNotExist, "zone", "a")
	want := "<4>msg=\"certificate not issued\" ca=x err=\"zone a: refused\" cure=\"rndc thaw\"\n" +
		"<4>msg=\"certificate not issued\" err=\"file does not exist\" zone=a\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
