package deploy

import (
	"cmp"
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
	Err     error
	cure    string
}

func (e *Error) Error() string {
	text := fmt.Sprintf("output %s: ", e.Output)
	if e.Step != StepFiles {
		text += fmt.Sprintf("%s %s: ", e.Step, e.Subject)
	}
	return text + e.Err.Error()
}

// Cure returns what a person can do about it, "" where that isn't known.
func (e *Error) Cure() string { return e.cure }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

var (
	errNoProgram = errors.New("an empty argument list names no program")
	errUnitName  = errors.New("this is not the name of a unit")
)

// cureFor returns the cure for what usually goes wrong with an output. The subject is that of an [Error].
func cureFor(step Step, o Output, subject string, err error) string {
	switch step {
	case StepFiles:
		return filesCure(o, err)
	case StepReload:
		return reloadCure(subject, err)
	default:
		return runCure(err)
	}
}

func filesCure(o Output, err error) string {
	dir := o.fixedDir() // the one to open for the daemon
	path, _ := errors.AsType[*fs.PathError](err)
	switch refused := path != nil && path.Op == "chown" && errors.Is(err, fs.ErrPermission); {
	case refused && o.Owner != "":
		return fmt.Sprintf("the daemon runs as %s, and only root gives files to another user: leave owner out of the output, and let "+
			"the service read the files by their group", whoami())
	case refused:
		text, command := o.groupCure()
		return text + ": " + command
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
		return fmt.Sprintf("under systemd, create %s and open it by ReadWritePaths=%s in a drop-in of the unit; for the lines to paste: sudo autocertd check --live", dir, dir)
	case chattr(err) != "":
		return "an attribute of the file system forbids it, whoever asks; to take it off: " + chattr(err)
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

// chattr is the command by which what an error is about can be changed again, "" where that isn't what is missing.
func chattr(err error) string {
	var about []string
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		about = []string{path.Path, filepath.Dir(path.Path)}
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		about = []string{link.New, filepath.Dir(link.New)}
	}
	for _, path := range about {
		if option := fixedBy(path); option != "" && errors.Is(err, syscall.EPERM) {
			return fmt.Sprintf("chattr %s %s", option, path)
		}
	}
	return ""
}

// groupCure is how the daemon gets into the group of an output: a text, and a line to paste.
func (o Output) groupCure() (text, command string) {
	return fmt.Sprintf("the daemon runs as %s, which isn't in the group %s; add it", whoami(), o.Group),
		fmt.Sprintf("sudo usermod -aG %s %s && sudo systemctl restart autocertd", o.Group, userArgument())
}

// polkitRule is where README.md puts the rule by which the daemon may reload units.
const polkitRule = "/etc/polkit-1/rules.d/50-autocertd.rules"

func reloadCure(unit string, err error) string {
	if errors.Is(err, errUnknownUnit) {
		return unknownUnitCure(unit)
	}
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
		return fmt.Sprintf("let polkit allow %[1]s to reload %[2]s: sudo sed -i 's/var units = \\[/&\"%[2]s\", /' %[3]s; where that file is missing: "+
			"sudo install -D -m 0644 /usr/share/doc/autocertd/autocertd.rules %[3]s", whoami(), unit, polkitRule)
	case says("not been booted with systemd"), says("Failed to connect to bus"):
		return "systemd can't be reached from here; use run instead of reload"
	case says("not found"):
		return unknownUnitCure(unit)
	case says("Job for ") && says(" failed"):
		return fmt.Sprintf("the service itself failed; to see why: sudo journalctl -n 20 -u %s", unit)
	}
	return ""
}

// unknownUnitCure looks for units whose names begin alike, although the rest may be misspelt.
func unknownUnitCure(unit string) string {
	return fmt.Sprintf("correct the unit's name in reload of the output, or install the service; to see how it is called: systemctl list-unit-files '*%s*'",
		unit[:min(3, len(unit))])
}

func runCure(err error) string {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "correct the path in run, or install the program; no shell is involved"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("%s may not execute it; check its mode and those of its directories", whoami())
	}
	return ""
}

// whoami names the user that we run as, for a sentence.
func whoami() string {
	return cmp.Or(userName(), fmt.Sprintf("user %d", os.Geteuid()))
}

// userArgument names the user that we run as for a command line: the number where there is no name.
func userArgument() string {
	return cmp.Or(userName(), strconv.Itoa(os.Geteuid()))
}

// userName returns the name of the user that we run as, "" where there is none. user.Current would remember the one that we
// were before we became another.
func userName() string {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return ""
	}
	return u.Username
}
