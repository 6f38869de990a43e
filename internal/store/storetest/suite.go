// Package storetest holds the promises that every store makes, as one suite that each implementation runs, and a store in
// memory for other tests. What only one store promises is tested beside it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/store"
)

// Storage is all that a backend offers.
type Storage interface {
	store.Store
	store.Leaser
	store.Watcher
}

// Backend says how a suite gets at storages.
type Backend struct {
	// New makes an empty storage and returns where it is.
	New func(t *testing.T) (where string)
	// Open returns one more handle on the storage there, as another process would have it.
	Open func(where string) (Storage, error)
	// Lose takes a lease from its holder, as when the holder was away for too long.
	Lose func(where, name string) error
	// Alone is set when other processes can't open the storage.
	Alone bool
}

// T is what a row needs of a testing.T.
type T interface {
	Context() context.Context
	Error(...any)
	Errorf(string, ...any)
	Fatal(...any)
	Fatalf(string, ...any)
	Helper()
}

// bench is what a row works with: two handles on one storage, which is empty.
type bench struct {
	T
	a, b  Storage
	lose  func(name string)
	where string
	alone bool

	patience time.Duration // for what must happen; it is waited for in full only when it doesn't
}

type row struct {
	name string
	test func(bench)
}

// rows are the promises.
func rows() []row {
	return []row{
		{"an object that isn't there", absent},
		{"an object is what was saved last", lastSaved},
		{"an empty object", empty},
		{"list gives the keys below a prefix", list},
		{"scan gives what list and load give", scan},
		{"scan takes several prefixes and whole keys", scanSeveral},
		{"a scan can be left", scanLeft},
		{"bad keys are refused", badKeys},
		{"readers never see a part", noParts},
		{"a lease has one holder", oneHolder},
		{"a holder is described with its node", described},
		{"asking who holds a lease takes nothing", asking},
		{"waiting for a lease ends with the context", waitEnds},
		{"a released lease lets the next in", released},
		{"writes go through a lease", writesThrough},
		{"a released lease refuses writes", releasedRefuses},
		{"a lost lease ends its context", lostEnds},
		{"a stale writer is refused", staleRefused},
		{"releasing a lost lease leaves the next holder alone", lostReleased},
		{"two holders never, among goroutines", neverTwo},
		{"two holders never, among processes", neverTwoProcesses},
		{"a watcher sees each change", watchEach},
		{"a watcher sees every change of a burst", watchBurst},
		{"a watcher sees what a lease writes", watchLease},
		{"a watcher sees its prefix alone", watchPrefix},
		{"a watch ends with its context", watchEnds},
	}
}

// Run holds a backend to the promises. The test binary's TestMain must call Main with the same backend.
func Run(t *testing.T, backend Backend) {
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			where := backend.New(t)
			b := bench{T: t, where: where, alone: backend.Alone, patience: patience}
			b.lose = func(name string) { b.must(backend.Lose(where, name)) }
			var err, err2 error
			b.a, err = backend.Open(where)
			b.b, err2 = backend.Open(where)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			r.test(b)
		})
	}
}

const patience = 10 * time.Second

func (b bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b bench) acquire(s Storage, name string) store.Lease {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), b.patience)
	defer cancel()
	lease, err := s.Acquire(ctx, name)
	b.must(err)
	return lease
}

func (b bench) has(key, want string) {
	b.Helper()
	if got, err := b.b.Load(b.Context(), key); err != nil || string(got) != want {
		b.Errorf("Load: %q, %v; want %q", got, err, want)
	}
}

func (b bench) isAbsent(key string) {
	b.Helper()
	if got, err := b.b.Load(b.Context(), key); !errors.Is(err, store.ErrNotExist) {
		b.Errorf("Load: %q, %v; want ErrNotExist", got, err)
	}
}

func (b bench) collect(prefixes ...string) (list []string) {
	b.Helper()
	for o, err := range b.b.Scan(b.Context(), prefixes...) {
		b.must(errors.Join(err, o.Err))
		list = append(list, o.Key+"="+string(o.Data))
	}
	return list
}

