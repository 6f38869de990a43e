// Package store keeps objects by key, and leases by name: accounts, bundles, orders, states, the journal of TXT records.
// It knows no object's meaning; what must be durable, and what a power loss may undo, is the caller's choice.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrNotExist is wrapped by the error of Load for an object that isn't there.
var ErrNotExist = fs.ErrNotExist

// ErrLost is wrapped by the error of a write through a lease that was lost or released, and is the cause of its context's
// end.
var ErrLost = errors.New("the lease is lost")

// Store keeps objects by key. A key is made of segments joined by "/"; see CheckKey.
//
// Every replacement is atomic for readers. The store retries nothing. It is safe for concurrent use. Which process may
// write a key is settled by leases: write through a Lease what others may write too.
type Store interface {
	Reader
	Writer
}

// Reader reads objects.
type Reader interface {
	// Load returns the object, or an error that wraps ErrNotExist.
	Load(ctx context.Context, key string) ([]byte, error)
	// List returns the keys below a prefix of whole segments, sorted.
	List(ctx context.Context, prefix string) ([]string, error)
	// Scan returns the objects below each prefix, or with a prefix as their key, sorted by key. It is one call for the
	// backend, and holds few of the objects in memory at a time. An error ends it; what is wrong with one object alone
	// is Object.Err.
	Scan(ctx context.Context, prefixes ...string) iter.Seq2[Object, error]
}

// Object is a key and what is kept there.
type Object struct {
	Key  string
	Data []byte
	Err  error // why Data can't be read
}

// ScanByLoad is the Scan of a store whose objects are loaded one by one at no cost.
func ScanByLoad(ctx context.Context, r interface {
	Load(ctx context.Context, key string) ([]byte, error)
	List(ctx context.Context, prefix string) ([]string, error)
}, prefixes ...string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		var keys []string
		for _, prefix := range prefixes {
			list, err := r.List(ctx, prefix)
			if err != nil {
				yield(Object{}, err)
				return
			}
			keys = append(keys, list...)
		}
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			data, err := r.Load(ctx, key)
			if errors.Is(err, ErrNotExist) {
				continue // deleted meanwhile
			}
			if ctx.Err() != nil {
				yield(Object{}, ctx.Err())
				return
			}
			if !yield(Object{Key: key, Data: data, Err: err}, nil) {
				return
			}
		}
	}
}

// Writer writes objects.
type Writer interface {
	// Save replaces the object. Returned nil means that it survives a power loss.
	Save(ctx context.Context, key string, data []byte) error
	// SaveLazily replaces the object without waiting for the disk: a power loss may bring back the old object, or
	// leave it empty. It is for what can be found out again.
	SaveLazily(ctx context.Context, key string, data []byte) error
	// Delete removes the object; one that isn't there is no error. A power loss may bring it back.
	Delete(ctx context.Context, key string) error
}

// Leaser gives out leases. At any time a lease has one holder, in whatever process and on whatever host.
type Leaser interface {
	// Acquire waits for the lease until the context ends. The error says who holds it then, as a *HeldError.
	Acquire(ctx context.Context, name string) (Lease, error)
	// Try doesn't wait: a lease held by somebody else is a *HeldError.
	Try(ctx context.Context, name string) (Lease, error)
	// Holder returns who holds the lease, and nil when nobody does. It takes nothing. On some backends a Try at the same
	// moment may find the lease held.
	Holder(ctx context.Context, name string) (*Holder, error)
}

// Lease is the right to work on what its name stands for. It ends with Release, with the death of its holder, or when it
// is lost: then others may have it. All writes go through it. Once it has ended they are refused with an error that wraps
// ErrLost, and its context has ended by then. A write that returns another error may have taken effect.
type Lease interface {
	Writer
	// Context ends with the lease, with a cause that wraps ErrLost. Nothing else ends it; see Within.
	Context() context.Context
	// Release gives the lease back. It waits for writes under way. Another call does nothing.
	Release()
}

// Overwriter writes over objects where there is no room for others.
type Overwriter interface {
	// Overwrite writes an object over the one that is there: it takes no more room. It isn't atomic, so that a reader may see
	// part of each. An object that isn't there isn't made.
	Overwrite(key string, data []byte) error
}

// Watcher notices changes, whoever makes them.
type Watcher interface {
	// Watch returns a channel of the keys below a prefix of whole segments that are saved or deleted from now on. After
	// its last change each key comes at least once; changes before may be merged into that. The channel is closed soon
	// after ctx ends. It needs no reader in time: keys gather until they are taken.
	Watch(ctx context.Context, prefix string) (<-chan []string, error)
}

// Within returns a context that ends with ctx, or with the lease. Its cause wraps ErrLost when the lease ended first.
func Within(ctx context.Context, lease Lease) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(lease.Context(), func() { cancel(context.Cause(lease.Context())) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

// Holder describes the process that holds a lease. It is for people: whether the process lives is known by the lease alone.
type Holder struct {
	Node    string    `json:"node,omitempty"` // the name of its host
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// Here describes this process, named by its command, as the holder of a lease that it has from now on.
func Here(command string) Holder {
	node, _ := os.Hostname()
	return Holder{Node: node, PID: os.Getpid(), Command: command, Since: time.Now().UTC().Truncate(time.Second)}
}

// Process names the process, with its host when that isn't this one.
func (h Holder) Process() string {
	if here, _ := os.Hostname(); h.Node == "" || h.Node == here {
		return fmt.Sprintf("process %d", h.PID)
	}
	return fmt.Sprintf("process %d on %s", h.PID, h.Node)
}

// HeldError says who holds a lease. Holder is zero when the holder hasn't said.
type HeldError struct {
	Lease  string
	Holder Holder
}

func (e *HeldError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("%s is locked by another process", e.Lease)
	}
	return fmt.Sprintf("%s is locked by %s (%s) since %s",
		e.Lease, e.Holder.Process(), e.Holder.Command, e.Holder.Since.Format(time.RFC3339))
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

// Unwritable reports whether an error says that nothing at all can be written where objects are: there is no room, or the
// file system is read-only.
func Unwritable(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}
