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
	info, err := os.Stat(dir)
	if err != nil {
		return nil // whoever opens the directory next says it better
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	groups := []int{int(owner.Gid)}
	if u, err := user.LookupId(strconv.Itoa(int(owner.Uid))); err == nil {
		ids, _ := u.GroupIds()
		for _, id := range ids {
			if gid, err := strconv.Atoi(id); err == nil {
				groups = append(groups, gid)
			}
		}
	}
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid))); err != nil {
		return fmt.Errorf("acting as the owner of %s (uid %d): %w", dir, owner.Uid, err)
	}
	return nil
}