func absent(b bench) {
	b.isAbsent("states/none")
	if err := b.a.Delete(b.Context(), "states/none"); err != nil {
		b.Errorf("Delete: %v", err)
	}
	if keys, err := b.a.List(b.Context(), "states"); err != nil || len(keys) != 0 {
		b.Errorf("List: %v, %v", keys, err)
	}
	if got := b.collect("states", "bundles/none"); len(got) != 0 {
		b.Errorf("Scan: %v", got)
	}
}

func lastSaved(b bench) {
	ctx := b.Context()
	for i, save := range []func(context.Context, string, []byte) error{b.a.Save, b.b.SaveLazily, b.b.Save} {
		want := fmt.Sprint("content ", i)
		b.must(save(ctx, "bundles/www.example.test", []byte(want)))
		b.has("bundles/www.example.test", want)
	}
	b.must(b.a.Delete(ctx, "bundles/www.example.test"))
	b.isAbsent("bundles/www.example.test")
}

func empty(b bench) {
	for _, data := range [][]byte{nil, {}} {
		b.must(b.a.Save(b.Context(), "states/x", data))
		b.has("states/x", "")
	}
}

func list(b bench) {
	for _, key := range []string{"journal/1/2", "journal/0/10", "journal/0/9", "journal/0.json", "journals/0/1", "states/a"} {
		b.must(b.a.Save(b.Context(), key, []byte("x")))
	}
	want := []string{"journal/0.json", "journal/0/10", "journal/0/9", "journal/1/2"}
	if got, err := b.b.List(b.Context(), "journal"); err != nil || !slices.Equal(got, want) {
		b.Errorf("List: %v, %v; want %v", got, err, want)
	}
}

func scan(b bench) {
	ctx := b.Context()
	for _, key := range []string{"journal/1/2", "journal/0/10", "journal/0.json", "journals/0/1", "states/a"} {
		b.must(b.a.Save(ctx, key, []byte("of "+key)))
	}
	keys, err := b.a.List(ctx, "journal")
	b.must(err)
	var want []string
	for _, key := range keys {
		data, err := b.a.Load(ctx, key)
		b.must(err)
		want = append(want, key+"="+string(data))
	}
	if got := b.collect("journal"); len(got) != 3 || !slices.Equal(got, want) {
		b.Errorf("Scan: %v; want %v", got, want)
	}
}

func scanSeveral(b bench) {
	for _, key := range []string{"bundles/a", "bundles/b", "orders/ca/a", "orders/ca/b", "states/a", "states/a2"} {
		b.must(b.a.Save(b.Context(), key, []byte("x")))
	}
	want := []string{"bundles/a=x", "orders/ca/a=x", "orders/ca/b=x", "states/a=x"}
	if got := b.collect("states/a", "orders", "bundles/a", "orders/ca", "bundles/none"); !slices.Equal(got, want) {
		b.Errorf("Scan: %v; want %v", got, want)
	}
}

func scanLeft(b bench) {
	for i := range 3 {
		b.must(b.a.Save(b.Context(), fmt.Sprint("states/", i), nil))
	}
	seen := 0
	for _, err := range b.b.Scan(b.Context(), "states") {
		b.must(err)
		seen++
		break
	}
	if seen != 1 {
		b.Errorf("%d objects before the scan was left", seen)
	}
	b.must(b.a.Save(b.Context(), "states/0", []byte("after"))) // nothing is held
	b.has("states/0", "after")
}

func badKeys(b bench) {
	lease := b.acquire(b.a, "certificate-x")
	defer lease.Release()
	for _, key := range []string{"", "/", "../up", "a/../b", "a//b", ".hidden", "a/.b", `a\b`, "a b", "a\x00", "ä", strings.Repeat("n", 256)} {
		if b.a.Save(b.Context(), key, nil) == nil || lease.Save(b.Context(), key, nil) == nil {
			b.Errorf("the key %q was saved", key)
		}
	}
}

