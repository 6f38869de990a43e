// Package storetest holds the promises that every storage makes, as one suite that each implementation runs. What
// only one of them promises is tested beside it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/store"
)

// Both is what a storage offers.
type Both interface {
	store.Store
	store.Locker
}

// Run holds a storage to its promises. open gives one more handle, as another process would have it, on the same
// storage, which is empty at the start of each test.
func Run(t *testing.T, open func(t *testing.T) func() Both) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, a, b Both)
	}{
		{"an object that isn't there", absent},
		{"an object is what was saved last", lastSaved},
		{"list gives the keys below a prefix", list},
		{"bad keys are refused", badKeys},
		{"readers never see a part", noParts},
		{"a lock has one holder", oneHolder},
		{"waiting for a lock ends with the context", waitEnds},
	} {
		t.Run(tt.name, func(t *testing.T) {
			handle := open(t)
			tt.test(t, handle(), handle())
		})
	}
}

func absent(t *testing.T, a, _ Both) {
	ctx := t.Context()
	if _, err := a.Load(ctx, "states/none"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("Load: %v, want ErrNotExist", err)
	}
	if err := a.Delete(ctx, "states/none"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if keys, err := a.List(ctx, "states"); err != nil || len(keys) != 0 {
		t.Errorf("List: %v, %v", keys, err)
	}
}

func lastSaved(t *testing.T, a, b Both) {
	ctx := t.Context()
	for _, save := range []func(context.Context, string, []byte) error{a.Save, b.SaveLazily, b.Save} {
		want := fmt.Sprint("content ", time.Now().UnixNano())
		if err := save(ctx, "bundles/www.example.test", []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := a.Load(ctx, "bundles/www.example.test"); err != nil || string(got) != want {
			t.Fatalf("Load: %q, %v; want %q", got, err, want)
		}
	}
	if err := a.Delete(ctx, "bundles/www.example.test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Load(ctx, "bundles/www.example.test"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("Load after Delete: %v, want ErrNotExist", err)
	}
}

func list(t *testing.T, a, b Both) {
	ctx := t.Context()
	for _, key := range []string{"journal/1/2", "journal/0/10", "journal/0/9", "journals/0/1", "states/a"} {
		if err := a.Save(ctx, key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"journal/0/10", "journal/0/9", "journal/1/2"}
	if got, err := b.List(ctx, "journal"); err != nil || !slices.Equal(got, want) {
		t.Errorf("List: %v, %v; want %v", got, err, want)
	}
}

func badKeys(t *testing.T, a, _ Both) {
	for _, key := range []string{"", "/", "../up", "a/../b", "a//b", ".hidden", "a/.b", `a\b`, "a b", "a\x00", "ä", strings.Repeat("n", 256)} {
		if err := a.Save(t.Context(), key, nil); err == nil {
			t.Errorf("Save took the key %q", key)
		}
	}
}

func noParts(t *testing.T, a, b Both) {
	ctx := t.Context()
	contents := [2]string{strings.Repeat("a", 50_000), strings.Repeat("b", 50_000)}
	if err := a.Save(ctx, "states/x", []byte(contents[0])); err != nil {
		t.Fatal(err)
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := range 100 {
			if err := a.SaveLazily(ctx, "states/x", []byte(contents[i%2])); err != nil {
				t.Error(err)
			}
		}
	})
	for range 100 {
		if got, err := b.Load(ctx, "states/x"); err != nil || !slices.Contains(contents[:], string(got)) {
			t.Errorf("Load gave %d bytes, %v", len(got), err)
			break
		}
	}
	writer.Wait()
}

func oneHolder(t *testing.T, a, b Both) {
	ctx := t.Context()
	unlock, err := a.TryLock(ctx, "certificate-x")
	if err != nil {
		t.Fatal(err)
	}
	var held *store.HeldError
	if _, err := b.TryLock(ctx, "certificate-x"); !errors.As(err, &held) || held.Holder.PID == 0 {
		t.Errorf("TryLock of a held lock: %v, want a HeldError that says who", err)
	}
	other, err := b.TryLock(ctx, "certificate-y")
	if err != nil {
		t.Errorf("another lock: %v", err)
	} else {
		other()
	}
	got := make(chan error)
	go func() {
		unlock, err := b.Lock(ctx, "certificate-x")
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Errorf("Lock after its release: %v", err)
	}
}

func waitEnds(t *testing.T, a, b Both) {
	unlock, err := a.Lock(t.Context(), "certificate-x")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Lock(ctx, "certificate-x"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock under a cancelled context: %v", err)
	}
}
