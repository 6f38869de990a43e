package lifecycle

import (
	"os"
	"strings"
	"testing"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/state"
	"autocertd/internal/testbed"
)

// limitedWorld is a world whose first CA has limits.
func limitedWorld(t *testing.T, limits string, cas ...testbed.CAConfig) *world {
	w := newWorld(t, cas...)
	w.caLines[0] = "[ca.one.limits]\n" + limits
	return w
}

// wants gives the certificate another hostname, below the same domain.
func (p *process) wants(hostname string) {
	p.certificate = `hostnames = ["` + hostname + `"]`
	p.reload()
}

// isHeld looks at the certificate, which has to be held, and at nobody's fault.
func (p *process) isHeld(reason string) Status {
	p.Helper()
	orders := p.cas[0].NewOrders()
	next := p.look()
	s := p.status()
	if s.Condition != OnHold || s.Held.CA != "one" || !strings.Contains(s.Held.Reason, reason) || s.Issue.Failures != 0 || p.Failing() != 0 {
		p.Fatalf("the status is %+v\n%s", s, p.logged)
	}
	if until := s.Held.Until; !until.After(time.Now()) || next.After(until) || !next.After(time.Now()) {
		p.Errorf("it is held until %s and looked at again at %s", until, next)
	}
	if now := p.cas[0].NewOrders(); now != orders {
		p.Errorf("%d orders were made", now-orders)
	}
	return s
}

func TestHeld(t *testing.T) {
	w := limitedWorld(t, `certificates_per_domain = "1 per 1h"`)
	p := w.start()
	p.look()
	p.wants("b.example.test")
	s := p.isHeld("the CA allows 1 certificates for example.test in 1h")
	if wait := time.Until(s.Held.Until); wait < 55*time.Minute || wait > time.Hour {
		t.Errorf("it is held for %s", wait)
	}
	if again := p.isHeld("example.test"); again.Held.Until.Sub(s.Held.Until).Abs() > time.Second || !again.Held.Since.Equal(s.Held.Since) {
		t.Errorf("held until %s since %s, and then until %s since %s", s.Held.Until, s.Held.Since, again.Held.Until, again.Held.Since)
	}
	if n := strings.Count(p.logged.String(), `msg="certificate held"`); n != 1 {
		t.Errorf("the log tells %d times that it is held", n)
	}

	// A person gets an answer, and no certificate either.
	for what, err := range map[string]error{"by hand": p.Retry(p.ctx, name), "forced": p.Renew(p.ctx, name)} {
		if err == nil || !strings.Contains(err.Error(), "CA one: held until 20") {
			t.Errorf("%s: %v", what, err)
		}
	}

	// The next process remembers, and so does one whose ledger was lost, or torn by a power loss.
	p.end()
	p = w.start()
	p.isHeld("example.test")
	ca := p.snapshot.Load().CAs["one"]
	ledger := w.path("state", "budgets", strings.TrimPrefix(state.LedgerLock(ca.Name, ca.Directory), "budget-")+".json")
	if err := os.Remove(ledger); err != nil {
		t.Fatal(err)
	}
	p.isHeld("example.test")
	if err := os.Truncate(ledger, 0); err != nil { // which was made anew
		t.Fatal(err)
	}
	p.isHeld("example.test")

	// Once there is room it is ordered.
	w.caLines[0] = ""
	p.reload()
	if items, err := p.Items(p.ctx); err != nil || len(items) != 1 || items[0].Due.After(time.Now()) {
		t.Errorf("after a reload it is looked at: %+v, %v", items, err)
	}
	p.look()
	if s := p.status(); s.Condition != Valid || s.held() {
		t.Errorf("the status is %+v", s)
	}
}

func (s Status) held() bool { return !s.Held.Until.IsZero() }

// TestRenewalsAreFree says which renewals don't count.
func TestRenewalsAreFree(t *testing.T) {
	tests := []struct {
		what   string
		limits string
		window [2]time.Duration // that the CA suggests
		chosen time.Duration    // when it was asked
		reason string           // "" when it isn't held
	}{
		{"in the window that the CA suggests", `certificates_per_set = "1 per 1h"`, [2]time.Duration{-time.Hour, time.Hour}, -3 * time.Hour, ""},
		{"after it", `certificates_per_set = "1 per 1h"`, [2]time.Duration{-2 * time.Hour, -time.Hour}, -3 * time.Hour, "exactly these hostnames"},
		{"after it, when the CA asks for it at once", `certificates_per_set = "1 per 1h"`, [2]time.Duration{-2 * time.Hour, -time.Hour}, 0, ""},
		{"after it, at a CA that counts only what is new", "orders = \"1 per 1h\"\nfree_renewals = true", [2]time.Duration{-2 * time.Hour, -time.Hour}, -3 * time.Hour, ""},
		{"after it, at a CA that counts all", `orders = "1 per 1h"`, [2]time.Duration{-2 * time.Hour, -time.Hour}, -3 * time.Hour, "orders of this account"},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			p := limitedWorld(t, tt.limits).start()
			p.look()
			p.suggest(tt.window[0], tt.window[1])
			p.edit(func(s *state.Certificate) { s.ARI.ChosenAt = time.Now().Add(tt.chosen) })
			if tt.reason != "" {
				p.isHeld(tt.reason)
				return
			}
			p.look()
			if n := p.cas[0].NewOrders(); n != 2 {
				t.Errorf("%d orders, want one more\n%s", n, p.logged)
			}
		})
	}
}

