package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"autocertd/internal/event"
	"autocertd/internal/state"
	"autocertd/internal/store/storetest"
)

// host is a host with one output for all certificates, and the bundles of some.
type hostWorld struct {
	*Deployer
	store  *storetest.Memory
	runner *counter
	output Output
	log    *logged
}

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newHost(t *testing.T, c Config, names ...string) *hostWorld {
	t.Helper()
	h := &hostWorld{store: &storetest.Memory{}, runner: &counter{}, log: &logged{}}
	h.output = Output{Match: []string{"*"}, Dir: filepath.Join(t.TempDir(), "{name}"), Reload: []string{"nginx.service"}}
	c.Store, c.Run, c.Tell = h.store, h.runner, event.Log(slog.New(slog.NewTextHandler(h.log, nil)))
	h.Deployer = New(c)
	h.Use(Outputs{List: []Output{h.output}}, names)
	for _, name := range names {
		h.issue(t, name)
	}
	return h
}

// issue saves a new bundle.
func (h *hostWorld) issue(t *testing.T, name string) {
	t.Helper()
	b := newBundle(t, name)
	err := state.SaveBundle(t.Context(), h.store, &state.Bundle{Name: name, Hostnames: b.Hostnames, Key: string(b.Key), Leaf: string(b.Leaf), Chain: string(b.Chain)})
	if err != nil {
		t.Fatal(err)
	}
}

