package lifecycle

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/testbed"
)

// mood is a CA that answers some requests in its own way.
type mood struct {
	mu sync.Mutex
	// Refuse returns a problem document for a request, "" to let it go on to the CA.
	Refuse func(path string) (status int, problem, retryAfter string)
	// Edit may change a reply.
	Edit  func(path string, body map[string]any)
	Asked map[string]int // by the first part of the path
}

func (m *mood) wrap(next http.Handler) http.Handler {
	m.Asked = map[string]int{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.Asked[strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")[0]]++
		if m.Refuse != nil {
			if status, problem, retryAfter := m.Refuse(r.URL.Path); status != 0 {
				w.Header().Set("Content-Type", "application/problem+json")
				if retryAfter != "" {
					w.Header().Set("Retry-After", retryAfter)
				}
				w.WriteHeader(status)
				fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:%s","detail":"a bad day"}`, problem)
				return
			}
		}
		reply := httptest.NewRecorder()
		next.ServeHTTP(reply, r)
		body := reply.Body.Bytes()
		var fields map[string]any
		if m.Edit != nil && json.Unmarshal(body, &fields) == nil {
			m.Edit(r.URL.Path, fields)
			body, _ = json.Marshal(fields) // it was JSON
		}
		maps.Copy(w.Header(), reply.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(reply.Code)
		_, _ = w.Write(body) // a client that has gone needs nothing
	})
}

// change changes what the CA does.
func (m *mood) change(f func(m *mood)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// TestOutage: what gives no answer is waited for up to a quarter of an hour, however often it failed; what refuses isn't
// taken for an outage, and a CA that says when to come is asked then.
func TestOutage(t *testing.T) {
	unable := func(status int, retryAfter string) func(*process, *mood) {
		return func(_ *process, m *mood) {
			m.change(func(m *mood) {
				m.Refuse = func(path string) (int, string, string) {
					if path != "/order-plz" {
						return 0, "", ""
					}
					return status, "serverInternal", retryAfter
				}
			})
		}
	}
	for _, tt := range []struct {
		name        string
		trouble     func(*process, *mood)
		silent      string
		least, most time.Duration // until the next try, after five failures before
	}{
		{"the CA can't be reached", func(p *process, _ *mood) { p.cas[0].Close() }, "CA one", 12 * time.Minute, 15 * time.Minute},
		{"the CA is broken", unable(500, ""), "CA one", 12 * time.Minute, 15 * time.Minute},
		{"and says for how long", unable(500, "60"), "CA one", 59 * time.Second, time.Minute},
		{"unavailable for an hour", unable(503, "3600"), "CA one", 59 * time.Minute, time.Hour},
		{"the DNS server can't be reached", func(p *process, _ *mood) { p.dns.Close() }, "DNS example.test", 12 * time.Minute, 15 * time.Minute},
		{"the DNS server refuses", func(p *process, _ *mood) { p.dns.OnUpdate(refuseAll) }, "", 19 * time.Hour, 29 * time.Hour},
		{"the CA refuses", func(_ *process, m *mood) {
			m.change(func(m *mood) {
				m.Refuse = func(path string) (int, string, string) {
					if path != "/order-plz" {
						return 0, "", ""
					}
					return 400, "rejectedIdentifier", ""
				}
			})
		}, "", 19 * time.Hour, 29 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := &mood{}
			w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
			p := w.start()
			tt.trouble(p, m)
			p.edit(func(s *state.Certificate) {
				s.Wish = p.snapshot.Load().wish(p.cfg.Certificates[0])
				s.Issue = state.Trouble{Failures: 5, Error: "before", At: time.Now().Add(-time.Hour), RetryAt: time.Now().Add(-time.Second)}
			})
			p.fails("")
			s := p.status().Issue
			wait := s.RetryAt.Sub(s.At).Round(time.Second)
			if wait < tt.least || wait > tt.most || s.Silent != tt.silent {
				t.Errorf("the next try is in %s, waiting for %q; want %s to %s, %q\n%s", wait, s.Silent, tt.least, tt.most, tt.silent, s.Error)
			}
		})
	}
}

// TestAnswerWakes: the first certificate that a CA gives, or that a DNS server helps to, ends the wait of those that wait for
// that one alone.
func TestAnswerWakes(t *testing.T) {
	w := newWorld(t)
	w.tables = "[[certificate]]\nname = \"second\"\nhostnames = [\"b.example.test\"]\n[[certificate]]\nname = \"third\"\nhostnames = [\"c.example.test\"]\n"
	var woken []string
	p := w.startWith(Config{Wake: func(match func(string) bool) {
		for _, n := range []string{name, "second", "third"} {
			if match(n) {
				woken = append(woken, n)
			}
		}
	}}, &losing{})
	wait := func(n, silent string) {
		c := &state.Certificate{Name: n, Wish: p.snapshot.Load().wish(p.snapshot.Load().Certificates[n]),
			Issue: state.Trouble{Failures: 5, Error: "no answer", At: time.Now().Add(-time.Minute), RetryAt: time.Now().Add(time.Hour), Silent: silent}}
		if err := state.Save(p.ctx, p.store, c); err != nil {
			t.Fatal(err)
		}
	}
	wait("second", "CA one")
	wait("third", "CA two")
	if _, err := p.Items(p.ctx); err != nil { // as a start does
		t.Fatal(err)
	}
	if _, err := p.Reconcile(p.ctx, "second"); err == nil || w.cas[0].NewOrders() != 0 {
		t.Fatalf("before anybody has heard of the CA: %v, %d orders", err, w.cas[0].NewOrders())
	}
	p.look()
	if len(woken) != 1 || woken[0] != "second" {
		t.Errorf("woken: %v, want second", woken)
	}
	if _, err := p.Reconcile(p.ctx, "second"); err != nil {
		t.Errorf("the one that was woken: %v", err)
	}
	if _, err := p.Reconcile(p.ctx, "third"); err == nil {
		t.Error("one that waits for another CA is tried")
	}
	wait("third", "DNS example.test")
	if _, err := p.Items(p.ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Renew(p.ctx, "second"); err != nil || len(woken) != 2 || woken[1] != "third" {
		t.Errorf("%v; woken: %v, want third as well", err, woken)
	}
}

// TestCAAtWork: a certificate that the CA still makes is no failure, and comes of the same order.
func TestCAAtWork(t *testing.T) {
	m := &mood{Edit: func(path string, body map[string]any) {
		if strings.HasPrefix(path, "/my-order") || strings.HasPrefix(path, "/finalize-order") {
			body["status"] = "processing"
		}
	}}
	w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
	w.patience = 100 * time.Millisecond
	p := w.start()
	next := p.look()
	s := p.status()
	if s.Condition != AtWork || s.Issue != (state.Trouble{}) || p.Failing() != 0 || !strings.HasPrefix(s.LastError(), "the CA is still working on it; the same order is asked again at 20") {
		t.Errorf("the status is %+v, and %d are failing", s, p.Failing())
	}
	if wait := time.Until(next); wait < 50*time.Second || wait > time.Minute {
		t.Errorf("the order is asked again in %s", wait)
	}
	asked := m.Asked["my-order"]
	p.look()
	if m.Asked["my-order"] != asked {
		t.Error("it is asked before that")
	}
	if err := p.Retry(p.ctx, name); !Waits(err) || !strings.Contains(err.Error(), "CA one: the CA is still working on it; the same order is asked again at 20") {
		t.Errorf("a person hears %v", err)
	}
	m.change(func(m *mood) { m.Edit = nil })
	p.edit(func(s *state.Certificate) { s.Working.Again = time.Now() })
	p.look()
	if s := p.status(); s.Condition != Valid || s.Working.CA != "" || w.cas[0].NewOrders() != 1 {
		t.Errorf("afterwards the status is %+v, with %d orders", s, w.cas[0].NewOrders())
	}
}

// TestAskOrderAt says how often an order is asked about that a CA works on.
func TestAskOrderAt(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name string
		took time.Duration
		wish time.Duration
		want time.Duration
	}{
		{"at first", 0, 0, time.Minute},
		{"after ten minutes", 10 * time.Minute, 0, 5 * time.Minute},
		{"after a day", 24 * time.Hour, 0, time.Hour},
		{"the CA says later", 0, 10 * time.Minute, 10 * time.Minute},
		{"the CA says sooner", 10 * time.Minute, time.Second, 5 * time.Minute},
		{"the CA says never", 0, 100000 * time.Hour, state.LongestWait},
	} {
		if got := askOrderAt(now, now.Add(-tt.took), now.Add(tt.wish)).Sub(now); got != tt.want {
			t.Errorf("%s: in %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestBlockedKey: a key that a CA takes no more is given up for a new one at once, and is never used again.
func TestBlockedKey(t *testing.T) {
	for _, tt := range []struct {
		name, problem string
		always        bool // it refuses new keys as well
		marked        bool
	}{
		{"blocked, as a bad CSR", "badCSR", false, true},
		{"blocked, as a bad key", "badPublicKey", false, true},
		{"a bad CSR whatever the key", "badCSR", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := &mood{}
			w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
			w.certificate += "\nreuse_key = true"
			p := w.start()
			p.look()
			before, leaf := p.bundle()
			refused := 0
			m.change(func(m *mood) {
				m.Refuse = func(path string) (int, string, string) {
					if !strings.HasPrefix(path, "/finalize-order") || refused > 0 && !tt.always {
						return 0, "", ""
					}
					refused++
					return 400, tt.problem, ""
				}
			})
			err := p.Renew(p.ctx, name)
			after, _ := p.bundle()
			if tt.always != (err != nil) || tt.always != (after.Key == before.Key) {
				t.Errorf("%v; the same key: %t", err, after.Key == before.Key)
			}
			if marked, err := state.IsCompromised(p.ctx, p.store, leaf.RawSubjectPublicKeyInfo); marked != tt.marked {
				t.Errorf("marked: %t, %v", marked, err)
			}
		})
	}
}

// TestBlockedKeyOfCSR names the cure, since only its owner can make another key.
func TestBlockedKeyOfCSR(t *testing.T) {
	m := &mood{Refuse: func(path string) (int, string, string) {
		if strings.HasPrefix(path, "/finalize-order") {
			return 400, "badCSR", ""
		}
		return 0, "", ""
	}}
	w := newWorld(t, testbed.CAConfig{Wrap: m.wrap})
	w.signRequest("web.csr", "a.example.test")
	w.certificate = `csr = "web.csr"`
	p := w.start()
	p.fails("make a new key, and a new CSR with it")
}

// TestRevoked: a certificate that we had revoked is called so until another one is there, which is ordered at once.
func TestRevoked(t *testing.T) {
	w := limitedWorld(t, `orders = "1 per 1h"`)
	p := w.start()
	p.look()
	_, leaf := p.bundle()
	names, err := state.MarkRevoked(p.ctx, p.store.Store, leaf, "superseded")
	if err != nil || len(names) != 1 || names[0] != name {
		t.Fatalf("%v, %v", names, err)
	}
	s := p.status()
	if s.Condition != Revoked || s.Leaf.Revoked.Reason != "superseded" || time.Since(s.Leaf.Revoked.At) > time.Minute || s.RenewAt.After(time.Now()) {
		t.Errorf("the status is %+v", s)
	}
	for _, want := range []string{"revoked at 20", "(superseded)", "another one is ordered at the next look"} {
		if !strings.Contains(s.LastError(), want) {
			t.Errorf("%q doesn't say %q", s.LastError(), want)
		}
	}
	if again, err := state.MarkRevoked(p.ctx, p.store.Store, leaf, "unspecified"); err != nil || len(again) != 0 {
		t.Errorf("once more: %v, %v", again, err)
	}
	p = w.start()
	p.look() // though the CA's limit is reached: it is in use
	if s := p.status(); s.Condition != Valid || !s.Leaf.Revoked.At.IsZero() || w.cas[0].NewOrders() != 2 {
		t.Errorf("afterwards the status is %+v, with %d orders\n%s", s, w.cas[0].NewOrders(), p.logged)
	}
	if !strings.Contains(p.logged.String(), `why="it was revoked (superseded)"`) {
		t.Errorf("the log doesn't say why\n%s", p.logged)
	}
	p.look()
	if n := w.cas[0].NewOrders(); n != 2 {
		t.Errorf("%d orders", n)
	}
}

// TestNamedIsAskedFor: who names a certificate gets what its CA wants now, though the CA was asked a while ago.
func TestNamedIsAskedFor(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	p.age(24 * time.Hour)
	p.answers(window(-2*time.Hour, -time.Hour))
	p.look()
	if err := p.Retry(p.ctx, name); err != nil || w.cas[0].NewOrders() != 1 {
		t.Fatalf("one among all: %v, %d orders", err, w.cas[0].NewOrders())
	}
	if err := p.RetryNamed(p.ctx, name); err != nil || w.cas[0].NewOrders() != 2 {
		t.Errorf("%v, %d orders\n%s", err, w.cas[0].NewOrders(), p.logged)
	}
	if err := p.RetryNamed(p.ctx, name); err != nil || w.cas[0].NewOrders() != 2 {
		t.Errorf("the next: %v, %d orders\n%s", err, w.cas[0].NewOrders(), p.logged)
	}
}

// TestForcedIsNotHeld: a renewal by force that finds no room leaves a valid certificate valid.
func TestForcedIsNotHeld(t *testing.T) {
	w := limitedWorld(t, `orders = "1 per 1h"`)
	p := w.start()
	p.look()
	if err := p.Renew(p.ctx, name); !Waits(err) {
		t.Errorf("%v, want that it is held", err)
	}
	if s := p.status(); s.Condition != Valid || s.held() {
		t.Errorf("the status is %+v", s)
	}
	if p.ledgers.of(p.snapshot.Load().CAs["one"]).queue.Len() != 0 {
		t.Error("it waits for room that it doesn't need")
	}
}

// left is how many tokens the ledger of the first CA has.
func (p *process) left(key budget.Key) int {
	p.Helper()
	ledger, _, err := loadLedger(p.ctx, p.store, p.snapshot.Load().CAs["one"])
	if err != nil {
		p.Fatal(err)
	}
	ledger.Advance(time.Now(), func(budget.Running) bool { return false }) // what has ended with a certificate is still noted as under way
	return ledger.Left(key, time.Now())
}

// TestLedgerCountsWhatTheCACounts compares the ledger with what a CA would have counted.
func TestLedgerCountsWhatTheCACounts(t *testing.T) {
	const limits = "orders = \"9 per 1h\"\ncertificates_per_domain = \"9 per 1h\"\nfailed_validations = \"9 per 1h\""
	t.Run("an order that fails at the CA is no certificate", func(t *testing.T) {
		failed := false
		m := &mood{Refuse: func(path string) (int, string, string) {
			if !strings.HasPrefix(path, "/finalize-order") {
				return 0, "", ""
			}
			failed = true
			return 500, "serverInternal", "60"
		}, Edit: func(path string, body map[string]any) {
			if failed && strings.HasPrefix(path, "/my-order") {
				body["status"], body["error"] = "invalid", map[string]any{"type": "urn:ietf:params:acme:error:serverInternal", "detail": "no SCT"}
			}
		}}
		p := limitedWorld(t, limits, testbed.CAConfig{Wrap: m.wrap}).start()
		p.fails("finalize: no SCT (serverInternal)")
		if orders, certificates := p.left("orders"), p.left("domain example.test"); orders != 8 || certificates != 9 {
			t.Errorf("%d orders and %d certificates are left, want 8 and 9", orders, certificates)
		}
		if s := p.status(); s.Issue.Silent != "CA one" {
			t.Errorf("it waits for %q", s.Issue.Silent)
		}
	})
	t.Run("nor is one that the CA gave up while nobody looked", func(t *testing.T) {
		bad := true
		m := &mood{Refuse: func(path string) (int, string, string) {
			if bad && (strings.HasPrefix(path, "/finalize-order") || strings.HasPrefix(path, "/my-order")) {
				return 500, "serverInternal", "60"
			}
			return 0, "", ""
		}}
		p := limitedWorld(t, limits, testbed.CAConfig{Wrap: m.wrap}).start()
		p.fails("a bad day")
		if certificates := p.left("domain example.test"); certificates != 8 {
			t.Errorf("%d certificates are left while the order is open, want 8", certificates)
		}
		first := true
		m.change(func(m *mood) {
			bad = false
			m.Edit = func(path string, body map[string]any) {
				if first && strings.HasPrefix(path, "/my-order") {
					first, body["status"] = false, "invalid"
				}
			}
		})
		p.retryNow()
		p.look()
		if orders, certificates := p.left("orders"), p.left("domain example.test"); orders != 7 || certificates != 8 {
			t.Errorf("%d orders and %d certificates are left, want 7 and 8\n%s", orders, certificates, p.logged)
		}
	})
	t.Run("each hostname that fails counts", func(t *testing.T) {
		m := &mood{Edit: func(path string, body map[string]any) {
			id, ok := body["identifier"].(map[string]any)
			if ok && id["value"] != "y.example.test" && body["status"] == "valid" {
				body["status"] = "invalid"
			}
		}}
		w := limitedWorld(t, limits, testbed.CAConfig{Wrap: m.wrap})
		w.certificate = `hostnames = ["x.example.test", "y.example.test", "*.z.example.test"]`
		p := w.start()
		p.fails("validation failed of 2 hostnames")
		for key, want := range map[budget.Key]int{"failures x.example.test": 8, "failures y.example.test": 9, "failures z.example.test": 8} {
			if got := p.left(key); got != want {
				t.Errorf("%s: %d left, want %d", key, got, want)
			}
		}
	})
	t.Run("a renewal that the CA doesn't take as one counts", func(t *testing.T) {
		m := &mood{}
		w := limitedWorld(t, limits, testbed.CAConfig{Wrap: m.wrap})
		p := w.start()
		p.look()
		p.suggest(-time.Hour, time.Hour)
		p.edit(func(s *state.Certificate) { s.ARI.ChosenAt = time.Now().Add(-3 * time.Hour) })
		p.look() // free
		if n := p.left("orders"); n != 8 {
			t.Errorf("%d orders are left after a free renewal, want 8", n)
		}
		p.suggest(-time.Hour, time.Hour)
		p.edit(func(s *state.Certificate) { s.ARI.ChosenAt = time.Now().Add(-3 * time.Hour) })
		refused := false
		m.change(func(m *mood) {
			m.Refuse = func(path string) (int, string, string) {
				if path != "/order-plz" || refused {
					return 0, "", ""
				}
				refused = true
				return 409, "alreadyReplaced", ""
			}
		})
		p.look()
		if n := p.left("orders"); n != 7 || w.cas[0].NewOrders() != 3 {
			t.Errorf("%d orders are left after one that wasn't free, want 7, with %d at the CA\n%s", n, w.cas[0].NewOrders(), p.logged)
		}
	})
}

// TestMostNames: more hostnames than a profile of a known CA allows are no order.
func TestMostNames(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	snapshot := *p.snapshot.Load()
	ca := snapshot.CAs["one"]
	ca.Directory, ca.Profile = "https://acme-v02.api.letsencrypt.org/directory", "shortlived"
	snapshot.CAs = maps.Clone(snapshot.CAs)
	snapshot.CAs["one"] = ca
	cert := snapshot.Certificates[name]
	for n := range 25 {
		cert.Hostnames = append(cert.Hostnames, fmt.Sprintf("n%d.example.test", n))
	}
	snapshot.Certificates = map[string]config.Certificate{name: cert}
	p.Use(&snapshot)
	p.fails("CA one: order: a certificate of this profile has at most 25 hostnames, not 26; divide them among several certificates")
	if n := w.cas[0].Requests()["newOrder"]; n != 0 {
		t.Errorf("%d orders were sent", n)
	}
}
