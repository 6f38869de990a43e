package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// becomeOwner makes a command that root runs by hand act as the user who owns the state directory, so that the daemon
// can read and replace what the command writes there. Without a directory, or when it is root's, nothing changes.
func becomeOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	owner, groups := ownerOf(dir)
	if owner == nil {
		return nil
	}
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid))); err != nil {
		return fmt.Errorf("acting as the owner of %s (uid %d): %w", dir, owner.Uid, err)
	}
	return nil
}

// actAsOwner is becomeOwner for commands that write elsewhere, too: regain gives them back what they may.
func actAsOwner(dir string) (regain func() error, err error) {
	regain = func() error { return nil }
	if os.Geteuid() != 0 {
		return regain, nil
	}
	owner, groups := ownerOf(dir)
	if owner == nil {
		return regain, nil
	}
	before, err := syscall.Getgroups()
	if err != nil {
		return nil, err
	}
	gid := os.Getegid()
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setregid(-1, int(owner.Gid)), syscall.Setreuid(-1, int(owner.Uid))); err != nil {
		return nil, fmt.Errorf("acting as the owner of %s (uid %d): %w", dir, owner.Uid, err)
	}
	return func() error {
		return errors.Join(syscall.Setreuid(-1, 0), syscall.Setregid(-1, gid), syscall.Setgroups(before))
	}, nil
}

// ownerOf returns who owns a directory, with the groups that are theirs; nil when there is no directory, or it is root's.
func ownerOf(dir string) (owner *syscall.Stat_t, groups []int) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, nil // whoever opens the directory next says it better
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil, nil
	}
	groups = []int{int(owner.Gid)}
	if u, err := user.LookupId(strconv.Itoa(int(owner.Uid))); err == nil {
		ids, _ := u.GroupIds()
		for _, id := range ids {
			if gid, err := strconv.Atoi(id); err == nil {
				groups = append(groups, gid)
			}
		}
	}
	return owner, groups
}
