package lifecycle

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// TestDecide says what is done about a certificate of ninety days that was issued forty days ago, unless a row says otherwise.
// Its renewal is due on the sixtieth day.
func TestDecide(t *testing.T) {
	now := time.Date(2026, 6, 3, 12, 0, 0, 0, time.UTC) // a Wednesday
	day := 24 * time.Hour
	in := func(d time.Duration) time.Time { return now.Add(d) }
	issuers := map[string]*issuer.Issuer{}
	cas := map[string]config.CA{}
	for _, ca := range []string{"one", "two"} {
		directory := "https://" + ca + ".test/dir"
		cas[ca] = config.CA{Name: ca, Directory: directory}
		var err error
		if issuers[ca], err = issuer.New(issuer.Config{Name: ca, Directory: directory}); err != nil {
			t.Fatal(err)
		}
	}
	sunday, err := scheduler.ParseWindow("Sun 02:00-04:00")
	if err != nil {
		t.Fatal(err)
	}
	monthly, err := scheduler.ParseSchedule("0 3 1 * *")
	if err != nil {
		t.Fatal(err)
	}
	type (
		wish  = Wish
		known = state.Certificate
	)
	age := func(c *known, d time.Duration) {
		c.Bundle.Issued = in(-d)
		c.X509.NotBefore, c.X509.NotAfter = in(-d), in(90*day-d)
		c.Leaf.NotBefore, c.Leaf.NotAfter = c.X509.NotBefore, c.X509.NotAfter
	}
	due := func(c *known) { age(c, 61*day) }
	none := func(c *known) { c.Bundle, c.X509, c.Leaf = nil, nil, state.Leaf{} }
	failed := func(c *known, ago, retry time.Duration) {
		c.Issue = state.Trouble{Failures: 2, Error: "no luck", At: in(-ago), RetryAt: in(retry)}
	}
	const rest, wait = "rest", "wait"
	tests := []struct {
		what   string
		change func(w *wish, c *known, r *Room)
		want   string // rest, wait, or "order CAs: why"
	}{
		{"a certificate in the middle of its life rests", func(*wish, *known, *Room) {}, rest},
		{"one that isn't there is ordered", func(_ *wish, c *known, _ *Room) { none(c) }, "order one two: there is none yet"},
		{"after two thirds of its life it is renewed", func(_ *wish, c *known, _ *Room) { due(c) }, "order one two: two thirds"},
		{"an expired one is renewed", func(_ *wish, c *known, _ *Room) { age(c, 91*day) }, "order one two: two thirds"},
		{"one of six days is renewed at half", func(_ *wish, c *known, _ *Room) {
			age(c, 81*time.Hour)
			c.X509.NotAfter = c.X509.NotBefore.Add(160 * time.Hour)
		}, "order one two: half"},
		{"a person who forces it gets another", func(w *wish, _ *known, _ *Room) { w.Insist = forced }, "order one two: forced"},
		{"a person who asks gets no other while it is good", func(w *wish, _ *known, _ *Room) { w.Insist = byHand }, rest},

		// What is configured.
		{"other hostnames need another certificate", func(w *wish, _ *known, _ *Room) { w.Certificate.Hostnames = []string{"b.test"} }, "order one two: the hostnames changed"},
		{"the same hostnames in another order don't", func(w *wish, c *known, _ *Room) {
			w.Certificate.Hostnames, c.Bundle.Hostnames = []string{"a.test", "b.test"}, []string{"b.test", "a.test"}
		}, rest},
		{"another key type needs another certificate", func(w *wish, _ *known, _ *Room) { w.Certificate.KeyType = "rsa-2048" }, "order one two: the key type changed"},
		{"another profile too", func(w *wish, _ *known, _ *Room) { w.Certificate.Profile = "short" }, "order one two: the profile changed"},
		{"a CSR too", func(w *wish, _ *known, _ *Room) { w.Certificate.CSR = []byte("csr") }, "order one two: the CSR changed"},
		{"one of a CA that isn't listed any more is replaced", func(w *wish, _ *known, _ *Room) { w.Certificate.CAs = []string{"two"} }, "order two: the CA changed"},
		{"one of a CA that moved is replaced", func(_ *wish, c *known, _ *Room) { c.Bundle.Directory = "https://other.test" }, "order one two: the CA changed"},
		{"one of the second CA stays", func(_ *wish, c *known, _ *Room) { c.Bundle.CA, c.Bundle.Directory = "two", "https://two.test/dir" }, rest},
		{"a changed configuration alone needs no other", func(_ *wish, c *known, _ *Room) { c.Wish = "another" }, rest},

		// What the CA says.
		{"a moment that the CA suggests and that has come", func(_ *wish, c *known, _ *Room) {
			c.ARI = state.Suggestion{Start: in(-2 * day), End: in(day), Moment: in(-time.Minute), ChosenAt: in(-3 * day)}
		}, "order one two: "},
		{"a moment that the CA suggests for later", func(_ *wish, c *known, _ *Room) {
			due(c)
			c.ARI = state.Suggestion{Start: in(day), End: in(3 * day), Moment: in(2 * day), ChosenAt: in(-3 * day)}
		}, rest},
		{"a window that was past when it was suggested", func(_ *wish, c *known, _ *Room) {
			c.ARI = state.Suggestion{Start: in(-2 * day), End: in(-day), Moment: in(-day), ChosenAt: in(-time.Hour), Explanation: "https://one.test/why"}
		}, "order one two: the CA asks for it now: https://one.test/why"},
		{"such a window for a certificate of this minute", func(_ *wish, c *known, _ *Room) {
			age(c, time.Minute)
			c.ARI = state.Suggestion{Moment: in(-day), ChosenAt: in(-time.Second)}
		}, rest},
		{"the third such window in a row is followed slowly", func(_ *wish, c *known, _ *Room) {
			age(c, 20*time.Hour)
			c.ARI = state.Suggestion{Moment: in(-day), ChosenAt: in(-time.Hour), Hurries: 2}
		}, rest},

		// What happened to its key or to itself.
		{"one whose key is compromised is replaced", func(_ *wish, c *known, _ *Room) { c.Compromised = c.Leaf.Fingerprint }, "order one two: its key is compromised"},
		{"the one before was compromised", func(_ *wish, c *known, _ *Room) { c.Compromised = "another" }, rest},
		{"one that was revoked is replaced", func(_ *wish, c *known, _ *Room) {
			c.Leaf.Revoked = state.Revocation{At: in(-day), Reason: "superseded"}
		}, "order one two: it was revoked (superseded)"},

		// Window and schedule.
		{"a due renewal waits for the window", func(w *wish, c *known, _ *Room) { w.Snapshot.Window = sunday; due(c) }, rest},
		{"a new certificate waits for no window", func(w *wish, c *known, _ *Room) { w.Snapshot.Window = sunday; none(c) }, "order one two: there is none yet"},
		{"little lifetime left waits for no window", func(w *wish, c *known, _ *Room) { w.Snapshot.Window = sunday; age(c, 89*day) }, "order one two: "},
		{"a person who forces it waits for no window", func(w *wish, c *known, _ *Room) { w.Snapshot.Window, w.Insist = sunday, forced; due(c) }, "order one two: forced"},
		{"a person who removed the cause of a failure waits for no window", func(w *wish, c *known, _ *Room) {
			w.Snapshot.Window, w.Insist = sunday, byHand
			due(c)
			failed(c, time.Hour, -time.Minute)
		}, "order one two: two thirds"},
		{"a due renewal waits for the tick", func(w *wish, c *known, _ *Room) { w.Snapshot.Schedule = monthly; age(c, 60*day+time.Hour) }, rest},
		{"a person's question is a tick", func(w *wish, c *known, _ *Room) { w.Snapshot.Schedule, w.Insist = monthly, byHand; due(c) }, "order one two: two thirds"},

		// After a failure.
		{"a failure is waited out", func(_ *wish, c *known, _ *Room) { due(c); failed(c, time.Minute, time.Hour) }, wait},
		{"it is tried again when the time has come", func(_ *wish, c *known, _ *Room) { due(c); failed(c, time.Hour, 0) }, "order one two: two thirds"},
		{"a person doesn't wait for our own next try", func(w *wish, c *known, _ *Room) { w.Insist = byHand; due(c); failed(c, time.Minute, time.Hour) }, "order one two: two thirds"},
		{"a person waits while all CAs want to be left alone", func(w *wish, c *known, _ *Room) {
			w.Insist = byHand
			due(c)
			failed(c, time.Minute, time.Hour)
			c.AskAfter = map[string]time.Time{"one": in(time.Hour), "two": in(time.Hour)}
		}, wait},
		{"a person doesn't wait while one CA may be asked", func(w *wish, c *known, _ *Room) {
			w.Insist = byHand
			due(c)
			failed(c, time.Minute, time.Hour)
			c.AskAfter = map[string]time.Time{"one": in(-time.Minute), "two": in(time.Hour)}
		}, "order one (two): two thirds"},
		{"a CA that wants to be left alone is passed over", func(_ *wish, c *known, _ *Room) {
			due(c)
			failed(c, time.Hour, 0)
			c.AskAfter = map[string]time.Time{"one": in(time.Hour)}
		}, "order (one) two: two thirds"},
		{"by force every CA is asked", func(w *wish, c *known, _ *Room) {
			w.Insist = forced
			failed(c, time.Minute, time.Hour)
			c.AskAfter = map[string]time.Time{"one": in(time.Hour)}
		}, "order one two: forced"},
		{"a changed configuration may be the cure", func(_ *wish, c *known, _ *Room) {
			due(c)
			failed(c, time.Minute, time.Hour)
			c.Wish = "another"
			c.AskAfter = map[string]time.Time{"one": in(time.Hour)}
		}, "order one two: two thirds"},
		{"so may a reload after the failure", func(w *wish, c *known, _ *Room) { w.Snapshot.Reloaded = now; due(c); failed(c, time.Minute, time.Hour) }, "order one two: two thirds"},
		{"a reload cures nothing that a CA counts", func(w *wish, c *known, _ *Room) {
			w.Snapshot.Reloaded = now
			due(c)
			failed(c, time.Minute, time.Hour)
			c.Issue.AtCA = true
		}, wait},
		{"a server that was silent answers again", func(_ *wish, c *known, r *Room) {
			r.Answered = true
			due(c)
			failed(c, time.Minute, time.Hour)
		}, "order one two: two thirds"},
		{"a failure of a renewal that isn't due any more", func(_ *wish, c *known, _ *Room) { failed(c, time.Minute, time.Hour) }, rest},

		// While a CA works on an order.
		{"the order isn't asked again before its time", func(_ *wish, c *known, _ *Room) {
			due(c)
			c.Working = state.Working{CA: "one", Since: in(-time.Minute), Again: in(time.Minute)}
		}, "sleep"},
		{"it is asked again then", func(_ *wish, c *known, _ *Room) {
			due(c)
			c.Working = state.Working{CA: "one", Since: in(-time.Hour), Again: in(-time.Minute)}
		}, "order one two: two thirds"},
		{"a person has it asked now", func(w *wish, c *known, _ *Room) {
			w.Insist = byHand
			due(c)
			c.Working = state.Working{CA: "one", Since: in(-time.Minute), Again: in(time.Minute)}
		}, "order one two: two thirds"},
		{"an order by force is gone on with", func(_ *wish, c *known, _ *Room) {
			c.Working = state.Working{CA: "one", Since: in(-time.Hour), Again: in(-time.Minute)}
		}, "order one two: forced"},
	}
	if len(tests) < 40 {
		t.Errorf("%d rows", len(tests))
	}
	for _, tt := range tests {
		w := Wish{
			Certificate: config.Certificate{Name: name, Hostnames: []string{"a.test"}, CAs: []string{"one", "two"}, KeyType: "ecdsa-p256"},
			Snapshot:    &Snapshot{CAs: cas, Issuers: issuers},
		}
		c := &state.Certificate{
			Name:   name,
			Leaf:   state.Leaf{Fingerprint: "ab"},
			Bundle: &state.Bundle{Hostnames: []string{"a.test"}, KeyType: "ecdsa-p256", CA: "one", Directory: "https://one.test/dir"},
			X509:   &x509.Certificate{},
		}
		age(c, 40*day)
		c.Wish = "acted on"
		var room Room
		tt.change(&w, c, &room)
		if c.Wish == "acted on" {
			c.Wish = w.Snapshot.wish(w.Certificate)
		}
		before := asJSON(t, c)
		d := Decide(now, w, c, room)
		if got := describeDecision(d); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
		if d.Forced != strings.HasSuffix(tt.want, ": forced") {
			t.Errorf("%s: forced is %t", tt.what, d.Forced)
		}
		if asJSON(t, c) != before {
			t.Errorf("%s: the certificate was changed", tt.what)
		}
	}
}