func noParts(b bench) {
	ctx := b.Context()
	contents := [2]string{strings.Repeat("a", 50_000), strings.Repeat("b", 50_000)}
	b.must(b.a.Save(ctx, "states/x", []byte(contents[0])))
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := range 100 {
			if err := b.a.SaveLazily(ctx, "states/x", []byte(contents[i%2])); err != nil {
				b.Error(err)
			}
		}
	})
	for range 100 {
		if got, err := b.b.Load(ctx, "states/x"); err != nil || !slices.Contains(contents[:], string(got)) {
			b.Errorf("Load gave %d bytes, %v", len(got), err)
			break
		}
	}
	writer.Wait()
}

func oneHolder(b bench) {
	ctx := b.Context()
	lease := b.acquire(b.a, "certificate-x")
	for _, s := range []Storage{b.a, b.b} { // of one process too
		if _, err := s.Try(ctx, "certificate-x"); !isHeld(err) {
			b.Errorf("Try of a held lease: %v", err)
		}
	}
	other, err := b.b.Try(ctx, "certificate-y")
	b.must(err)
	other.Release()
	if lease.Context().Err() != nil {
		b.Errorf("the lease ended: %v", context.Cause(lease.Context()))
	}
	lease.Release()
}

func isHeld(err error) bool {
	_, held := errors.AsType[*store.HeldError](err)
	return held
}

func described(b bench) {
	lease := b.acquire(b.a, "certificate-x")
	defer lease.Release()
	node, _ := os.Hostname()
	_, err := b.b.Try(b.Context(), "certificate-x")
	held, ok := errors.AsType[*store.HeldError](err)
	if !ok || held.Lease != "certificate-x" {
		b.Fatalf("Try of a held lease: %v", err)
	}
	asked, err := b.b.Holder(b.Context(), "certificate-x")
	if err != nil || asked == nil {
		b.Fatalf("Holder: %v, %v", asked, err)
	}
	for _, h := range []store.Holder{held.Holder, *asked} {
		if h.Node != node || h.PID != os.Getpid() || h.Command == "" || time.Since(h.Since) > time.Hour || time.Until(h.Since) > 0 {
			b.Errorf("the holder is %+v", h)
		}
	}
}

func asking(b bench) {
	ctx := b.Context()
	if h, err := b.b.Holder(ctx, "certificate-x"); h != nil || err != nil {
		b.Errorf("a lease that nobody ever had is held by %v, %v", h, err)
	}
	lease := b.acquire(b.a, "certificate-x")
	for range 3 {
		if h, err := b.b.Holder(ctx, "certificate-x"); h == nil || err != nil {
			b.Errorf("Holder of a held lease: %v, %v", h, err)
		}
	}
	b.must(lease.Save(ctx, "states/x", nil))
	lease.Release()
	for range 2 {
		if h, err := b.b.Holder(ctx, "certificate-x"); h != nil || err != nil {
			b.Errorf("Holder of a free lease: %v, %v", h, err)
		}
	}
	again, err := b.b.Try(ctx, "certificate-x")
	b.must(err)
	again.Release()
}

func waitEnds(b bench) {
	lease := b.acquire(b.a, "certificate-x")
	defer lease.Release()
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_, err := b.b.Acquire(ctx, "certificate-x")
	if !errors.Is(err, context.Canceled) || !isHeld(err) {
		b.Errorf("Acquire under a cancelled context: %v", err)
	}
}

func released(b bench) {
	lease := b.acquire(b.a, "certificate-x")
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(b.Context(), b.patience)
		defer cancel()
		next, err := b.b.Acquire(ctx, "certificate-x")
		if err == nil {
			next.Release()
		}
		got <- err
	}()
	time.Sleep(10 * time.Millisecond) // mostly it waits by then
	select {
	case err := <-got:
		b.Errorf("two hold it: %v", err)
	default:
		lease.Release()
		if err := <-got; err != nil {
			b.Errorf("Acquire after its release: %v", err)
		}
	}
	lease.Release() // again does nothing
	again, err := b.b.Try(b.Context(), "certificate-x")
	b.must(err)
	again.Release()
}

