package providers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	maxReply   = 1 << 20         // bytes on a program's standard output
	closeDelay = 2 * time.Second // for what a program left running to close its standard output
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

var (
	errProgramTimeout = errors.New("it took too long and was ended")
	errProgramOutput  = fmt.Errorf("it wrote more than %d bytes and was ended", maxReply)
)

// program is a foreign program that runs once for each request, without a shell and in an environment of its own.
type program struct {
	path    string
	args    []string
	env     []string
	timeout time.Duration
}

// checkProgram reports why path can't be run, or mustn't be: who may change it acts with our rights.
func checkProgram(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%q must be an absolute path; no shell and no search path looks for it", path)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s doesn't exist", path)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s isn't a file", path)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("%s can be changed by everybody (mode %04o): chmod o-w %s", path, info.Mode().Perm(), path)
	}
	if _, err := exec.LookPath(path); err != nil {
		return fmt.Errorf("%s can't be executed: chmod a+x %s", path, path)
	}
	return nil
}

// environment returns PATH, HOME, LANG and the named variables, as far as they are set.
func environment(names []string) []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = searchPath
	}
	env := []string{"PATH=" + path}
	for _, name := range append([]string{"HOME", "LANG"}, names...) {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// run starts the program, writes in to its standard input and returns what it wrote to its standard output, also when it
// failed. The error is ctx's, errProgramTimeout, errProgramOutput, an [*exec.ExitError], or says why it didn't start.
// When run returns, nothing of the program's process group is left.
func (p program) run(ctx context.Context, in []byte, stderr *lineWriter) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, p.timeout, errProgramTimeout)
	defer cancel()
	limited, stop := context.WithCancelCause(limited)
	defer stop(nil)
	out := &boundedBuffer{full: func() { stop(errProgramOutput) }}
	cmd := exec.CommandContext(limited, p.path, p.args...)
	cmd.Dir, cmd.Env = "/", p.env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), out, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = closeDelay
	err := cmd.Run()
	stderr.flush()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left running
	}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // the program itself ended well
		return out.kept.Bytes(), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return nil, context.Cause(limited)
	}
	return out.kept.Bytes(), err
}

// boundedBuffer keeps maxReply bytes and calls full when there are more. The buffer is a field and not embedded, since
// its ReadFrom would go round the bound.
type boundedBuffer struct {
	kept bytes.Buffer
	full func()
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.kept.Len()+len(p) > maxReply {
		b.full()
		return 0, errProgramOutput
	}
	return b.kept.Write(p)
}