func describeDecision(d Decision) string {
	switch {
	case d.Why == "" && !d.Order:
		return "rest"
	case d.Waiting != nil:
		return "wait"
	case !d.Order:
		return "sleep"
	}
	var turns []string
	for _, turn := range d.CAs {
		if turn.NotBefore.IsZero() {
			turns = append(turns, turn.CA)
		} else {
			turns = append(turns, "("+turn.CA+")")
		}
	}
	return fmt.Sprintf("order %s: %s", strings.Join(turns, " "), d.Why)
}

// TestNextLook looks again in an hour, or sooner when something is due before that.
func TestNextLook(t *testing.T) {
	now := time.Date(2026, 6, 3, 12, 0, 0, 0, time.UTC)
	plain := now.Add(time.Hour)
	soon, sooner := now.Add(20*time.Minute), now.Add(10*time.Minute)
	added := []string{"TXT"}
	tests := []struct {
		what string
		c    state.Certificate
		want time.Time
	}{
		{"nothing is due", state.Certificate{RenewAt: now.Add(2 * time.Hour)}, plain},
		{"nothing is known", state.Certificate{}, plain},
		{"its renewal", state.Certificate{RenewAt: soon}, soon},
		{"its renewal information", state.Certificate{X509: &x509.Certificate{}, ARI: state.Suggestion{AskAgain: sooner}, RenewAt: soon}, sooner},
		{"the next try", state.Certificate{RenewAt: sooner, Issue: state.Trouble{Failures: 1, RetryAt: soon}}, soon},
		{"the order that a CA works on", state.Certificate{RenewAt: sooner, Working: state.Working{CA: "one", Again: soon},
			Issue: state.Trouble{Failures: 1, RetryAt: sooner}}, soon},
		{"a limit of the CA", state.Certificate{RenewAt: sooner, Held: state.Held{Until: soon}, Working: state.Working{CA: "one", Again: sooner}}, soon},
		{"a record that a person adds", state.Certificate{RenewAt: soon, ByHand: added}, now},
		{"the next try, whatever a person adds", state.Certificate{ByHand: added, Issue: state.Trouble{Failures: 1, RetryAt: soon}}, soon},
	}
	for _, tt := range tests {
		if got := (view{c: &tt.c}).nextLook(now, plain); !got.Equal(tt.want) {
			t.Errorf("%s: in %s, want %s", tt.what, got.Sub(now), tt.want.Sub(now))
		}
	}
}

