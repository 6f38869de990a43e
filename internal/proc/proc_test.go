package proc_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"autocertd/internal/proc"
)

func shell(text string, args ...string) proc.Command {
	return proc.Command{Args: append([]string{"/bin/sh", "-c", text}, args...)}
}

// TestNothingIsLeft ends programs in every way while a child of theirs runs. All of them hold a pipe open, which says when the
// last one is gone; the pipe has said before that the child was there.
func TestNothingIsLeft(t *testing.T) {
	const begin = `exec 3>"$0"; (echo started >&3; exec sleep 1000) & `
	tests := []struct {
		name, text string
		timeout    time.Duration
		cancel     bool
		want       error // nil: any
	}{
		{"it fails at once", begin + `exit 3`, 0, false, nil},
		{"it ends well", begin + `exit 0`, 0, false, nil},
		{"it is killed", begin + `kill -9 $$`, 0, false, nil},
		{"it takes too long", begin + `wait`, 300 * time.Millisecond, false, proc.ErrTimeout},
		{"it writes too much", begin + `cat /dev/zero`, 0, false, proc.ErrOutput},
		{"nobody needs it any more", begin + `wait`, 0, true, context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			// Open for both, so that no opening waits; closed below, before the end is looked for.
			hold, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			pipe, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer pipe.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			said := make(chan string, 1)
			go func() {
				line := make([]byte, len("started\n"))
				n, _ := io.ReadFull(pipe, line)
				if tt.cancel {
					cancel()
				}
				said <- string(line[:n])
			}()
			c := shell(tt.text, path)
			c.Timeout = tt.timeout
			if _, err := c.Output(ctx, 1000, nil); tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err := hold.Close(); err != nil {
				t.Fatal(err)
			}
			if line := <-said; line == "" {
				return // it was over before the child had begun
			}
			if rest, err := io.ReadAll(pipe); err != nil || len(rest) > 0 { // hangs as long as one of them lives
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

// TestOutside has a program that leaves a process in a session of its own, with its output: that one lives, and isn't waited for.
func TestOutside(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "pid")
	out, err := shell(`setsid sh -c 'echo $$ >"$0"; exec sleep 1000' "$0" & while ! [ -s "$0" ]; do sleep 0.01; done; echo said`, path).Output(t.Context(), 100, nil)
	if err != nil || string(out) != "said\n" {
		t.Errorf("%q, %v", out, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", "-9", strings.TrimSpace(string(text))).Run(); err != nil {
		t.Error("what had a session of its own is gone: ", err)
	}
}

func TestOutput(t *testing.T) {
	var said strings.Builder
	c := shell(`cat; echo out; echo err >&2; pwd; exit 7`)
	c.Stdin = []byte("in\n")
	out, err := c.Output(t.Context(), 100, &said)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 7 || string(out) != "in\nout\n/\n" || said.String() != "err\n" {
		t.Errorf("%q, %q, %v", out, said.String(), err)
	}
	if _, err := (proc.Command{Args: []string{"/no/such/program"}}).Output(t.Context(), 100, nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := shell("echo").Output(ended, 100, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTail(t *testing.T) {
	out, err := shell("head -c 1000000 /dev/zero; echo err >&2; printf end").Tail(t.Context(), 10)
	if err != nil || len(out) != 10 || !strings.HasSuffix(string(out), "err\nend") {
		t.Errorf("%q, %v", out, err)
	}
}

// TestEnvironment gives a program nothing of ours.
func TestEnvironment(t *testing.T) {
	t.Setenv("AUTOCERTD_TEST_SECRET", "secret")
	for _, env := range [][]string{nil, {"A=b"}} {
		out, err := proc.Command{Args: []string{"/usr/bin/env"}, Env: env}.Output(t.Context(), 1000, nil)
		if err != nil || !slices.Equal(strings.Fields(string(out)), env) && len(out)+len(env) > 0 {
			t.Errorf("%q, %v", out, err)
		}
	}
}