// TestHeldTriesTheNextCA: what one CA would refuse, another may give.
func TestHeldTriesTheNextCA(t *testing.T) {
	w := limitedWorld(t, `orders = "1 per 1h"`, testbed.CAConfig{}, testbed.CAConfig{})
	p := w.start()
	p.look()
	p.wants("b.example.test")
	p.look()
	if b, _ := p.bundle(); b.CA != "two" {
		t.Errorf("the certificate is from CA %s", b.CA)
	}
	if s := p.status(); s.Condition != Valid || s.held() || strings.Contains(p.logged.String(), "a CA failed") {
		t.Errorf("the status is %+v\n%s", s, p.logged)
	}
}

// TestFailedValidationsCount: a CA that looks at another DNS server finds nothing there, as often as it lets us try.
func TestFailedValidationsCount(t *testing.T) {
	w := limitedWorld(t, "failed_validations = \"2 per 1h\"\ncertificates_per_domain = \"2 per 1h\"")
	elsewhere, err := testbed.StartDNS(testbed.DNSConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = elsewhere.Close() })
	if w.cas[0], err = testbed.StartCA(testbed.CAConfig{DNS: elsewhere.Addr()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cas[0].Close() })
	w.write("one.pem", w.cas[0].TLSRootsPEM())
	p := w.start()
	for range 2 {
		if err := p.Renew(p.ctx, name); err == nil || !strings.Contains(err.Error(), "validation failed") {
			t.Fatalf("%v, want a failed validation", err)
		}
	}
	if err := p.Renew(p.ctx, name); err == nil || !strings.Contains(err.Error(), "the CA allows 2 failed validations of a.example.test in 1h") {
		t.Errorf("the third time: %v", err)
	}
	if n := w.cas[0].NewOrders(); n != 2 {
		t.Errorf("%d orders, want 2", n)
	}
	// No certificate came of it, so none is counted.
	ca := p.snapshot.Load().CAs["one"]
	ledger, _, err := loadLedger(p.ctx, p.store, ca)
	if err != nil || ledger.Left("domain example.test", time.Now()) != 2 || ledger.Left("failures a.example.test", time.Now()) != 0 {
		t.Errorf("the ledger is %+v (%v)", ledger, err)
	}
}

// TestOrdersOfTheDead: what a killed process had sent counts, though it never heard the answer. What another process has under
// way isn't counted as sent before its lease ends.
func TestOrdersOfTheDead(t *testing.T) {
	w := limitedWorld(t, `orders = "1 per 1h"`)
	p := w.start()
	p.lost.Die()
	other := w.start()
	ca := other.snapshot.Load().CAs["one"]
	working, err := other.store.Acquire(other.ctx, state.Lock("works"))
	if err != nil {
		t.Fatal(err)
	}
	defer working.Release()
	left := func() (running int, orders int) {
		t.Helper()
		err := other.ledgers.of(ca).change(other.ctx, ca, func(l *budget.Ledger, now time.Time) bool {
			running, orders = len(l.Running), l.Left("orders", now)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return running, orders
	}
	for _, run := range []budget.Running{
		{ID: "of a process that died", Lease: state.Lock("died"), Since: time.Now(), Keys: []budget.Key{"orders"}},
		{ID: "of an earlier version", Since: time.Now(), Keys: []budget.Key{"orders"}},
		{ID: "of a process that works", Lease: state.Lock("works"), Since: time.Now(), Keys: []budget.Key{"orders"}},
	} {
		err := other.ledgers.of(ca).change(other.ctx, ca, func(l *budget.Ledger, _ time.Time) bool {
			*l = budget.Ledger{Limits: l.Limits, Running: []budget.Running{run}}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		other.isHeld("orders of this account")
		works := run.Lease == state.Lock("works")
		if running, orders := left(); (running == 1) != works || (orders == 1) != works { // one under way isn't taken yet
			t.Errorf("%s: %d under way, %d orders left", run.ID, running, orders)
		}
	}
	working.Release()
	if running, orders := left(); running != 0 || orders != 0 {
		t.Errorf("after its end: %d under way, %d orders left", running, orders)
	}
}
