//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"autocertd/internal/preflight"
	"autocertd/internal/testbed"
)

// TestCheckLive looks at one site again and again: in order first, then with one thing that is wrong. However it goes, no
// order is made, no account is registered and no record is left.
func TestCheckLive(t *testing.T) {
	t.Parallel()
	bind := testbed.BINDConfig{Secondaries: []testbed.Secondary{{Notify: true}}, Zones: []testbed.BINDZone{{Name: zone, Policy: []string{
		"grant acme-key name _acme-challenge." + zone + ". TXT", "grant acme-key name _acme-challenge.www." + zone + ". TXT"}}}}
	s := newSite(t, siteConfig{bind: bind})
	hostname := "www." + zone
	certificate := func(lines ...string) string {
		return "[[certificate]]\nname = \"web\"\n" + strings.Join(lines, "\n") + "\n"
	}
	webFor := certificate(fmt.Sprintf("hostnames = [%q, %q, %q]", hostname, zone, "*."+zone))
	wrongSecret := fmt.Sprintf("[provider.bind]\ntype = \"rfc2136\"\nserver = %q\nkey_name = \"acme-key\"\nkey = \"d3JvbmdzZWNyZXR3cm9uZ3NlY3JldA==\"\n", s.bind.Addr())
	s.writeFile(t, "file", "")
	for _, row := range []struct {
		name     string
		provider string // instead of the good one
		tables   string
		down     bool // the secondary
		status   int
		summary  string   // pattern of the last line
		words    []string // elsewhere in what is shown
	}{
		{name: "a healthy site", tables: webFor, summary: `ready: issuing would work for 1 certificate`},
		{name: "a wrong secret", provider: wrongSecret, tables: webFor, status: exitFailed, summary: `: issuing would fail for web$`,
			words: []string{"has another secret for TSIG key", "tsig-keygen"}},
		{name: "a hostname outside of the policy", tables: webFor + "[[certificate]]\nname = \"ftp\"\nhostnames = [\"ftp." + zone + "\"]\n",
			status: exitFailed, summary: `^1 failure.*: issuing would fail for ftp$`, words: []string{"grant acme-key name _acme-challenge.ftp." + zone + ". TXT;"}},
		{name: "a profile that the CA doesn't have", tables: certificate(fmt.Sprintf("hostnames = [%q]", hostname), `profile = "tls"`),
			status: exitFailed, summary: `^1 failure.*: issuing would fail for web$`, words: []string{`has no profile "tls"; it offers default`, `profile = "default"`}},
		{name: "an output where a file is", tables: webFor + fmt.Sprintf("[[output]]\ndir = %q\n", s.path("file", "{name}")),
			status: exitFailed, summary: `^1 failure.*: deploying would fail for web$`, words: []string{"move away what doesn't belong there"}},
		{name: "a CA that is down, beside one that isn't", tables: webFor + "[ca.down]\ndirectory = \"https://127.0.0.1:1/dir\"\naccept_terms = true\n[defaults]\nca = [\"down\", \"test\"]\n",
			summary: `^ready: issuing would work for 1 certificate`, words: []string{"warning  down ", "every certificate has another CA"}},
		{name: "a dead secondary", tables: webFor, provider: s.provider("bind", `propagation_timeout = "2s"`), down: true,
			status: exitFailed, summary: `: issuing would fail for web$`, words: []string{s.bind.Servers()[1]}},
	} {
		t.Run(row.name, func(t *testing.T) {
			good := s.providers
			defer func() { s.providers = good }()
			if row.provider != "" {
				s.providers = []string{row.provider}
			}
			if row.down {
				if err := s.bind.Kill(1); err != nil {
					t.Fatal(err)
				}
			}
			s.tables = row.tables
			s.write(t)
			r := s.command(t, "check", "--live")
			lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
			if last := lines[len(lines)-1]; r.status != row.status || !regexp.MustCompile(row.summary).MatchString(last) {
				t.Errorf("status %d, want %d and %q:\n%s%s", r.status, row.status, row.summary, r.stdout, r.stderr)
			}
			for _, words := range row.words {
				if !strings.Contains(r.stdout, words) {
					t.Errorf("nothing says %q:\n%s", words, r.stdout)
				}
			}
			s.untouched(t)
		})
	}
	if n := s.bind.UpdateMessages(); n < 6 {
		t.Errorf("%d update messages: nothing was tried", n)
	}
}

