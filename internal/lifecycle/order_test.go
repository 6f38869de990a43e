package lifecycle

import (
	"errors"
	"fmt"
	"testing"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/issuer"
)

// TestDropServed drops an order whose certificate is saved, with the key that it holds, and no other.
func TestDropServed(t *testing.T) {
	dir, err := files.Open(t.TempDir(), "autocertd test")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, order, bundle string
		held, dropped       bool
	}{
		{"served", `{"URL":"https://ca/1","Key":"secret"}`, `{"Order":"https://ca/1"}`, false, true},
		{"another-order", `{"URL":"https://ca/2"}`, `{"Order":"https://ca/1"}`, false, false},
		{"no-bundle", `{"URL":"https://ca/1"}`, "", false, false},
		{"worked-on", `{"URL":"https://ca/1"}`, `{"Order":"https://ca/1"}`, true, false},
		{"unreadable", `{`, `{"Order":"https://ca/1"}`, false, false},
		{"unreadable-bundle", `{"URL":"https://ca/1"}`, `{`, false, false},
	}
	for _, tt := range tests {
		err = errors.Join(err, dir.Save(t.Context(), state.OrderKey("ca", tt.name), []byte(tt.order)))
		if tt.bundle != "" {
			err = errors.Join(err, dir.Save(t.Context(), "bundles/"+tt.name+".json", []byte(tt.bundle)))
		}
		if tt.held {
			lease, lerr := dir.Acquire(t.Context(), state.Lock(tt.name))
			if lerr != nil {
				t.Fatal(lerr)
			}
			defer lease.Release()
		}
	}
	if err := errors.Join(err, state.DropServed(t.Context(), dir)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		_, err := dir.Load(t.Context(), state.OrderKey("ca", tt.name))
		if dropped := errors.Is(err, store.ErrNotExist); dropped != tt.dropped {
			t.Errorf("%s: dropped is %t (%v), want %t", tt.name, dropped, err, tt.dropped)
		}
	}
	if hostnames, err := state.OpenHostnames(t.Context(), dir); err != nil || fmt.Sprint(hostnames) != "[]" {
		t.Errorf("%q, %v", hostnames, err)
	}
}

// TestForcedOrder: who insists isn't kept waiting by an order that came to nothing before, and goes on with any other.
func TestForcedOrder(t *testing.T) {
	store, err := files.Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	keep := state.KeepOrder(store, "one", "web")
	for _, tt := range []struct {
		name   string
		open   issuer.OpenOrder
		insist Insistence
		goesOn bool
	}{
		{"on schedule", issuer.OpenOrder{URL: "https://ca/1", Failures: 1}, onSchedule, true},
		{"a person asks", issuer.OpenOrder{URL: "https://ca/1", Failures: 1}, byHand, true},
		{"a person insists", issuer.OpenOrder{URL: "https://ca/1"}, forced, true},
		{"a person insists after a failure", issuer.OpenOrder{URL: "https://ca/1", Failures: 1}, forced, false},
		{"a person insists after a long wait", issuer.OpenOrder{URL: "https://ca/1", Waited: true}, forced, false},
	} {
		if err := keep.Keep(t.Context(), tt.open); err != nil {
			t.Fatal(err)
		}
		j := &job{Manager: New(Config{Storage: store}), cert: config.Certificate{Name: "web", CAs: []string{"one"}}, insist: tt.insist}
		if err := j.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		if goesOn := j.openOrder("one") != nil; goesOn != tt.goesOn {
			t.Errorf("%s: goes on with the order: %t, want %t", tt.name, goesOn, tt.goesOn)
		}
	}
}
