// Package store keeps named objects and named locks: accounts, bundles, orders, states, the journal of TXT records.
// It knows no object's meaning; what must be durable, and what may be lost with the power, is the caller's choice.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"
)

// ErrNotExist is what Load returns, wrapped, for an object that isn't there.
var ErrNotExist = fs.ErrNotExist

// Unwritable reports whether an error says that nothing at all can be written where objects are: there is no room, or the
// file system is read-only.
func Unwritable(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// Store keeps objects by key. A key is made of segments joined by "/"; see CheckKey.
//
// Every replacement is atomic for readers. The store retries nothing. It is safe for concurrent use; who may write a
// key at a time is settled by locks, not by the store.
type Store interface {
	// Load returns the object, or an error that wraps ErrNotExist.
	Load(ctx context.Context, key string) ([]byte, error)
	// Save replaces the object. Returned nil means that it survives a power loss.
	Save(ctx context.Context, key string, data []byte) error
	// SaveLazily replaces the object without waiting for the disk: a power loss may bring back the old object, or
	// leave it empty. It is for what can be found out again.
	SaveLazily(ctx context.Context, key string, data []byte) error
	// Delete removes the object; one that isn't there is no error. A power loss may bring it back.
	Delete(ctx context.Context, key string) error
	// List returns the keys below a prefix of whole segments, sorted.
	List(ctx context.Context, prefix string) ([]string, error)
}

// Locker keeps locks by name. A lock is released by its holder or by the holder's death.
type Locker interface {
	// Lock waits for the lock until the context ends.
	Lock(ctx context.Context, name string) (unlock func(), err error)
	// TryLock doesn't wait: a lock held by somebody else is a *HeldError.
	TryLock(ctx context.Context, name string) (unlock func(), err error)
}

// Holder is who holds a lock, as it described itself.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// HeldError says who holds a lock. Holder is zero when the holder hasn't said.
type HeldError struct {
	Lock   string
	Holder Holder
}

func (e *HeldError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("%s is locked by another process", e.Lock)
	}
	return fmt.Sprintf("%s is locked by process %d (%s) since %s",
		e.Lock, e.Holder.PID, e.Holder.Command, e.Holder.Since.Format(time.RFC3339))
}

// CheckKey reports whether key may name an object: segments of printable ASCII without separators, none of them empty
// or beginning with a dot, at most 255 bytes each.
func CheckKey(key string) error {
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment[0] == '.' || len(segment) > 255 {
			return fmt.Errorf("%q can't name an object: a part is empty, too long or begins with a dot", key)
		}
		for i := range len(segment) {
			if c := segment[i]; c <= ' ' || c >= 0x7f || c == '\\' {
				return fmt.Errorf("%q can't name an object: it holds %q", key, c)
			}
		}
	}
	return nil
}
