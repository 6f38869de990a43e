// Package proc runs child processes: without a shell, in a process group of their own that ends with them, with an environment
// that is named explicitly, and with bounds to their time and output. What a program is for is left to its callers.
package proc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// closeDelay is how long output is awaited that a process outside of the group holds open after the program's end.
const closeDelay = time.Second

// Errors of [Command.Output] and [Command.Tail], beside the context's own, an [*exec.ExitError], and why a program can't start.
var (
	ErrTimeout = errors.New("it took too long and was ended")
	ErrOutput  = errors.New("it wrote too much and was ended")
)

// Command is a program with what it is given. It is run once for each call of a method.
type Command struct {
	Args    []string      // the program, a path or a name for $PATH of our own, and its arguments
	Env     []string      // all of its environment, KEY=value
	Stdin   []byte        // nil: nothing to read
	Timeout time.Duration // 0: only the context bounds it
}

// Output runs the command and returns its standard output, also when it failed. After more than limit bytes it is ended with
// [ErrOutput]. What it says on standard error goes to stderr, which may be nil.
//
// When Output returns, nothing of the command's process group is left, however it ended. What should go on running belongs
// into a service, or into a session of its own (setsid).
func (c Command) Output(ctx context.Context, limit int, stderr io.Writer) ([]byte, error) {
	limited, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out := &bounded{limit: limit, full: func() { stop(ErrOutput) }}
	err := c.run(limited, out, stderr)
	return out.kept.Bytes(), err
}

// Tail is [Command.Output] for programs whose words are only shown: it returns the last limit bytes of standard output and
// standard error together.
func (c Command) Tail(ctx context.Context, limit int) ([]byte, error) {
	out := &tail{limit: limit}
	err := c.run(ctx, out, out)
	return out.kept, err
}

func (c Command) run(ctx context.Context, stdout, stderr io.Writer) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if c.Timeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, c.Timeout, ErrTimeout)
		defer cancel()
		ctx = limited
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env = "/", c.Env
	if c.Env == nil {
		cmd.Env = []string{} // nil would mean all of ours
	}
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = closeDelay
	if err := cmd.Start(); err != nil {
		return err
	}
	// The children end before the program is reaped: until then its number, which is that of the group, is nobody else's.
	// They would also hold the output open.
	awaitExit(cmd.Process.Pid)
	_ = killGroup(cmd.Process.Pid) // an error says that nobody is left
	err := cmd.Wait()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // the program itself ended well
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// bounded keeps limit bytes and calls full when there are more. The buffer is a field and not embedded, since its ReadFrom
// would go round the bound.
type bounded struct {
	limit int
	full  func()
	kept  bytes.Buffer
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.kept.Len()+len(p) > b.limit {
		b.full()
		return 0, ErrOutput
	}
	return b.kept.Write(p)
}

// tail keeps the last bytes that were written to it.
type tail struct {
	limit int
	kept  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - t.limit; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(p), nil
}