// untouched demands that nothing was ordered, registered, or left in the zone.
func (s *site) untouched(t *testing.T) {
	t.Helper()
	if r := s.ca.Requests(); r["newOrder"] != 0 || r["newAccount"] != 0 || r["directory"] == 0 {
		t.Errorf("requests to the CA: %v", r)
	}
	if values, err := s.bind.TXT(t.Context(), zone); err != nil || len(values) > 0 {
		t.Errorf("left in the zone: %v (%v)", values, err)
	}
	if left, err := filepath.Glob(s.path("state", "journal", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("left in the journal: %q (%v)", left, err)
	}
}

// TestCheckLiveAsOwner is run by root, and finds what the owner of the state directory may not do.
func TestCheckLiveAsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	t.Parallel()
	const nobody = 65534
	s := newSite(t, siteConfig{})
	s.hostnames = hosts(1)
	s.providers = []string{fmt.Sprintf("[provider.bind]\ntype = \"rfc2136\"\nserver = %q\nkey_name = \"acme-key\"\nkey = %q\n%s\n",
		s.bind.Addr(), s.bind.Key("acme-key").Secret, nameservers(s.bind.Addr()))}
	s.tables = fmt.Sprintf("[[output]]\ndir = %q\n[[output]]\ndir = %q\ngroup = \"0\"\n", s.path("ssl", "{name}"), s.path("own", "{name}"))
	s.write(t)
	for _, dir := range []string{filepath.Dir(s.dir), s.dir, s.path("ssl"), s.path("own"), s.path("state")} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chown(s.path("state"), nobody, nobody), os.Chown(s.path("own"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	r := s.command(t, "check", "--live")
	if r.status != exitFailed || r.stderr != "" {
		t.Errorf("status %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	for _, words := range []string{"make a file in " + s.path("ssl") + ": permission denied", "install -d -o nobody -m 0755 " + s.path("ssl") + "\n",
		"chown " + s.path("own") + ": operation not permitted", "sudo usermod -aG 0 nobody && sudo systemctl restart autocertd\n"} {
		if !strings.Contains(r.stdout, words) {
			t.Errorf("nothing says %q:\n%s", words, r.stdout)
		}
	}
	if err := filepath.WalkDir(s.path("state"), func(path string, _ os.DirEntry, err error) error {
		info, statErr := os.Stat(path)
		if statErr == nil && info.Sys().(*syscall.Stat_t).Uid != nobody {
			t.Errorf("%s belongs to somebody else", path)
		}
		return errors.Join(err, statErr)
	}); err != nil {
		t.Error(err)
	}
	s.untouched(t)
}

// TestCheckLiveOfMany keeps the screen short for many hostnames, and has no secret in what programs read.
func TestCheckLiveOfMany(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = hosts(200)
	s.write(t)
	r := s.command(t, "check", "--live")
	if lines := strings.Count(r.stdout, "\n"); r.status != 0 || lines > 20 || !strings.Contains(r.stdout, "200 hostnames") {
		t.Errorf("status %d, %d lines:\n%s%s", r.status, lines, r.stdout, r.stderr)
	}
	if n := s.bind.UpdateMessages(); n > 40 {
		t.Errorf("%d update messages for 200 records and their removals", n)
	}
	s.untouched(t)

	j := s.command(t, "check", "--live", "--json", s.hostnames[7])
	var report liveReport
	if err := json.Unmarshal([]byte(j.stdout), &report); err != nil || j.status != 0 || !report.OK || len(report.Failing) > 0 {
		t.Fatalf("status %d (%v):\n%s%s", j.status, err, j.stdout, j.stderr)
	}
	about := func(subject string) bool {
		return slices.ContainsFunc(report.Findings, func(f preflight.Finding) bool { return f.Subject == subject && f.Status == preflight.OK })
	}
	if !about(s.hostnames[7]) || !about("test") || about(s.hostnames[8]) {
		t.Errorf("the findings aren't about the one that was named, and its CA:\n%s", j.stdout)
	}
	if strings.Contains(j.stdout, s.bind.Key("acme-key").Secret) {
		t.Error("the key's secret is shown")
	}
}

// TestCheckLiveInterrupted ends it while its record is published and a server that hasn't got it keeps it waiting.
func TestCheckLiveInterrupted(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{Secondaries: []testbed.Secondary{{Notify: true}}}})
	s.hostnames = hosts(1)
	s.write(t)
	if err := s.bind.Stop(1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "autocertd", "check", "--live", "--config", s.config())
	cmd.SysProcAttr = dieWithTests()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if values, err := s.bind.TXT(t.Context(), zone); err != nil || len(values) == 0 {
			return fmt.Errorf("no record yet (%v)", err)
		}
		return nil
	})
	// The primary hangs for a while, in which a command that doesn't wait for its removals would end.
	if err := s.bind.Stop(0); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Error("it ended before its record was removed")
	case <-time.After(300 * time.Millisecond):
		if err := s.bind.Continue(0); err != nil {
			t.Fatal(err)
		}
		<-ended // its exit status tells
	}
	if status := cmd.ProcessState.ExitCode(); status != exitFailed || !strings.Contains(stderr.String(), "interrupted; nothing was ordered") {
		t.Errorf("status %d: %s", status, stderr.String())
	}
	s.untouched(t)
}
