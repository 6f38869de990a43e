package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/store/storetest"
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
	state.Store
	Die     func()
	OnLoad  func(key string)
	Locking func(name string) // Lock was called and may wait

	mu       sync.Mutex
	fault    fault
	hits     int // calls that the fault is for
	dead     bool
	releases []func()
	scans    []string // the first key of each
	loads    int
	leases   []string // the names of those that were given out
	writes   []string // "Save KEY", in their order
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
	releases := f.releases
	f.mu.Unlock()
	for _, release := range releases {
		release()
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
	f.mu.Lock()
	f.loads++
	f.mu.Unlock()
	if f.OnLoad != nil {
		f.OnLoad(key)
	}
	if _, err := f.call("Load", key); err != nil {
		return nil, f.after(err)
	}
	return f.Store.Load(ctx, key)
}

func (f *faulty) Save(ctx context.Context, key string, data []byte) error {
	return f.write("Save", key, func() error { return f.Store.Save(ctx, key, data) })
}

func (f *faulty) SaveLazily(ctx context.Context, key string, data []byte) error {
	return f.write("SaveLazily", key, func() error { return f.Store.SaveLazily(ctx, key, data) })
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	return f.write("Delete", key, func() error { return f.Store.Delete(ctx, key) })
}

func (f *faulty) write(op, key string, do func() error) error {
	effect, err := f.call(op, key)
	if effect {
		err = errors.Join(do(), err)
	}
	return f.after(err)
}

// Scan is a load of each object. An object that is named may fail though it isn't there.
func (f *faulty) Scan(ctx context.Context, prefixes ...string) iter.Seq2[store.Object, error] {
	f.mu.Lock()
	f.scans = append(f.scans, prefixes[0])
	f.mu.Unlock()
	return func(yield func(store.Object, error) bool) {
		failed := map[string]bool{}
		fails := func(key string) error {
			if f.OnLoad != nil {
				f.OnLoad(key)
			}
			_, err := f.call("Load", key)
			return f.after(err)
		}
		for _, key := range prefixes {
			if strings.HasSuffix(key, ".json") {
				if err := fails(key); err != nil {
					failed[key] = true
					if !yield(store.Object{Key: key, Err: err}, nil) {
						return
					}
				}
			}
		}
		for object, err := range f.Store.Scan(ctx, prefixes...) {
			if failed[object.Key] {
				continue
			}
			if err == nil && !slices.Contains(prefixes, object.Key) {
				if failed := fails(object.Key); failed != nil {
					object = store.Object{Key: object.Key, Err: failed}
				}
			}
			if !yield(object, err) {
				return
			}
		}
	}
}

func (f *faulty) Acquire(ctx context.Context, name string) (store.Lease, error) {
	if f.Locking != nil {
		f.Locking(name)
	}
	lease, err := f.Store.Acquire(ctx, name)
	return f.leased(name, lease, err)
}

func (f *faulty) Try(ctx context.Context, name string) (store.Lease, error) {
	lease, err := f.Store.Try(ctx, name)
	return f.leased(name, lease, err)
}

func (f *faulty) leased(name string, lease store.Lease, err error) (store.Lease, error) {
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases = append(f.leases, name)
	if f.dead {
		lease.Release()
		return nil, errFault
	}
	f.releases = append(f.releases, lease.Release)
	return storetest.Hooked{Lease: lease, Write: f.write}, nil
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
