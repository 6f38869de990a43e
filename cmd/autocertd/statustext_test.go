package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/lifecycle"
)

func TestHostnamesColumn(t *testing.T) {
	three := []string{"corp.example.com", "*.corp.example.com", "www.corp.example.com"}
	for _, row := range []struct {
		name      string
		hostnames []string
		room      int
		want      string
	}{
		{"www.corp.example.com", []string{"www.corp.example.com"}, 9, "="},
		{"web", []string{"www.corp.example.com"}, 40, "www.corp.example.com"},
		{"web", three, 60, "corp.example.com,*.corp.example.com,www.corp.example.com"},
		{"web", three, 40, "corp.example.com,*.corp.example.com +1"},
		{"web", three, 20, "corp.example.com +2"},
		{"web", three, 9, "corp.exa…"},
		{"web", nil, 9, ""},
	} {
		if got := hostnames(lifecycle.Status{Name: row.name, Hostnames: row.hostnames}, row.room); got != row.want {
			t.Errorf("%d hostnames in %d columns: %q, want %q", len(row.hostnames), row.room, got, row.want)
		}
	}
}

func TestMoments(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		what         string
		at           time.Time
		until, nextT string
	}{
		{"unknown", time.Time{}, "-", "-"},
		{"ahead", now.Add(90 * time.Minute), "1h 30m", "1h 30m"},
		{"now", now, "0s", "now"},
		{"passed", now.Add(-3 * time.Hour), "3h ago", "now"},
	} {
		if got := until(row.at, now); got != row.until {
			t.Errorf("%s: until = %q, want %q", row.what, got, row.until)
		}
		if got := next(row.at, now); got != row.nextT {
			t.Errorf("%s: next = %q, want %q", row.what, got, row.nextT)
		}
	}
}

func TestDaemonNotes(t *testing.T) {
	certificates := []lifecycle.Status{{Name: "www.corp.example.com"}}
	refused := &health{PID: 1, ConfigError: "CA test: no such thing", ConfigErrorAt: time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)}
	mistakes := config.Problems{{File: "config.toml", Line: 3, Message: "is wrong"}}
	for _, row := range []struct {
		what   string
		report statusReport
		want   string
	}{
		{"all is well", statusReport{Daemon: &health{PID: 1}, Certificates: certificates}, ""},
		{"nobody looks after it", statusReport{Certificates: certificates, stateDir: "/srv/certs"},
			"no daemon runs on /srv/certs; to start it: systemctl start autocertd\n"},
		{"nothing to do", statusReport{Daemon: &health{PID: 1}},
			"no certificate is configured; to get one: hostnames = [\"host.corp.example.com\"]\n"},
		{"the files are right but were refused", statusReport{Daemon: refused, Certificates: certificates},
			"the daemon runs with an earlier configuration; since 2026-11-24 12:00:00 it refuses the files:\nCA test: no such thing\n"},
		{"the files are wrong, which says more", statusReport{Daemon: refused, Certificates: certificates, Mistakes: mistakes},
			"mistake: config.toml:3: is wrong\nthe configuration has mistakes; the certificates are those that the daemon last took over\n"},
	} {
		if got := printed(t, func(out screen) { printDaemon(out, &row.report) }); got != row.want {
			t.Errorf("%s: %q, want %q", row.what, got, row.want)
		}
	}
}

// printed returns what is printed where there is no terminal.
func printed(t *testing.T, print func(out screen)) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	print(newScreen(file))
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
