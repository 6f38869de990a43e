package deploy

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// keep as an id means that it is neither set nor looked at. It is what chown(2) takes for that.
const keep = -1

// owner is the user and the group of files.
type owner struct{ uid, gid int }

// owns reports whether a file has the owner.
func (o owner) owns(st *unix.Stat_t) bool {
	return (o.uid == keep || uint32(o.uid) == st.Uid) && (o.gid == keep || uint32(o.gid) == st.Gid)
}

// lookupOwner finds the ids of a user and a group, each a name, a number, or empty.
func lookupOwner(userName, groupName string) (owner, error) {
	uid, err := lookupUser(userName)
	if err != nil {
		return owner{}, fmt.Errorf("owner %q: %w", userName, err)
	}
	gid, err := lookupGroup(groupName)
	if err != nil {
		return owner{}, fmt.Errorf("group %q: %w", groupName, err)
	}
	return owner{uid, gid}, nil
}

func lookupUser(name string) (int, error) {
	return lookupID(name, func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

func lookupGroup(name string) (int, error) {
	return lookupID(name, func() (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

// lookupID returns the id that a name stands for. Whether a number belongs to anybody isn't asked.
func lookupID(name string, lookup func() (string, error)) (int, error) {
	if name == "" {
		return keep, nil
	}
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return validID(id)
	}
	text, err := lookup()
	if err != nil {
		return keep, err
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return keep, err
	}
	return validID(id)
}

// validID refuses the one number that would mean "leave as it is" to chown(2).
func validID(id uint64) (int, error) {
	if id == 1<<32-1 {
		return keep, errors.New("this number can't own files")
	}
	return int(id), nil
}