func (h *hostWorld) deployment(t *testing.T, name string) *state.Deployment {
	t.Helper()
	d, err := state.LoadDeployment(t.Context(), h.store, state.LocalNode, name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (h *hostWorld) file(name string) string { return filepath.Join(h.output.dir(name), "cert.pem") }

// TestReconcile deploys, fails, and gets over it, with what is kept and logged of that.
func TestReconcile(t *testing.T) {
	h := newHost(t, Config{}, "web")
	ctx := t.Context()
	h.runner.Fail = map[string]error{"nginx.service": errBroken}
	if _, err := h.Reconcile(ctx, "web"); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	d := h.deployment(t, "web")
	if d.Trouble.Failures != 1 || len(d.Pending) != 1 || !strings.Contains(d.Trouble.Error, "nginx.service") || len(h.Failing()) != 1 {
		t.Errorf("%+v, failing %v", d, h.Failing())
	}
	if wait := time.Until(d.Trouble.RetryAt); wait <= 0 || wait > longestRetry {
		t.Errorf("tried again in %v", wait)
	}
	h.runner.Fail = nil
	if changed, err := h.Reconcile(ctx, "web"); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if d := h.deployment(t, "web"); d.Trouble != (state.Trouble{}) || d.Pending != nil || len(h.Failing()) != 0 {
		t.Errorf("%+v, failing %v", d, h.Failing())
	}
	if changed, err := h.Reconcile(ctx, "web"); err != nil || changed {
		t.Errorf("at rest: %t, %v", changed, err)
	}
	if changed, err := h.Reconcile(ctx, "absent"); err != nil || changed {
		t.Errorf("without a bundle: %t, %v", changed, err)
	}
	if log := h.log.String(); strings.Count(log, "certificate deployed") != 1 || strings.Count(log, "certificate not deployed") != 1 {
		t.Errorf("the log is\n%s", log)
	}
}

// TestChanged has another process put right what failed here, and fail at what was right.
func TestChanged(t *testing.T) {
	h := newHost(t, Config{}, "web")
	h.runner.Fail = map[string]error{"nginx.service": errBroken}
	if _, err := h.Reconcile(t.Context(), "web"); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	d := h.deployment(t, "web")
	for _, failures := range []int{1, 0, 0, 2} {
		d.Trouble.Failures = failures
		if err := state.SaveDeployment(t.Context(), h.store, state.LocalNode, d); err != nil {
			t.Fatal(err)
		}
		h.Changed(t.Context(), []string{"web", "unknown"})
		if n := len(h.Failing()); n != min(failures, 1) {
			t.Errorf("after %d failures elsewhere, failing are %v", failures, h.Failing())
		}
	}
}

// TestReconcileLeased leaves a certificate alone that another process deploys.
func TestReconcileLeased(t *testing.T) {
	h := newHost(t, Config{}, "web")
	lease, err := h.store.Try(t.Context(), state.DeploymentLock(state.LocalNode, "web"))
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := h.Reconcile(t.Context(), "web"); changed || err != nil {
		t.Errorf("%t, %v", changed, err)
	}
	if _, err := os.Stat(h.file("web")); err == nil {
		t.Error("it was deployed beside another process")
	}
	lease.Release()
	if changed, err := h.Reconcile(t.Context(), "web"); !changed || err != nil {
		t.Errorf("%t, %v", changed, err)
	}
}

// TestEarlierDeployment has the object of an earlier version, which is taken over without a reload.
func TestEarlierDeployment(t *testing.T) {
	h := newHost(t, Config{}, "web")
	if _, err := h.Reconcile(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	bundle, leaf, err := state.LoadBundle(t.Context(), h.store, "web")
	if err != nil {
		t.Fatal(err)
	}
	earlier, err := json.Marshal(map[string]any{"name": "web", "outputs": map[string]string{
		h.output.ID("web"): wholeMark(h.output, bundleOf(bundle, bundle.Describe(leaf)))}})
	if err != nil {
		t.Fatal(err)
	}
	h.runner.taken()
	err = errors.Join(h.store.Delete(t.Context(), "deployments/local/web.json"), h.store.Save(t.Context(), "states/web.json", earlier))
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := h.Reconcile(t.Context(), "web"); changed || err != nil || len(h.runner.taken()) > 0 {
		t.Errorf("%t, %v", changed, err)
	}
	if data, err := h.store.Load(t.Context(), "deployments/local/web.json"); err != nil || !strings.Contains(string(data), "steps") {
		t.Errorf("%s, %v", data, err)
	}
}

// TestBlind runs where the kernel reports no change: what is deleted or changed is back within a minute all the same.
func TestBlind(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("h%d", i))
	}
	h := newHost(t, Config{Blind: true}, names...)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		all := func(what string) {
			t.Helper()
			for _, name := range names {
				if st, err := os.Stat(h.file(name)); err != nil || st.Size() < 100 {
					t.Fatalf("%s: %v", what, err)
				}
			}
		}
		time.Sleep(time.Minute)
		all("after the start")
		h.runner.taken()
		for _, harm := range []func() error{
			func() error { return os.Remove(h.file("h7")) },
			func() error { return os.Truncate(h.file("h7"), 3) },
			func() error { return os.RemoveAll(h.output.dir("h99")) },
		} {
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			all("after a change")
		}
		if got := h.runner.taken(); len(got) != 3 {
			t.Errorf("ran %q", got)
		}
		time.Sleep(2 * time.Hour)
		if got := h.runner.taken(); len(got) != 0 {
			t.Errorf("at rest it ran %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestDispute has somebody who changes a file each minute: services aren't reloaded for ever at that rate.
func TestDispute(t *testing.T) {
	h := newHost(t, Config{Blind: true}, "web")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		for range 24 * 60 {
			time.Sleep(time.Minute)
			_ = os.Remove(h.file("web")) // it may be away still
		}
		if n := len(h.runner.taken()); n < 24 || n > 40 {
			t.Errorf("%d reloads in a day", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFailingIsForgotten has what failed here put right elsewhere, unseen by a watch of the store, or leave the configuration.
func TestFailingIsForgotten(t *testing.T) {
	h := newHost(t, Config{Blind: true}, "gone", "web")
	h.runner.Fail = map[string]error{"nginx.service": errBroken}
	for _, name := range []string{"gone", "web"} {
		if _, err := h.Reconcile(t.Context(), name); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
	}
	h.Use(Outputs{List: []Output{h.output}}, []string{"web"})
	if failing := h.Failing(); !slices.Equal(failing, []string{"web"}) {
		t.Errorf("without one of them in the configuration, failing are %v", failing)
	}
	h.runner.Fail = nil
	other := New(Config{Store: h.store, Run: h.runner})
	other.Use(Outputs{List: []Output{h.output}}, []string{"web"})
	if _, err := other.Reconcile(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(time.Minute)
		if n := len(h.runner.taken()); n != 1+2 || len(h.Failing()) != 0 {
			t.Errorf("%d reloads, failing %v", n, h.Failing())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestRetryBySelf has a reload that fails for a while, and nobody who calls Reconcile.
func TestRetryBySelf(t *testing.T) {
	h := newHost(t, Config{Blind: true}, "web")
	h.runner.Fail = map[string]error{"nginx.service": errBroken}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(2 * time.Hour)
		if n := len(h.runner.taken()); n < 3 || n > 6 || len(h.Failing()) != 1 {
			t.Errorf("%d tries, failing %v", n, h.Failing())
		}
		h.runner.mu.Lock()
		h.runner.Fail = nil
		h.runner.mu.Unlock()
		h.Use(Outputs{List: []Output{h.output}}, []string{"web"}) // as after a reload: somebody may have removed the cause
		time.Sleep(time.Minute)
		if n := len(h.runner.taken()); n != 1 || len(h.Failing()) != 0 {
			t.Errorf("%d tries, failing %v", n, h.Failing())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
