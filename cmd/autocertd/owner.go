package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/durable"
	"autocertd/internal/proc"
)

// serviceUser is the account that the systemd unit runs the daemon as. "make install" makes it.
const serviceUser = "autocertd"

// serviceUnit is the systemd unit, which reads defaultConfig.
const serviceUnit = "autocertd.service"

// identity is a user with all of their groups.
type identity struct {
	name   string // of the account, or its number where it has no name
	uid    int
	gid    int
	groups []int
}

// intent is whether a command looks at the state directory or writes to it.
type intent bool

const (
	looks  intent = false
	writes intent = true
)

// loadAsDaemon loads the configuration as the user of the daemon when root runs a command by hand: a file that the daemon
// may not read is a mistake then, and the daemon can replace the files that the command writes. See daemonIdentity.
func loadAsDaemon(path string, does intent) (*settings, error) {
	if err := readableHere(path); err != nil {
		return nil, err
	}
	if err := becomeOwner(path, config.StateDir(path), does); err != nil {
		return nil, err
	}
	if err := mayLook(config.StateDir(path)); err != nil { // to them, keys would be mistakes that aren't
		return nil, err
	}
	s, err := load(path) // what isn't readable any more is a mistake
	if err != nil {
		return nil, err
	}
	return s, becomeOwner(path, s.StateDir, does) // the directory may be written in a way that only load understands
}

// loadByHand loads the configuration for commands that read other files as root before they act as the daemon's user.
func loadByHand(path string) (*settings, error) {
	if err := readableHere(path); err != nil {
		return nil, err
	}
	return load(path)
}

// becomeOwner makes a command that root runs by hand act as the user of the daemon from here on.
func becomeOwner(path, dir string, does intent) error {
	if os.Geteuid() != 0 {
		return nil
	}
	who, err := daemonIdentity(path, dir, does)
	if err != nil || who == nil {
		return err
	}
	return who.become(dir)
}

// daemonIdentity returns who the daemon of a state directory is, for root; nil when that is root. It is the owner of the
// directory. Where there is none yet, or it is root's, and the configuration is the one that the systemd unit reads, it is
// the user of the unit. A missing directory is made for them when the command writes; one of root's is refused then.
func daemonIdentity(path, dir string, does intent) (*identity, error) {
	info, err := os.Stat(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil // opening the directory gives a better error
	}
	missing := err != nil
	if !missing {
		if who := ownerOf(info); who != nil {
			return who, nil
		}
	}
	if abs, err := filepath.Abs(path); err != nil || abs != defaultConfig || dir != config.StateDir(path) {
		return nil, nil
	}
	who := unitIdentity(missing)
	switch {
	case who == nil || does == looks:
		return who, nil
	case !missing:
		return nil, cure.New(fmt.Sprintf("the state directory %s belongs to root, and the daemon runs as %s", dir, who.name), fmt.Sprintf("put that right: chown -R %s: %s", who.name, dir))
	}
	if err := durable.MakeFolder(dir, who.uid, who.gid); err != nil {
		return nil, cure.With(fmt.Errorf("state directory: %w", err), fmt.Sprintf("make it: install -d -o %s -g %[1]s -m 0755 %s", who.name, dir))
	}
	return who, nil
}

// unitIdentity returns the user of the systemd unit, nil when that is root. Where no systemd knows the unit, it is the
// account that "make install" makes, with guess.
func unitIdentity(guess bool) *identity {
	name := ""
	if guess {
		name = serviceUser
	}
	ask := proc.Command{Args: []string{"systemctl", "show", "--property=LoadState", "--property=User", serviceUnit}, Env: []string{"LC_ALL=C"}, Timeout: 10 * time.Second}
	out, err := ask.Output(context.Background(), 4<<10, nil)
	if text := string(out); err == nil && strings.Contains(text, "LoadState=loaded") {
		_, after, _ := strings.Cut("\n"+text, "\nUser=")
		name, _, _ = strings.Cut(after, "\n")
	}
	u, err := user.Lookup(name)
	if err != nil || u.Uid == "0" {
		return nil
	}
	return identityOf(u)
}

