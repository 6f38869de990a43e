package deploy

import (
	"context"
	"fmt"
	"os"

	"autocertd/internal/printable"
	"autocertd/internal/proc"
)

const maxOutput = printable.Max // bytes of a process's output, its end, for the error

// Runner starts a process and waits for it. Whatever it printed last comes back as output, bounded; a nil error
// means that it ended with status 0. Its children end with it, and it ends with ctx. It isn't retried here.
type Runner interface {
	Run(ctx context.Context, args, env []string) (output []byte, err error)
}

// processes runs real processes, without a shell.
type processes struct{}

func (processes) Run(ctx context.Context, args, env []string) ([]byte, error) {
	return proc.Command{Args: args, Env: env}.Tail(ctx, maxOutput)
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
