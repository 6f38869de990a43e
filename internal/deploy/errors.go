package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Step says at what an output failed.
type Step string

// The steps of an output, in their order.
const (
	StepFiles  Step = "files"
	StepReload Step = "reload"
	StepRun    Step = "run"
)

// Error is one thing that failed for one output. It is pending until a later Apply gets through.
type Error struct {
	Output  string // Output.ID
	Step    Step
	Subject string // the path, the unit or the program
	Hint    string // the cure, where it is known
	Err     error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("output %s: ", e.Output)
	if e.Step != StepFiles {
		text += fmt.Sprintf("%s %s: ", e.Step, e.Subject)
	}
	text += e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

var (
	errNoProgram = errors.New("an empty argument list names no program")
	errUnitName  = errors.New("this is not the name of a unit")
)

// hint names the cure for what usually goes wrong. The directory is the one to open for the daemon.
func hint(step Step, dir string, err error) string {
	switch step {
	case StepFiles:
		return fileHint(dir, err)
	case StepReload:
		return reloadHint(err)
	default:
		return runHint(err)
	}
}

func fileHint(dir string, err error) string {
	var path *fs.PathError
	if errors.As(err, &path) && path.Op == "chown" && errors.Is(err, fs.ErrPermission) {
		return fmt.Sprintf("the daemon runs as %s: only root gives files to another user, and others only to groups that they "+
			"are in; leave owner empty, and add the user to the group: usermod -aG GROUP %[1]s, then restart the daemon", whoami())
	}
	if _, ok := errors.AsType[user.UnknownGroupError](err); ok {
		return "create the group or correct group in the output"
	}
	if _, ok := errors.AsType[user.UnknownUserError](err); ok {
		return "create the user or correct owner in the output"
	}
	if path != nil && errors.Is(err, errForeignLink) {
		return fmt.Sprintf("write the folder that it leads to into dir, or let only root write to %s", filepath.Dir(path.Path))
	}
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("under systemd, create %s and open it by ReadWritePaths=%s in a drop-in of the unit", dir, dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("the daemon runs as %s: give it %s to write; under systemd, ReadWritePaths=%s in a drop-in of the "+
			"unit may be missing too", whoami(), dir, dir)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Sprintf("free space on the file system of %s", dir)
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		return "a file and a directory stand in each other's place; move away what doesn't belong there"
	}
	return ""
}

func reloadHint(err error) string {
	if errors.Is(err, exec.ErrNotFound) {
		return "systemctl isn't installed here; use run instead of reload"
	}
	p, ok := errors.AsType[*processError](err)
	if !ok {
		return ""
	}
	says := func(text string) bool { return strings.Contains(p.output, text) }
	switch {
	case says("Interactive authentication required"), says("Access denied"):
		return fmt.Sprintf("allow %s to reload this unit by a polkit rule, as autocertd.rules does", whoami())
	case says("not been booted with systemd"), says("Failed to connect to bus"):
		return "systemd can't be reached from here; use run instead of reload"
	case says("not found"):
		return "correct the unit's name in the output, or install the service"
	}
	return ""
}

func runHint(err error) string {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "correct the path in run, or install the program; no shell is involved"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("%s may not execute it; check its mode and those of its directories", whoami())
	}
	return ""
}

// whoami names the user that we run as. user.Current would remember the one that we were before we became another.
func whoami() string {
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", os.Geteuid())
}
