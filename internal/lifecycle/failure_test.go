package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/internal/testbed"
)

// moody is a CA that can have a bad day: while Status isn't zero, it answers new orders with it.
type moody struct {
	Status     atomic.Int32
	RetryAfter string
	asked      atomic.Int32 // for new orders
}

func (m *moody) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/order-plz" {
			m.asked.Add(1)
			if status := int(m.Status.Load()); status != 0 {
				rw.Header().Set("Content-Type", "application/problem+json")
				rw.Header().Set("Retry-After", m.RetryAfter)
				rw.WriteHeader(status)
				fmt.Fprintf(rw, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"a bad day","status":%d}`, status)
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
}

func TestFailureIsRemembered(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	w.dns.OnUpdate(refuseAll)
	next := p.fails("REFUSED")
	first := p.status()
	if first.Condition != Failing || first.Issue.Failures != 1 || first.LastError() == "" || p.Failing() != 1 {
		t.Errorf("the status is %+v, and %d are failing", first, p.Failing())
	}
	if wait := first.Issue.RetryAt.Sub(first.Issue.At); wait < 48*time.Second || wait > 72*time.Second || !next.Equal(first.Issue.RetryAt) {
		t.Errorf("the next try is after %v, the next look at %v; want about a minute for both", wait, next)
	}

	p.end() // it may still withdraw what was refused
	w.dns.OnUpdate(nil)
	requests, updates := w.cas[0].Requests(), w.dns.Updates()
	p = w.start()
	_, err := p.Reconcile(p.ctx, name)
	var waiting *WaitingError
	if !errors.As(err, &waiting) || waiting.Last.Failures != 1 || !strings.Contains(err.Error(), first.Issue.Error) {
		t.Errorf("before the next try: %v, want a WaitingError that tells the failure", err)
	}
	if now := w.cas[0].Requests(); !mapsEqual(now, requests) || w.dns.Updates() != updates {
		t.Error("somebody was asked before the next try")
	}

	if err := p.Retry(p.ctx, name); err != nil { // a person doesn't wait
		t.Fatal(err)
	}
	if s := p.status(); s.Condition != Valid || s.Issue != (state.Trouble{}) || p.Failing() != 0 {
		t.Errorf("afterwards the status is %+v, and %d are failing", s, p.Failing())
	}
	if orders := w.cas[0].NewOrders(); orders != 1 {
		t.Errorf("%d orders, though the first could be resumed", orders)
	}
}

// TestReloadRetries mends what only a person can, and has the configuration read again.
func TestReloadRetries(t *testing.T) {
	w := newWorld(t)
	w.dns.OnUpdate(refuseAll)
	p := w.start()
	p.fails("REFUSED")
	w.dns.OnUpdate(nil)
	p.reload()
	if items, err := p.Items(p.ctx); err != nil || !items[0].Due.IsZero() {
		t.Errorf("it isn't looked at at once: %v, %v", items, err)
	}
	if _, err := p.Reconcile(p.ctx, name); err != nil {
		t.Error(err)
	}
	t.Run("not against the wish of a CA", func(t *testing.T) {
		m := &moody{RetryAfter: "3600"}
		m.Status.Store(http.StatusTooManyRequests)
		w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
		p := w.start()
		p.fails("a bad day")
		asked := m.asked.Load()
		p.reload()
		if items, err := p.Items(p.ctx); err != nil || items[0].Due.IsZero() {
			t.Errorf("it is looked at at once: %v, %v", items, err)
		}
		p.fails("next try at")
		if m.asked.Load() != asked {
			t.Error("the CA was asked")
		}
	})
}

// TestFailureByForceChangesNothing has a person renew a certificate that isn't due, which fails.
func TestFailureByForceChangesNothing(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	if _, err := p.Reconcile(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	before := p.status()
	w.dns.OnUpdate(refuseAll)
	if err := p.Renew(p.ctx, name); err == nil || !strings.Contains(err.Error(), "REFUSED") {
		t.Fatalf("got %v, want the failure", err)
	}
	if s := p.status(); s.Condition != Valid || s.Issue != (state.Trouble{}) || !s.RenewAt.Equal(before.RenewAt) || p.Failing() != 0 {
		t.Errorf("afterwards the status is %+v, and %d are failing", s, p.Failing())
	}
}

func TestFailuresAddUp(t *testing.T) {
	w := newWorld(t)
	w.dns.OnUpdate(refuseAll)
	p := w.start()
	for n, want := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour} {
		p.fails("")
		s := p.status()
		if wait := s.Issue.RetryAt.Sub(s.Issue.At); s.Issue.Failures != n+1 || wait < want*8/10 || wait > want*12/10 {
			t.Errorf("failure %d: the next try is after %v, want about %v", s.Issue.Failures, wait, want)
		}
		if most := time.Now().Add(2 * lookInterval); s.NextLook.After(most) {
			t.Errorf("failure %d: the next look is in %v", n+1, time.Until(s.NextLook))
		}
		p.retryNow()
	}
}

func TestWhatDoesNotWait(t *testing.T) {
	for _, tt := range []struct {
		what string
		try  func(p *process) error
	}{
		{"a changed wish", func(p *process) error {
			p.certificate = `hostnames = ["b.example.test"]`
			p.use()
			_, err := p.Reconcile(p.ctx, name)
			return err
		}},
		{"a person who forces it", func(p *process) error { return p.Renew(p.ctx, name) }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			m := &moody{RetryAfter: "3600"}
			m.Status.Store(http.StatusTooManyRequests)
			w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
			p := w.start()
			p.fails("a bad day")
			m.Status.Store(0)
			p.fails("next try at")
			if err := tt.try(p); err != nil {
				t.Error(err)
			}
			if s := p.status(); s.Condition != Valid {
				t.Errorf("the status is %+v", s)
			}
		})
	}
}

// TestAPersonAndTheCA: a person may overrule our own back-off, but what the CA asked for only by force.
func TestAPersonAndTheCA(t *testing.T) {
	m := &moody{RetryAfter: "3600"}
	m.Status.Store(http.StatusTooManyRequests)
	w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
	p := w.start()
	p.fails("a bad day")
	asked, before := m.asked.Load(), p.status().Issue
	var waiting *WaitingError
	if err := p.Retry(p.ctx, name); !errors.As(err, &waiting) || m.asked.Load() != asked {
		t.Errorf("the CA was asked %d times, then %d times: %v", asked, m.asked.Load(), err)
	}
	if now := p.status().Issue; now != before {
		t.Errorf("a try that asked nobody counts: %+v, then %+v", before, now)
	}
	p.edit(func(s *state.Certificate) { s.AskAfter["one"] = time.Now() })
	m.Status.Store(0)
	if err := p.Retry(p.ctx, name); err != nil {
		t.Error(err)
	}
	if err := p.Retry(p.ctx, name); err != nil || w.cas[0].NewOrders() != 1 {
		t.Errorf("%v, and %d orders, though nothing was due", err, w.cas[0].NewOrders())
	}
}

// TestRetryAfter says what is made of a CA's wish to be left alone.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		what, header string
		want         time.Duration
	}{
		{"an hour", "3600", time.Hour},
		{"as a date", time.Now().Add(3 * time.Hour).UTC().Format(http.TimeFormat), 3 * time.Hour},
		{"a week is the most that counts", "31536000", state.LongestWait},
		{"none", "", time.Minute},
	} {
		t.Run(tt.what, func(t *testing.T) {
			m := &moody{RetryAfter: tt.header}
			m.Status.Store(http.StatusTooManyRequests)
			w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
			p := w.start()
			begin := time.Now()
			p.fails("a bad day")
			s := p.status()
			if least, most := begin.Add(tt.want*8/10), time.Now().Add(tt.want*12/10); s.Issue.RetryAt.Before(least) || s.Issue.RetryAt.After(most) {
				t.Errorf("the next try is in %v, want %v", time.Until(s.Issue.RetryAt), tt.want)
			}
		})
	}
}

func TestSecondCA(t *testing.T) {
	bad := &moody{RetryAfter: "3600"}
	bad.Status.Store(http.StatusServiceUnavailable)
	w := newWorld(t, testbed.CAConfig{Wrap: bad.wrap}, testbed.CAConfig{})
	p := w.start()
	p.look()
	w.live(w.cas[1])
	if b, _ := p.bundle(); b.CA != "two" {
		t.Errorf("the certificate is from CA %s", b.CA)
	}
	if s := p.status(); s.Condition != Valid || s.Issue.Failures != 0 {
		t.Errorf("the status is %+v", s)
	}

	asked := bad.asked.Load()
	p.look() // a certificate of the second CA is as good
	if again := bad.asked.Load(); asked == 0 || again != asked {
		t.Errorf("the first CA was asked %d times, and then %d times", asked, again)
	}

	bad.Status.Store(0)
	p.end()
	p = w.start() // this one goes on leaving the first CA alone for a few seconds
	p.suggest(-2*time.Hour, -time.Hour)
	p.look()
	w.live(w.cas[0])
	if b, _ := p.bundle(); b.CA != "one" {
		t.Errorf("the renewal is from CA %s, want the first again", b.CA)
	}
	p.end()
	w.clean(p)
}

// TestEachCAHasItsMoment says that one CA's Retry-After neither keeps from asking the other nor is forgotten over it.
func TestEachCAHasItsMoment(t *testing.T) {
	patient, hasty := &moody{RetryAfter: "7200"}, &moody{}
	patient.Status.Store(http.StatusTooManyRequests)
	hasty.Status.Store(http.StatusTooManyRequests)
	w := newWorld(t, testbed.CAConfig{Wrap: patient.wrap}, testbed.CAConfig{Wrap: hasty.wrap})
	p := w.start()
	p.fails("a bad day")
	if s := p.status(); s.Issue.RetryAt.Sub(s.Issue.At) > 2*time.Minute {
		t.Errorf("the next try is after %v, though the second CA can be asked any time", s.Issue.RetryAt.Sub(s.Issue.At))
	}
	p.edit(func(s *state.Certificate) { s.Issue.RetryAt = time.Now() })
	p.fails("CA one: not asked again before")
	if one, two := patient.asked.Load(), hasty.asked.Load(); one != 1 || two != 2 {
		t.Errorf("the CAs were asked %d and %d times, want 1 and 2", one, two)
	}
}

// TestOwnFailureIsNoReasonForAnotherCA: what our own servers refuse, they refuse for every CA.
func TestOwnFailureIsNoReasonForAnotherCA(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, testbed.CAConfig{})
	w.dns.OnUpdate(refuseAll)
	w.start().fails("")
	if orders := w.cas[1].NewOrders(); orders != 0 {
		t.Errorf("%d orders at the second CA", orders)
	}
}

// TestDisk: a disk without room is told once, for all certificates, and those that it stopped are named when there is room.
func TestDisk(t *testing.T) {
	for _, tt := range []struct {
		what string
		err  error
		disk bool
	}{
		{"no room", syscall.ENOSPC, true},
		{"over the quota", syscall.EDQUOT, true},
		{"read-only", syscall.EROFS, true},
		{"another's file", syscall.EACCES, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			p := w.start()
			p.store.breaks(fault{Op: "SaveLazily", Always: true, Err: tt.err})
			begin := time.Now()
			for range 3 {
				if next := p.fails(tt.err.Error()); next.After(begin.Add(2 * time.Minute)) {
					t.Errorf("the next try is in %s", time.Until(next))
				}
			}
			if n := strings.Count(p.logged.String(), "level=ERROR"); n != 1 {
				t.Errorf("told %d times", n)
			}
			if _, err := p.DiskTrouble(); (err != nil) != tt.disk || len(p.TryDisk(p.ctx)) > 0 {
				t.Errorf("trouble of the disk: %v", err)
			}
			p.store.breaks(fault{})
			if stopped := p.TryDisk(p.ctx); tt.disk != slices.Equal(stopped, []string{name}) {
				t.Errorf("stopped %q", stopped)
			}
			if _, err := p.DiskTrouble(); err != nil {
				t.Errorf("there is room, and still %v", err)
			}
			p.look() // at once, without a wait for an earlier failure
		})
	}
}

// TestLedgerThatCannotBeRead holds nobody up.
func TestLedgerThatCannotBeRead(t *testing.T) {
	for _, broken := range []string{"budgets/", "bundles/other"} {
		w := newWorld(t)
		w.caLines[0] = "[ca.one.limits]\norders = \"10 per 3h\""
		p := w.start()
		if err := p.store.Save(p.ctx, "bundles/other.json", []byte("{}")); err != nil {
			t.Fatal(err)
		}
		p.store.breaks(fault{Op: "Load", Prefix: broken, Always: true})
		p.look()
		w.live(w.cas[0])
	}
}

// TestFullDisk: nobody is asked for what can't be remembered, and all goes on when there is room.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.store.breaks(fault{Op: "SaveLazily", Always: true})
	for range 3 {
		p.fails(errFault.Error())
	}
	if asked := w.cas[0].Requests(); len(asked) > 0 || p.Failing() != 1 {
		t.Errorf("the CA was asked %v; %d are failing", asked, p.Failing())
	}
	p.store.breaks(fault{})
	p.look()
	w.live(w.cas[0])
	if p.Failing() != 0 {
		t.Error("it still counts as failing")
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	ctx, cancel := context.WithCancel(p.ctx)
	w.dns.OnUpdate(func(*dns.Msg) (int, bool) { // the order is made, the records are on their way
		cancel()
		return dns.RcodeSuccess, true
	})
	if next, err := p.Reconcile(ctx, name); !errors.Is(err, context.Canceled) || !next.IsZero() {
		t.Errorf("told to stop, it returns %v, %v", next, err)
	}
	w.dns.OnUpdate(nil)
	if s := p.status(); s.Issue.Failures != 0 || p.Failing() != 0 {
		t.Errorf("told to stop, it counts as a failure: %+v", s)
	}
	if log := p.logged.String(); strings.Contains(log, "certificate not") {
		t.Errorf("told to stop, it logs a failure:\n%s", log)
	}
	p.end()
	p = w.start()
	if items, err := p.Items(t.Context()); err != nil || !items[0].Due.IsZero() {
		t.Errorf("items are %v, %v; want a look at once", items, err)
	}
	p.look()
	if orders := w.cas[0].NewOrders(); orders != 1 {
		t.Errorf("%d orders, though the first could be resumed", orders)
	}
	p.end()
	w.clean(p)
}

func TestLockedByAnother(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	other, err := files.Open(w.path("state"), "another")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := other.Try(t.Context(), state.Lock(name))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if next := p.look(); next.Before(begin.Add(lockedRetry)) || next.After(time.Now().Add(lockedRetry)) {
		t.Errorf("the next look is in %v, want %v", time.Until(next), lockedRetry)
	}
	if wrote := p.store.written(); len(wrote) > 0 || len(w.cas[0].Requests()) > 0 {
		t.Errorf("without the lock it wrote %v, and asked the CA %v", wrote, w.cas[0].Requests())
	}

	var released atomic.Bool
	waiting := w.startWith(Config{Wait: true}, &losing{})
	waiting.store.Locking = func(lock string) {
		if lock != state.Lock(name) {
			return
		}
		go func() {
			released.Store(true)
			lease.Release()
		}()
	}
	waiting.store.OnLoad = func(key string) {
		if !released.Load() {
			t.Errorf("%s was loaded before the other released the lock", key)
		}
		for _, lock := range []string{state.Lock(name), state.DeploymentLock(state.LocalNode, name)} {
			var held *store.HeldError
			lease, err := other.Try(t.Context(), lock)
			if errors.As(err, &held) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			lease.Release()
		}
		t.Errorf("%s was loaded without the lock", key)
	}
	waiting.look()
	w.live(w.cas[0])
}

func TestDeploymentFails(t *testing.T) {
	w := newWorld(t)
	w.tables = fmt.Sprintf("[[output]]\nmatch = [\"*\"]\ndir = %q\n", w.path("out", "{name}"))
	w.write("out", nil) // a file where the folder should be
	p := w.start()
	p.fails("out")
	s := p.status()
	if s.Condition != NotDeployed || s.Issue.Failures != 0 || s.Deploy.Failures != 1 || len(s.Pending) != 1 || p.Failing() != 1 {
		t.Errorf("the status is %+v", s)
	}
	if s.Deploy.RetryAt.Sub(s.Deploy.At) > 72*time.Second || !s.NextLook.Equal(s.Deploy.RetryAt) {
		t.Errorf("the next try is at %v and the next look at %v", s.Deploy.RetryAt, s.NextLook)
	}
	for range 4 {
		p.fails("out")
	}
	if s := p.status(); s.Deploy.RetryAt.Sub(s.Deploy.At) > lookInterval {
		t.Errorf("after %d failures the next try is in %v, though every look tries", s.Deploy.Failures, s.Deploy.RetryAt.Sub(s.Deploy.At))
	}
	if err := os.Remove(w.path("out")); err != nil {
		t.Fatal(err)
	}
	p.look()
	if s := p.status(); s.Condition != Valid || s.Deploy != (state.Trouble{}) || len(s.Pending) != 0 || p.Failing() != 0 {
		t.Errorf("then the status is %+v", s)
	}
	if _, err := os.Stat(w.path("out", name, "privkey.pem")); err != nil {
		t.Error(err)
	}
	if orders := w.cas[0].NewOrders(); orders != 1 {
		t.Errorf("%d orders", orders)
	}
}

// TestCommandIsRunUntilItSucceeds: files that are in place are no reason to forget whom they are for.
func TestCommandIsRunUntilItSucceeds(t *testing.T) {
	w := newWorld(t)
	program := w.path("push")
	w.tables = fmt.Sprintf("[[output]]\nmatch = [\"*\"]\ndir = %q\nrun = [[%q]]\n", w.path("out", "{name}"), program)
	w.start().fails("push")
	p := w.start() // the process that knew has died
	p.fails("push")
	if err := os.Symlink("/bin/true", program); err != nil {
		t.Fatal(err)
	}
	p.look()
	if s := p.status(); s.Condition != Valid || len(s.Pending) != 0 {
		t.Errorf("the status is %+v", s)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	w.start().look() // and not once more
}

func TestDriftIsPutRight(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	_, leaf := p.bundle()
	for _, tt := range []struct {
		what  string
		drift func(path string) error
	}{
		{"another content", func(path string) error { return os.WriteFile(path, []byte("else"), 0o600) }},
		{"another mode", func(path string) error { return os.Chmod(path, 0o666) }},
		{"removed", os.Remove},
	} {
		for _, file := range []string{"privkey.pem", "fullchain.pem"} {
			path := w.path("state", "live", name, file)
			if err := tt.drift(path); err != nil {
				t.Fatal(err)
			}
			p.look()
			if live := w.live(w.cas[0]); !live.Equal(leaf) {
				t.Errorf("%s, %s: another certificate", file, tt.what)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() == 0o666 {
				t.Errorf("%s, %s: %v, %v", file, tt.what, info, err)
			}
		}
	}
	if orders := w.cas[0].NewOrders(); orders != 1 {
		t.Errorf("%d orders", orders)
	}
}
