package providers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"autocertd/internal/proc"
)

const (
	maxReply   = 1 << 20 // bytes on a program's standard output
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
func (p program) run(ctx context.Context, in []byte, stderr *lineWriter) ([]byte, error) {
	command := proc.Command{Args: append([]string{p.path}, p.args...), Env: p.env, Stdin: in, Timeout: p.timeout}
	out, err := command.Output(ctx, maxReply, stderr)
	stderr.flush()
	switch {
	case errors.Is(err, proc.ErrTimeout):
		return nil, errProgramTimeout
	case errors.Is(err, proc.ErrOutput):
		return nil, errProgramOutput
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return out, err
}