func writesThrough(b bench) {
	ctx := b.Context()
	lease := b.acquire(b.a, "certificate-x")
	defer lease.Release()
	b.must(lease.Save(ctx, "states/x", []byte("durable")))
	b.has("states/x", "durable")
	b.must(lease.SaveLazily(ctx, "states/x", []byte("lazy")))
	b.has("states/x", "lazy")
	b.must(lease.Delete(ctx, "states/x"))
	b.isAbsent("states/x")
	b.must(lease.Delete(ctx, "states/x"))
}

// refuses checks that no write through a lease has an effect. states/x holds "before".
func (b bench) refuses(lease store.Lease) {
	b.Helper()
	ctx := b.Context()
	for op, err := range map[string]error{
		"Save":       lease.Save(ctx, "states/x", []byte("stale")),
		"SaveLazily": lease.SaveLazily(ctx, "states/x", []byte("stale")),
		"Delete":     lease.Delete(ctx, "states/x"),
		"a new one":  lease.Save(ctx, "states/new", []byte("stale")),
	} {
		if !errors.Is(err, store.ErrLost) {
			b.Errorf("%s through a lease that has ended: %v, want ErrLost", op, err)
		}
	}
	if lease.Context().Err() == nil {
		b.Error("writes are refused, and the context goes on")
	}
	b.has("states/x", "before")
	b.isAbsent("states/new")
}

// ended checks that the context of a lease ends, and why.
func (b bench) ended(lease store.Lease) {
	b.Helper()
	within, cancel := store.Within(b.Context(), lease)
	defer cancel()
	for _, ctx := range []context.Context{lease.Context(), within} {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, store.ErrLost) {
				b.Errorf("the context ended with %v, want ErrLost", err)
			}
		case <-time.After(b.patience):
			b.Error("the context doesn't end")
		}
	}
}

func releasedRefuses(b bench) {
	b.must(b.a.Save(b.Context(), "states/x", []byte("before")))
	lease := b.acquire(b.a, "certificate-x")
	lease.Release()
	b.ended(lease)
	b.refuses(lease)
}

func lostEnds(b bench) {
	lease := b.acquire(b.a, "certificate-x")
	defer lease.Release()
	other := b.acquire(b.a, "certificate-y")
	defer other.Release()
	b.lose("certificate-x")
	b.ended(lease)
	if other.Context().Err() != nil {
		b.Error("another lease ended too")
	}
}

func staleRefused(b bench) {
	lease := b.acquire(b.a, "certificate-x")
	defer lease.Release()
	b.must(lease.Save(b.Context(), "states/x", []byte("before")))
	b.lose("certificate-x")
	b.refuses(lease) // at once, whether or not the context has ended
	next := b.acquire(b.b, "certificate-x")
	defer next.Release()
	b.refuses(lease)
	b.must(next.Save(b.Context(), "states/x", []byte("after")))
	b.has("states/x", "after")
}

func lostReleased(b bench) {
	lease := b.acquire(b.a, "certificate-x")
	b.lose("certificate-x")
	next := b.acquire(b.b, "certificate-x")
	defer next.Release()
	lease.Release()
	if again, err := b.a.Try(b.Context(), "certificate-x"); !isHeld(err) {
		b.Errorf("another has it beside its holder: %v", err)
		if err == nil {
			again.Release()
		}
	}
	b.must(next.Save(b.Context(), "states/x", nil))
}

