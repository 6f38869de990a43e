package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"autocertd/internal/durable"
	"autocertd/internal/printable"
)

// leastRoom is less space than a few certificates take, with those from before.
const leastRoom = 1 << 20

// CheckFiles looks whether the files of the named certificate could be written as they have to be: it makes an empty file
// with their owner in the output's directory, or where that would be made, and removes it. The error is an [*Error].
func (o Output) CheckFiles(name string) error {
	dir := o.dir(name)
	err := o.checkDir(dir)
	if file := filepath.Join(dir, o.replaced(name)); err == nil && fixedBy(file) != "" {
		err = &fs.PathError{Op: "replace", Path: file, Err: syscall.EPERM}
	}
	if err == nil {
		return nil
	}
	return &Error{
		Output:  o.ID(name),
		Step:    StepFiles,
		Subject: dir,
		cure:    o.fileCure(err),
		Err:     err,
	}
}

// replaced is what each renewal gives another content, by a rename.
func (o Output) replaced(name string) string {
	if o.Format == FormatCombined {
		return o.file(name)
	}
	return current
}

// fileCure is the cure, with lines to paste where they are clear.
func (o Output) fileCure(err error) string {
	cure := cureFor(StepFiles, o, "", err)
	path, _ := errors.AsType[*fs.PathError](err)
	_, noGroup := errors.AsType[user.UnknownGroupError](err)
	switch chown := path != nil && path.Op == "chown"; {
	case chown && o.Owner == "" && errors.Is(err, fs.ErrPermission):
		text, command := o.groupCure()
		return text + "\n" + command
	case !chown && errors.Is(err, fs.ErrPermission) && chattr(err) == "":
		return fmt.Sprintf("%s\ninstall -d -o %s -m 0755 %s", cure, userArgument(), o.fixedDir())
	case noGroup && os.Geteuid() == 0:
		return fmt.Sprintf("%s\ngroupadd --system %s", cure, o.Group)
	case noGroup:
		return fmt.Sprintf("%s\ngroupadd --system %s && usermod -aG %[2]s %s && systemctl restart autocertd", cure, o.Group, userArgument())
	case cure == "":
		return "choose another dir in the [[output]]"
	}
	return cure
}

func (o Output) checkDir(dir string) error {
	own, err := lookupOwner(o.Owner, o.Group)
	if err != nil {
		return err
	}
	at, err := nearest(dir)
	if err != nil {
		return err
	}
	defer at.close()
	if err := at.try(own); err != nil {
		return err
	}
	var room unix.Statfs_t
	if err := unix.Fstatfs(at.fd, &room); err != nil {
		return &fs.PathError{Op: "statfs", Path: at.path, Err: err}
	}
	if room.Bavail*uint64(room.Bsize) < leastRoom || room.Files > 0 && room.Ffree == 0 {
		return &fs.PathError{Op: "statfs", Path: at.path, Err: syscall.ENOSPC}
	}
	return nil
}

// try makes a file with the owner in the folder, and removes it.
//
// It opens the folder for reading too: the names of what was written must reach the disk, and old versions are looked for.
func (f *folder) try(o owner) (err error) {
	dir, err := f.file()
	if err != nil {
		return about("read", f.path, err)
	}
	_ = dir.Close()
	name := ours + "check-" + rand.Text() + ".tmp"
	w, err := f.create(file{name: name, mode: 0o600}, o)
	if w == nil {
		return about("make a file in", f.path, err)
	}
	err = about("chown", f.path, err)
	return errors.Join(err, w.Close(), f.removeAll(name))
}

// about says what failed where; the file that was tried has a random name, and is gone.
func about(op, dir string, err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: op, Path: dir, Err: path.Err}
	}
	return err
}

// CheckProgram looks whether a command of an output could be run as far as its program goes. The error is an [*Error].
func (o Output) CheckProgram(name string, args []string) error {
	path, err := o.Program(name, args), errNoProgram
	if path != "" {
		_, err = exec.LookPath(path)
	}
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err // the subject is named already
	}
	return &Error{
		Output:  o.ID(name),
		Step:    StepRun,
		Subject: path,
		cure:    cureFor(StepRun, o, path, err),
		Err:     err,
	}
}

// ErrNoSystemd says that no systemd can be asked for units.
var ErrNoSystemd = errors.New("systemd can't be asked about units here")

// CheckUnit asks systemd whether it knows a unit that it could reload. The error wraps [ErrNoSystemd] when nobody answers;
// any other says what systemd says of the unit.
func (d *Deployer) CheckUnit(ctx context.Context, unit string) error {
	out, err := d.systemctl(ctx, "show", "--property=LoadState", "--value", "--", unit)
	if err != nil {
		first, _, _ := strings.Cut(printable.End(out), "\n")
		return fmt.Errorf("%w: %s", ErrNoSystemd, cmp.Or(first, err.Error()))
	}
	switch state := printable.End(out); state {
	case loaded:
		return nil
	case notFound:
		return unknownUnit(unit)
	default:
		return fmt.Errorf("unit %s is %s", unit, state)
	}
}

// Program is the program of one of the output's commands, for the named certificate.
func (o Output) Program(name string, args []string) string { return expand(program(args), name) }

// Service is what systemd says of the daemon's own unit: what it may write, which a command by hand doesn't meet.
type Service struct {
	Unit string

	paths  []pathRule
	tmp    bool  // /tmp and /var/tmp are its own
	chown  bool  // it may give files away
	groups []int // of the process that runs; nil when none does
}

// pathRule says of all below a path whether it may be written. The longest path counts.
type pathRule struct {
	path     string
	writable bool
}

