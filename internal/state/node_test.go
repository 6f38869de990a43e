package state_test

import (
	"context"
	"testing"
	"time"

	"autocertd/internal/state"
)

// TestRunningDaemon: whether a daemon runs is known by its lease, and not by what it left.
func TestRunningDaemon(t *testing.T) {
	s := open(t)
	if d := state.RunningDaemon(t.Context(), s); d != nil {
		t.Errorf("before the first daemon there is %+v", d)
	}
	lease, err := s.Try(t.Context(), state.DaemonLock)
	must(t, err)
	must(t, state.SaveDaemon(t.Context(), s, state.Daemon{PID: 1 << 30, StateError: "a long text"}))
	must(t, state.OverwriteDaemon(s, state.Daemon{PID: 1 << 30}))
	if d := state.RunningDaemon(t.Context(), s); d == nil || d.PID != 1<<30 || d.StateError != "" {
		t.Errorf("while it holds the lease: %+v", d)
	}
	lease.Release()
	if d := state.RunningDaemon(t.Context(), s); d != nil {
		t.Errorf("after its end: %+v", d)
	}
}

// TestConfiguration replaces what earlier versions kept of it.
func TestConfiguration(t *testing.T) {
	s := open(t)
	for _, key := range []string{"handwork.json", "roster.json", "sources.json"} {
		must(t, s.Save(t.Context(), key, []byte(`[]`)))
	}
	must(t, state.SaveConfiguration(t.Context(), s, state.Configuration{Files: []byte(`[1]`), Certificates: []state.Configured{{Name: name}}}))
	c, err := state.LoadConfiguration(t.Context(), s)
	must(t, err)
	if string(c.Files) != "[1]" || len(c.Certificates) != 1 || c.Certificates[0].Name != name {
		t.Errorf("loaded: %+v", c)
	}
	for _, key := range []string{"handwork.json", "roster.json", "sources.json"} {
		if _, err := s.Load(t.Context(), key); err == nil {
			t.Errorf("%s is left", key)
		}
	}
}

// TestWatch sees facts, bundles and the deployments of one host.
func TestWatch(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := state.Watch(ctx, s, state.LocalNode)
	must(t, err)
	await := func(want state.Change) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			select {
			case list := <-changes:
				for _, c := range list {
					if c == want {
						return
					}
					if c.Name == "elsewhere" {
						t.Errorf("saw %+v", c)
					}
				}
			case <-timeout:
				t.Fatalf("never saw %+v", want)
			}
		}
	}
	must(t, state.Save(t.Context(), s, &state.Certificate{Name: "facts"}))
	await(state.Change{Name: "facts"})
	must(t, s.Save(t.Context(), "bundles/bundle.json", []byte("{}")))
	await(state.Change{Name: "bundle"})
	must(t, state.SaveDeployment(t.Context(), s, "another", &state.Deployment{Name: "elsewhere"}))
	must(t, state.SaveDeployment(t.Context(), s, state.LocalNode, &state.Deployment{Name: "files"}))
	await(state.Change{Name: "files", Here: true})
	cancel()
	for range changes {
	}
}
