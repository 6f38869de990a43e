package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"autocertd/internal/printable"
)

const (
	maxOutput = printable.Max // bytes of a process's output, its end, for the error
	waitDelay = time.Second   // for the output of children that outlive a process
)

// Runner starts a process and waits for it. Whatever it printed last comes back as output, bounded; a nil error
// means that it ended with status 0. When ctx ends, it is killed with all its children. It isn't retried here.
type Runner interface {
	Run(ctx context.Context, args, env []string) (output []byte, err error)
}

// processes runs real processes, without a shell.
type processes struct{}

func (processes) Run(ctx context.Context, args, env []string) ([]byte, error) {
	var out tail
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = &out, &out
	// A group of its own, so that a script's children die with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well, and something that it left running holds its output open
	}
	return out, err
}

// tail keeps the last bytes that were written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if extra := len(*t) - maxOutput; extra > 0 {
		*t = append((*t)[:0], (*t)[extra:]...)
	}
	return len(p), nil
}

// processError is a process that failed, with the end of what it printed.
type processError struct {
	output string // printable
	err    error
}

func (e *processError) Error() string {
	if e.output == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("%v: %s", e.err, e.output)
}

func (e *processError) Unwrap() error { return e.err }

// start runs one process within the time that it may take.
func (d *Deployer) start(ctx context.Context, args, env []string) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	out, err := d.runner.Run(ctx, args, env)
	if err == nil {
		return nil
	}
	switch ctx.Err() {
	case context.DeadlineExceeded:
		err = fmt.Errorf("stopped, as it wasn't done within %v: %w", d.timeout, context.DeadlineExceeded)
	case context.Canceled:
		err = fmt.Errorf("stopped: %w", context.Canceled)
	}
	return &processError{output: printable.End(out), err: err}
}

// run runs one of an output's commands with the certificate's facts in its environment.
func (p *pass) run(ctx context.Context, t *task, args []string) error {
	if program(args) == "" {
		return errNoProgram
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b := p.bundle
	expanded := make([]string, len(args))
	for i, a := range args {
		expanded[i] = expand(a, b.Name)
	}
	env := append(baseEnv(),
		"AUTOCERTD_NAME="+b.Name,
		"AUTOCERTD_HOSTNAMES="+strings.Join(b.Hostnames, " "),
		"AUTOCERTD_DIR="+t.output.dir(b.Name),
		"AUTOCERTD_NOT_AFTER="+b.NotAfter.UTC().Format(time.RFC3339),
		"AUTOCERTD_SERIAL="+b.Serial,
		"AUTOCERTD_FINGERPRINT="+b.Fingerprint,
	)
	err := p.start(ctx, expanded, append(env, t.place.env()...))
	if err == nil {
		p.log.Info("command done", "certificate", b.Name, "output", t.id, "program", program(args))
	}
	return err
}

func program(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// baseEnv is all that processes see of our own environment, which may hold secrets.
func baseEnv() []string {
	var env []string
	for _, key := range []string{"PATH", "HOME", "LANG"} {
		if value, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+value)
		}
	}
	return env
}