// serviceProperties are what is asked of systemd.
var serviceProperties = []string{"LoadState", "MainPID", "User", "ProtectSystem", "ProtectHome", "PrivateTmp", "StateDirectory",
	"ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "AmbientCapabilities"}

// Service asks systemd about the unit that runs the daemon. It is nil when no systemd is there or knows it, and when the
// unit runs as root or as another user than we are: then it says nothing about us.
func (d *Deployer) Service(ctx context.Context, unit string) *Service {
	values := d.properties(ctx, unit, serviceProperties...)
	if values["LoadState"] != loaded || !isUs(values["User"]) {
		return nil
	}
	s := newService(unit, values)
	if pid, _ := strconv.Atoi(values["MainPID"]); pid > 0 {
		s.groups = groupsOf(pid)
	}
	return s
}

// newService reads the properties of a unit.
func newService(unit string, values map[string]string) *Service {
	s := &Service{Unit: unit, tmp: values["PrivateTmp"] == "yes", chown: strings.Contains(values["AmbientCapabilities"], "cap_chown")}
	add := func(writable bool, paths ...string) {
		for _, path := range paths {
			if path = strings.TrimLeft(path, "-+"); filepath.IsAbs(path) {
				s.paths = append(s.paths, pathRule{filepath.Clean(path), writable})
			}
		}
	}
	switch values["ProtectSystem"] {
	case "strict":
		add(false, "/")
	case "full":
		add(false, "/usr", "/boot", "/efi", "/etc")
	case "yes":
		add(false, "/usr", "/boot", "/efi")
	}
	if home := values["ProtectHome"]; home != "" && home != "no" {
		add(false, "/home", "/root", "/run/user")
	}
	add(false, strings.Fields(values["ReadOnlyPaths"])...)
	add(false, strings.Fields(values["InaccessiblePaths"])...)
	add(true, strings.Fields(values["ReadWritePaths"])...)
	for _, name := range strings.Fields(values["StateDirectory"]) {
		add(true, "/var/lib/"+name)
	}
	slices.SortStableFunc(s.paths, func(a, b pathRule) int { return cmp.Compare(len(b.path), len(a.path)) })
	return s
}

// isUs reports whether a user of a unit is who we are, and not root.
func isUs(name string) bool {
	u, err := user.Lookup(name)
	return err == nil && u.Uid != "0" && u.Uid == strconv.Itoa(os.Geteuid())
}

// groupsOf returns all groups of a process, nil when they can't be found out.
func groupsOf(pid int) (groups []int) {
	text, err := durable.Read(fmt.Sprintf("/proc/%d/status", pid), 1<<20)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "Gid" && key != "Groups" {
			continue
		}
		for _, field := range strings.Fields(value) {
			if gid, err := strconv.Atoi(field); err == nil {
				groups = append(groups, gid)
			}
		}
	}
	return groups
}

// CheckService looks whether the service may do for an output what a command by hand may: it isn't locked in, and has the
// groups of now. The error is an [*Error].
func (o Output) CheckService(name string, s *Service) error {
	dir := o.dir(name)
	fail := func(cure, format string, args ...any) error {
		return &Error{
			Output:  o.ID(name),
			Step:    StepFiles,
			Subject: dir,
			cure:    cure,
			Err:     fmt.Errorf(format, args...),
		}
	}
	if s.tmp && (below(dir, "/tmp") || below(dir, "/var/tmp")) {
		return fail("choose another dir in the [[output]]", "the service has a /tmp of its own (PrivateTmp=), so that nobody else sees %s", dir)
	}
	if !s.mayWrite(dir) {
		fixed := o.fixedDir()
		dropIn := "/etc/systemd/system/" + s.Unit + ".d/outputs.conf"
		return fail(fmt.Sprintf("open it to the service by a drop-in of its unit:\n"+
			"mkdir -p %[1]s && test -e %[2]s || echo '[Service]' >%[2]s\necho 'ReadWritePaths=-%[3]s' >>%[2]s\nsystemctl daemon-reload && systemctl restart %[4]s",
			filepath.Dir(dropIn), dropIn, fixed, s.Unit), "the service may not write %s: %s doesn't open it by ReadWritePaths=", dir, s.Unit)
	}
	own, err := lookupOwner(o.Owner, o.Group)
	if err != nil || own.gid == keep || s.groups == nil || s.chown || slices.Contains(s.groups, own.gid) {
		return nil // CheckFiles says what is wrong with names
	}
	return fail("the daemon has the groups that its user had when it began: systemctl restart "+s.Unit, "the daemon that runs isn't in group %s yet", o.Group)
}

func (s *Service) mayWrite(dir string) bool {
	for _, rule := range s.paths {
		if below(dir, rule.path) {
			return rule.writable
		}
	}
	return true
}

// ErrReloadForbidden says that polkit doesn't let us reload a unit.
var ErrReloadForbidden = errors.New("may not be reloaded by us")

// CheckReload finds out whether we may reload a unit, without reloading it: it asks for the reload in a mode that systemd
// takes for starts only, which it refuses after it has asked polkit. The error wraps [ErrReloadForbidden]; nil also stands
// for what couldn't be found out.
func (d *Deployer) CheckReload(ctx context.Context, unit string) error {
	out, err := d.systemctl(ctx, "--no-ask-password", "--job-mode=isolate", "try-reload-or-restart", "--", unit)
	text := printable.End(out)
	if err == nil || !strings.Contains(text, "authentication required") && !strings.Contains(text, "Access denied") && !strings.Contains(text, "Permission denied") {
		return nil
	}
	first, _, _ := strings.Cut(text, "\n")
	return fmt.Errorf("%s %w: %s", unit, ErrReloadForbidden, first)
}
