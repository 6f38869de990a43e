package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

var errFault = errors.New("a fault on purpose")

// refuseAll is for testbed.DNS.OnUpdate: nobody may change anything.
func refuseAll(*dns.Msg) (rcode int, reply bool) { return dns.RcodeRefused, true }

// fault says which calls of a Storage fail. The zero value lets all go well.
type fault struct {
	Op     string // that fails: Load, Save, SaveLazily or Delete
	Prefix string // of the keys that fail
	Skip   int    // so many of the calls go well before
	Always bool   // all later ones fail too
	Effect bool   // the failing call takes effect
	Dies   bool   // the process dies there
	Err    error  // nil for errFault
}

// faulty is a Storage that fails at some calls, as a full disk does or a process that dies there.
type faulty struct {
	Storage
	Die     func()
	OnLoad  func(key string)
	Locking func(name string) // Lock was called and may wait

	mu      sync.Mutex
	fault   fault
	hits    int // calls that the fault is for
	dead    bool
	unlocks []func()
	writes  []string // "Save KEY", in their order
}

// breaks makes the calls fail that the fault is for, from now on.
func (f *faulty) breaks(with fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.hits = with, 0
}

// call says whether a call takes effect and what it returns.
func (f *faulty) call(op, key string) (effect bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op != "Load" {
		f.writes = append(f.writes, op+" "+key)
	}
	if f.dead {
		return false, errFault
	}
	if f.fault.Op != op || !strings.HasPrefix(key, f.fault.Prefix) {
		return true, nil
	}
	if f.hits++; f.hits == f.fault.Skip+1 || f.fault.Always && f.hits > f.fault.Skip {
		return f.fault.Effect, cmp.Or(f.fault.Err, errFault)
	}
	return true, nil
}

// after ends a call that failed on purpose.
func (f *faulty) after(err error) error {
	f.mu.Lock()
	dies := err != nil && f.fault.Dies
	f.mu.Unlock()
	if dies {
		f.Die()
	}
	return err
}

// die makes all later calls fail, and releases the locks as the kernel does for a process that has died.
func (f *faulty) die() {
	f.mu.Lock()
	f.dead = true
	unlocks := f.unlocks
	f.mu.Unlock()
	for _, unlock := range unlocks {
		unlock()
	}
}

func (f *faulty) hit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits > f.fault.Skip
}

// written returns what was written since the last time.
func (f *faulty) written() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.writes
	f.writes = nil
	return list
}

func (f *faulty) Load(ctx context.Context, key string) ([]byte, error) {
	if f.OnLoad != nil {
		f.OnLoad(key)
	}
	if _, err := f.call("Load", key); err != nil {
		return nil, f.after(err)
	}
	return f.Storage.Load(ctx, key)
}

func (f *faulty) Save(ctx context.Context, key string, data []byte) error {
	effect, err := f.call("Save", key)
	if effect {
		err = errors.Join(f.Storage.Save(ctx, key, data), err)
	}
	return f.after(err)
}

func (f *faulty) SaveLazily(ctx context.Context, key string, data []byte) error {
	effect, err := f.call("SaveLazily", key)
	if effect {
		err = errors.Join(f.Storage.SaveLazily(ctx, key, data), err)
	}
	return f.after(err)
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	effect, err := f.call("Delete", key)
	if effect {
		err = errors.Join(f.Storage.Delete(ctx, key), err)
	}
	return f.after(err)
}

func (f *faulty) Lock(ctx context.Context, name string) (func(), error) {
	if f.Locking != nil {
		f.Locking(name)
	}
	unlock, err := f.Storage.Lock(ctx, name)
	return f.locked(unlock, err)
}

func (f *faulty) TryLock(ctx context.Context, name string) (func(), error) {
	unlock, err := f.Storage.TryLock(ctx, name)
	return f.locked(unlock, err)
}

func (f *faulty) locked(unlock func(), err error) (func(), error) {
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		unlock()
		return nil, errFault
	}
	unlock = sync.OnceFunc(unlock)
	f.unlocks = append(f.unlocks, unlock)
	return unlock, nil
}

// losing is the way to a CA on which one message is lost.
type losing struct {
	Path  string // of requests that are lost holds it
	Skip  int    // so many go through before
	Reply bool   // the request arrives, and the reply is lost
	Dies  bool   // the process dies there
	Die   func()

	mu   sync.Mutex
	seen int
}

// over returns the same fault on the way of another transport; they count together.
func (l *losing) over(base http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		l.mu.Lock()
		lost := l.Path != "" && r.Method == http.MethodPost && strings.Contains(r.URL.Path, l.Path)
		if lost {
			l.seen++
			lost = l.seen == l.Skip+1
		}
		l.mu.Unlock()
		if !lost {
			return base.RoundTrip(r)
		}
		if l.Reply {
			if reply, err := base.RoundTrip(r); err == nil {
				_ = reply.Body.Close()
			}
		}
		if l.Dies {
			l.Die()
		}
		return nil, errFault
	})
}

func (l *losing) hit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen > l.Skip
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
