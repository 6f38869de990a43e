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
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

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
	return &Error{Output: o.ID(name), Step: StepFiles, Subject: dir, cure: o.fileCure(err), Err: err}
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
	return &Error{Output: o.ID(name), Step: StepRun, Subject: path, cure: cureFor(StepRun, o, path, err), Err: err}
}

// ErrNoSystemd says that no systemd can be asked for units.
var ErrNoSystemd = errors.New("systemd can't be asked about units here")

// CheckUnit asks systemd whether it knows a unit that it could reload. The error wraps [ErrNoSystemd] when nobody answers;
// any other says what systemd says of the unit.
func (d *Deployer) CheckUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	args := []string{"systemctl", "show", "--property=LoadState", "--value", "--", unit}
	out, err := d.runner.Run(ctx, args, append(baseEnv(), "LC_ALL=C"))
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