// become gives up being root for good.
func (who *identity) become(dir string) error {
	if err := errors.Join(syscall.Setgroups(who.groups), syscall.Setgid(who.gid), syscall.Setuid(who.uid)); err != nil {
		return fmt.Errorf("acting as %s, who owns %s: %w", who.name, dir, err)
	}
	return nil
}

// actAsOwner makes a command act as the user of the daemon until it calls regain, for commands that write elsewhere too.
func actAsOwner(path, dir string) (regain func() error, err error) {
	regain = func() error { return nil }
	if os.Geteuid() != 0 {
		return regain, nil
	}
	who, err := daemonIdentity(path, dir, writes)
	if err != nil || who == nil {
		return regain, err
	}
	before, err := syscall.Getgroups()
	if err != nil {
		return nil, err
	}
	gid := os.Getegid()
	if err := errors.Join(syscall.Setgroups(who.groups), syscall.Setregid(-1, who.gid), syscall.Setreuid(-1, who.uid)); err != nil {
		return nil, fmt.Errorf("acting as %s, who owns %s: %w", who.name, dir, err)
	}
	return func() error {
		return errors.Join(syscall.Setreuid(-1, 0), syscall.Setregid(-1, gid), syscall.Setgroups(before))
	}, nil
}

// ownerOf returns who owns a file; nil when that is root.
func ownerOf(info fs.FileInfo) *identity {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	uid := strconv.Itoa(int(owner.Uid))
	if u, err := user.LookupId(uid); err == nil {
		who := identityOf(u)
		if gid := int(owner.Gid); !slices.Contains(who.groups, gid) {
			who.groups = append(who.groups, gid)
		}
		return who
	}
	gid := int(owner.Gid)
	return &identity{name: "uid " + uid, uid: int(owner.Uid), gid: gid, groups: []int{gid}}
}

// identityOf returns an account with its groups. Its numbers parse on every system that this is built for.
func identityOf(u *user.User) *identity {
	who := &identity{name: u.Username}
	who.uid, _ = strconv.Atoi(u.Uid)
	who.gid, _ = strconv.Atoi(u.Gid)
	who.groups = []int{who.gid}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		if gid, err := strconv.Atoi(id); err == nil && gid != who.gid {
			who.groups = append(who.groups, gid)
		}
	}
	return who
}

// readableHere refuses to go on for a user who may not read the configuration, unless they are the daemon's own, whose
// rights are a mistake of the configuration.
func readableHere(path string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	if err := unix.Access(path, unix.R_OK); !errors.Is(err, fs.ErrPermission) {
		return nil // load gives a better error for anything else
	}
	if !ordinary(path) {
		return nil
	}
	return wrong(path+" can't be read by you: permission denied", runAsRoot())
}

// ordinary reports whether the command is run by a user who is neither root nor the daemon's.
func ordinary(path string) bool {
	if os.Geteuid() == 0 {
		return false
	}
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	return (err != nil || u.Username != serviceUser) && !ownedByUs(config.StateDir(path))
}

// mayLook refuses users who may not look into the state directory. For its owner an unreadable file is a problem of each
// certificate.
func mayLook(dir string) error {
	states := filepath.Join(dir, "states")
	err := unix.Access(states, unix.X_OK)
	if !errors.Is(err, fs.ErrPermission) || ownedByUs(dir) {
		return nil
	}
	return stateDirHint(dir, &fs.PathError{Op: "reading", Path: states, Err: err})
}

// ownedByUs reports whether we are the user who owns a directory.
func ownedByUs(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && int(st.Uid) == os.Geteuid()
}

// stateDirHint adds the cure to a refusal of the state directory.
func stateDirHint(dir string, err error) error {
	if !errors.Is(err, os.ErrPermission) || os.Geteuid() == 0 || ownedByUs(dir) {
		return err // the store names the owner
	}
	return cure.With(err, runAsRoot())
}