// contend counts up under a lease, which only works for one at a time.
func contend(ctx context.Context, s Storage, times int) error {
	for range times {
		lease, err := s.Acquire(ctx, "counter")
		if err != nil {
			return err
		}
		data, err := s.Load(ctx, "counter")
		if err != nil && !errors.Is(err, store.ErrNotExist) {
			return err
		}
		n, _ := strconv.Atoi(string(data))
		time.Sleep(time.Millisecond) // time for another that has it too
		err = lease.SaveLazily(ctx, "counter", []byte(strconv.Itoa(n+1)))
		lease.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	contenders = 4
	turns      = 15
)

func neverTwo(b bench) {
	var all sync.WaitGroup
	for i := range contenders {
		all.Go(func() {
			if err := contend(b.Context(), []Storage{b.a, b.b}[i%2], turns); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	b.has("counter", strconv.Itoa(contenders*turns))
}

// whereVariable names the storage in the environment of a process that contends.
const whereVariable = "STORETEST_WHERE"

// Main runs the tests, or contends for a lease when Run has started the process for that.
func Main(m *testing.M, backend Backend) {
	where := os.Getenv(whereVariable)
	if where == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := backend.Open(where)
	if err == nil {
		err = contend(ctx, s, turns)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func neverTwoProcesses(b bench) {
	if b.alone {
		return
	}
	var all sync.WaitGroup
	for range contenders {
		all.Go(func() {
			process := exec.CommandContext(b.Context(), os.Args[0])
			process.Env = append(os.Environ(), whereVariable+"="+b.where)
			if out, err := process.CombinedOutput(); err != nil {
				b.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
	b.has("counter", strconv.Itoa(contenders*turns))
}

// watch returns what waits for the keys that a watch of handle b is to give.
func (b bench) watch(prefix string) (await func(keys ...string)) {
	b.Helper()
	changes, err := b.b.Watch(b.Context(), prefix)
	b.must(err)
	return func(keys ...string) {
		b.Helper()
		missing := map[string]bool{}
		for _, key := range keys {
			missing[key] = true
		}
		timeout := time.After(b.patience)
		for len(missing) > 0 {
			select {
			case list, ok := <-changes:
				if !ok {
					b.Fatal("the watch ended")
				}
				for _, key := range list {
					if key != prefix && !strings.HasPrefix(key, prefix+"/") {
						b.Errorf("the watch of %s gave %s", prefix, key)
					}
					delete(missing, key)
				}
			case <-timeout:
				b.Fatalf("the watch never gave %d of %d keys", len(missing), len(keys))
			}
		}
	}
}

func watchEach(b bench) {
	ctx := b.Context()
	b.must(b.a.Save(ctx, "states/old", []byte("x")))
	await := b.watch("states")
	for range 2 {
		b.must(b.a.Save(ctx, "states/x", []byte("created")))
		await("states/x")
		b.must(b.a.Save(ctx, "states/x", []byte("replaced")))
		await("states/x")
		b.must(b.a.SaveLazily(ctx, "states/x", []byte("replaced"))) // by the same
		await("states/x")
		b.must(b.a.Delete(ctx, "states/x"))
		await("states/x")
	}
	b.must(b.a.Delete(ctx, "states/old"))
	await("states/old")
	b.must(b.a.Save(ctx, "states/new/deep/x", []byte("x")))
	await("states/new/deep/x")
	b.must(b.a.Save(ctx, "states/new/deep/y", []byte("x")))
	await("states/new/deep/y")
}

// watchBurst changes 1,000 objects while nobody takes what the watch gives.
func watchBurst(b bench) {
	await := b.watch("states")
	var keys []string
	for i := range 1000 {
		key := fmt.Sprintf("states/%d/%d", i%7, i)
		keys = append(keys, key)
		b.must(b.a.SaveLazily(b.Context(), key, []byte("x")))
	}
	await(keys...)
	for _, key := range keys {
		b.must(b.a.Delete(b.Context(), key))
	}
	await(keys...)
}

func watchLease(b bench) {
	await := b.watch("states")
	lease := b.acquire(b.a, "certificate-x")
	defer lease.Release()
	b.must(lease.Save(b.Context(), "states/x", []byte("x")))
	await("states/x")
	b.must(lease.Delete(b.Context(), "states/x"))
	await("states/x")
}

func watchPrefix(b bench) {
	await := b.watch("states") // which complains of other keys
	for _, key := range []string{"statesmen/x", "bundles/states/x", "bundles/x", "states/x"} {
		b.must(b.a.Save(b.Context(), key, []byte("x")))
	}
	await("states/x")
}

func watchEnds(b bench) {
	ctx, cancel := context.WithCancel(b.Context())
	changes, err := b.b.Watch(ctx, "states")
	b.must(err)
	b.must(b.a.Save(b.Context(), "states/x", []byte("x")))
	cancel()
	timeout := time.After(b.patience)
	for {
		select {
		case _, ok := <-changes:
			if !ok {
				return
			}
		case <-timeout:
			b.Fatal("the channel isn't closed")
		}
		runtime.Gosched()
	}
}
