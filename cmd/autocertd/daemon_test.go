//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"autocertd/internal/lifecycle"
)

// process is a daemon that runs.
type process struct {
	cmd   *exec.Cmd
	log   string        // path of what it says
	ended chan struct{} // closed when it is gone
}

// start writes the configuration and starts the daemon. It ends with the test at the latest.
func (s *site) start(t *testing.T) *process {
	t.Helper()
	s.write(t)
	return s.startAgain(t)
}

// startAgain starts the daemon on the configuration that is there.
func (s *site) startAgain(t *testing.T) *process {
	t.Helper()
	p := s.begin(t)
	p.tells(t, "msg=started")
	return p
}

// begin starts the daemon and doesn't wait until it has started.
func (s *site) begin(t *testing.T) *process {
	t.Helper()
	log, err := os.CreateTemp(s.dir, "log-")
	if err != nil {
		t.Fatal(err)
	}
	command := append(slices.Clone(s.under), "autocertd", "run", "--config", s.config())
	p := &process{cmd: exec.Command(command[0], command[1:]...), log: log.Name(), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), s.env...)
	p.cmd.SysProcAttr = dieWithTests()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = log.Close() // the process has its own
	go func() {
		_ = p.cmd.Wait() // its exit status is in cmd.ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.signal(t, syscall.SIGKILL)
		<-p.ended
		said := p.says(t)
		note(said)
		if t.Failed() {
			t.Logf("%s ends:\n%s", filepath.Base(p.log), tail(said))
		}
	})
	return p
}

// dieWithTests leaves Ctrl-C to the tests, and leaves nobody behind when they are killed.
func dieWithTests() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func tail(text string) string { return text[max(0, len(text)-3000):] }

// says returns what the process logged so far.
func (p *process) says(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tells waits until the process has logged a line with all the words.
func (p *process) tells(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, func() error {
		for line := range strings.Lines(p.says(t)) {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return nil
			}
		}
		return fmt.Errorf("no line of the log has all of %q", words)
	})
}

func (p *process) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// kill ends the process as a crash does.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.ended
	if status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Fatalf("the daemon had ended by itself: %s", p.cmd.ProcessState)
	}
}

// stop asks the process to end, as systemd does, and fails unless it ends well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatal("the daemon doesn't end")
	}
	if !p.cmd.ProcessState.Success() {
		t.Fatalf("the daemon ended with %s", p.cmd.ProcessState)
	}
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	status         int
}

// command runs another command of the program on the site's configuration.
func (s *site) command(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience) // ends it with status -1
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "autocertd", append(args, "--config", s.config())...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &stdout, &stderr, dieWithTests()
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	note(stderr.String())
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// renewed runs renew, which must succeed.
func (s *site) renewed(t *testing.T, args ...string) {
	t.Helper()
	if r := s.command(t, append([]string{"renew"}, args...)...); r.status != 0 {
		t.Fatalf("renew %v ends with %d:\n%s", args, r.status, r.stderr)
	}
}

// report is what status --json says.
func (s *site) report(t *testing.T) statusReport {
	t.Helper()
	r := s.command(t, "status", "--json")
	var report statusReport
	if err := json.Unmarshal([]byte(r.stdout), &report); r.status != 0 || err != nil {
		t.Fatalf("status --json ends with %d (%v):\n%s%s", r.status, err, r.stdout, r.stderr)
	}
	return report
}

// about is what status --json says of one certificate.
func (s *site) about(t *testing.T, name string) lifecycle.Status {
	t.Helper()
	for _, c := range s.report(t).Certificates {
		if c.Name == name {
			return c.Status
		}
	}
	t.Fatalf("status doesn't know %s", name)
	return lifecycle.Status{}
}

// failing waits until status tells that a certificate could not be issued, and returns what it tells.
func (s *site) failing(t *testing.T, name string) (status lifecycle.Status) {
	t.Helper()
	eventually(t, func() error {
		if status = s.about(t, name); status.Issue.Failures == 0 {
			return fmt.Errorf("%s has not failed: %+v", name, status)
		}
		return nil
	})
	if status.Condition != lifecycle.Failing || !status.Issue.RetryAt.After(status.Issue.At) {
		t.Errorf("%s is called %q and tried again at %s, after a failure at %s", name, status.Condition, status.Issue.RetryAt, status.Issue.At)
	}
	return status
}