// TestOverdue waits for half of the time from the renewal of a bundle that can't be read to its expiry.
func TestOverdue(t *testing.T) {
	renew := time.Date(2026, 6, 3, 12, 0, 0, 0, time.UTC)
	known := state.Certificate{Leaf: state.Leaf{NotAfter: renew.Add(30 * time.Hour)}, RenewAt: renew}
	for at, want := range map[time.Duration]bool{0: false, 15*time.Hour - 1: false, 15 * time.Hour: true, 20 * time.Hour: true} {
		if overdue(&known, renew.Add(at)) != want {
			t.Errorf("%s after its renewal was due: %t", at, !want)
		}
	}
	for failures, want := range map[int]bool{0: false, 71: false, 72: true, 73: true} { // brokenRetry apart: an hour
		if overdue(&state.Certificate{Issue: state.Trouble{Failures: failures}}, renew) != want {
			t.Errorf("nothing is known, and %d looks failed: %t", failures, !want)
		}
	}
}

func TestWaitingError(t *testing.T) {
	at := time.Date(2026, 6, 3, 12, 0, 0, 0, time.UTC)
	for failures, want := range map[int]string{
		1: "failed once, next try at 2026-06-03T12:00:00Z: no luck",
		2: "failed 2 times, next try at 2026-06-03T12:00:00Z: no luck",
	} {
		if got := (&WaitingError{state.Trouble{Failures: failures, RetryAt: at, Error: "no luck"}}).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
