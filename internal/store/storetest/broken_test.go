package storetest

import (
	"context"
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"autocertd/internal/store"
	"autocertd/internal/store/files"
)

// broken is a storage that breaks one promise, by the name of its row.
type broken struct {
	*Memory
	promise string
}

func (s broken) breaks(promise string) bool { return s.promise == promise }

func (s broken) Load(ctx context.Context, key string) ([]byte, error) {
	data, err := s.Memory.Load(ctx, key)
	if s.breaks("an object that isn't there") {
		err = nil
	}
	return data, err
}

func (s broken) List(ctx context.Context, prefix string) ([]string, error) {
	if !s.breaks("list gives the keys below a prefix") {
		return s.Memory.List(ctx, prefix)
	}
	keys, err := s.Memory.List(ctx, "journals")
	more, _ := s.Memory.List(ctx, prefix)
	return append(more, keys...), err
}

func (s broken) Scan(ctx context.Context, prefixes ...string) iter.Seq2[store.Object, error] {
	if s.breaks("scan takes several prefixes and whole keys") {
		prefixes = prefixes[:1]
	}
	all := s.Memory.Scan(ctx, prefixes...)
	return func(yield func(store.Object, error) bool) {
		for o, err := range all {
			if s.breaks("scan gives what list and load give") && strings.HasSuffix(o.Key, "10") {
				continue
			}
			if !yield(o, err) && !s.breaks("a scan can be left") {
				return
			}
		}
	}
}

func (s broken) Save(ctx context.Context, key string, data []byte) error {
	if s.breaks("an empty object") && len(data) == 0 {
		return s.Delete(ctx, key)
	}
	err := s.Memory.Save(ctx, key, data)
	if s.breaks("bad keys are refused") {
		return nil
	}
	return err
}

func (s broken) SaveLazily(ctx context.Context, key string, data []byte) error {
	if s.breaks("an object is what was saved last") {
		return nil
	}
	if s.breaks("readers never see a part") {
		_ = s.Memory.Save(ctx, key, data[:len(data)/2])
		time.Sleep(100 * time.Microsecond)
	}
	return s.Memory.SaveLazily(ctx, key, data)
}

func (s broken) Acquire(ctx context.Context, name string) (store.Lease, error) {
	if s.breaks("a released lease lets the next in") {
		return s.Try(ctx, name)
	}
	if s.breaks("two holders never, among goroutines") {
		return s.Try(ctx, name+rare())
	}
	lease, err := s.Memory.Acquire(ctx, name)
	if err != nil && s.breaks("waiting for a lease ends with the context") {
		err = ctx.Err()
	}
	return s.lease(lease, err)
}

func (s broken) Try(ctx context.Context, name string) (store.Lease, error) {
	if s.breaks("a lease has one holder") {
		name += rare()
	}
	lease, err := s.Memory.Try(ctx, name)
	if err != nil && s.breaks("a holder is described with its node") {
		err = &store.HeldError{Lease: name}
	}
	return s.lease(lease, err)
}

func (s broken) Holder(ctx context.Context, name string) (*store.Holder, error) {
	if s.breaks("asking who holds a lease takes nothing") {
		if _, err := s.Memory.Try(ctx, name); err == nil {
			return nil, nil
		}
	}
	return s.Memory.Holder(ctx, name)
}

func (s broken) lease(lease store.Lease, err error) (store.Lease, error) {
	if err != nil {
		return nil, err
	}
	return brokenLease{lease, s, lease.(*memoryLease).name}, nil
}

type brokenLease struct {
	store.Lease
	s    broken
	name string
}

func (l brokenLease) Context() context.Context {
	if l.s.breaks("a lost lease ends its context") {
		return context.Background()
	}
	return l.Lease.Context()
}

func (l brokenLease) SaveLazily(ctx context.Context, key string, data []byte) error {
	if l.s.breaks("a released lease refuses writes") || l.s.breaks("a stale writer is refused") {
		return l.s.SaveLazily(ctx, key, data)
	}
	return l.Lease.SaveLazily(ctx, key, data)
}

func (l brokenLease) Delete(ctx context.Context, key string) error {
	if l.s.breaks("writes go through a lease") {
		return nil
	}
	return l.Lease.Delete(ctx, key)
}

func (l brokenLease) Release() {
	if l.s.breaks("releasing a lost lease leaves the next holder alone") {
		l.s.Lose(l.name)
	}
	l.Lease.Release()
}

func (s broken) Watch(ctx context.Context, prefix string) (<-chan []string, error) {
	promise := s.promise
	if promise == "a watcher sees its prefix alone" {
		prefix = "bundles"
	}
	changes, err := s.Memory.Watch(ctx, prefix)
	if !strings.HasPrefix(promise, "a watch") || err != nil {
		return changes, err
	}
	out := make(chan []string, 1000)
	go func() {
		for keys := range changes {
			switch promise {
			case "a watcher sees each change":
				keys = slices.DeleteFunc(keys, func(key string) bool { _, err := s.Load(ctx, key); return err != nil })
			case "a watcher sees what a lease writes":
				keys = slices.DeleteFunc(keys, func(key string) bool { h, _ := s.Holder(ctx, "certificate-x"); return h != nil })
			}
			if promise == "a watcher sees every change of a burst" {
				keys = slices.DeleteFunc(keys, func(key string) bool { return strings.HasSuffix(key, "99") })
			}
			out <- keys
		}
		if promise != "a watch ends with its context" {
			close(out)
		}
	}()
	return out, nil
}

// TestRowsFail breaks each promise and sees that its row notices.
func TestRowsFail(t *testing.T) {
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			m := &Memory{}
			b := bench{lose: m.Lose, patience: 100 * time.Millisecond, a: broken{m, r.name}, b: broken{m, r.name}}
			if r.name == "two holders never, among processes" {
				b.patience, b.where = patience, t.TempDir()
				dir, err := openUnlocked(b.where)
				if err != nil {
					t.Fatal(err)
				}
				b.a, b.b = dir, dir
			}
			if !fails(t, r, b) {
				t.Error("the row passes")
			}
		})
	}
}

// TestMain is for the processes of a row.
func TestMain(m *testing.M) {
	Main(m, Backend{Open: func(where string) (Storage, error) { return openUnlocked(where) }})
}

// unlocked is a directory whose locks keep nobody out.
type unlocked struct{ *files.Store }

func openUnlocked(where string) (unlocked, error) {
	dir, err := files.Open(where, "a test")
	return unlocked{dir}, err
}

func (s unlocked) Acquire(ctx context.Context, name string) (store.Lease, error) {
	return s.Store.Acquire(ctx, name+rare())
}

// rare returns what no other call returns, in any process.
func rare() string { return fmt.Sprint("-", os.Getpid(), "-", calls.Add(1)) }

var calls atomic.Int64

// recorder is a T that only notes whether a row fails.
type recorder struct {
	ctx    context.Context
	failed atomic.Bool
}

func (r *recorder) Context() context.Context  { return r.ctx }
func (r *recorder) Helper()                   {}
func (r *recorder) Error(...any)              { r.failed.Store(true) }
func (r *recorder) Errorf(string, ...any)     { r.failed.Store(true) }
func (r *recorder) Fatal(...any)              { r.failed.Store(true); runtime.Goexit() }
func (r *recorder) Fatalf(f string, a ...any) { r.Fatal() }

func fails(t *testing.T, row row, b bench) bool {
	rec := &recorder{ctx: t.Context()}
	b.T = rec
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if recover() != nil {
				rec.failed.Store(true)
			}
		}()
		row.test(b)
	}()
	<-done
	return rec.failed.Load()
}
