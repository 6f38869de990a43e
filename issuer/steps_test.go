package issuer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// person publishes the records of a view.
func (w *world) person(t *testing.T, records []issuer.Record) {
	t.Helper()
	for _, r := range records {
		if err := w.DNS.Set(strings.ReplaceAll(r.ZoneLine(), "\t", " ")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSteps takes every step in a new process, some twice.
func TestSteps(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	ctx, keep := t.Context(), &orders{}
	request := func() issuer.Request {
		w.restart(t)
		return issuer.Request{Hostnames: []string{"steps.example.test", "*.steps.example.test"}, Orders: keep, Open: keep.Open}
	}
	for name, step := range map[string]func() error{
		"show":     func() error { _, err := w.ShowOrder(ctx, request()); return err },
		"validate": func() error { _, err := w.ValidateOrder(ctx, request()); return err },
		"finish":   func() error { _, err := w.FinishOrder(ctx, request()); return err },
	} {
		if err := step(); !errors.Is(err, issuer.ErrNoOrder) {
			t.Errorf("%s without an order: %v", name, err)
		}
	}
	view, err := w.OpenStep(ctx, request())
	if err != nil {
		t.Fatal(err)
	}
	if view.Resumed || view.Status != "pending" || len(view.Authorizations) != 2 || len(view.Records) != 2 || view.Validated() {
		t.Errorf("the new order is %+v", view)
	}
	again, err := w.OpenStep(ctx, request())
	if err != nil || !again.Resumed || again.URL != view.URL || !sameRecords(again.Records, view.Records) {
		t.Errorf("once more it is %+v, %v", again, err)
	}
	if _, err := w.FinishOrder(ctx, request()); !errors.Is(err, issuer.ErrNotValidated) {
		t.Errorf("finishing too soon: %v", err)
	}
	w.person(t, view.Records)
	for range 2 {
		view, err := w.ValidateOrder(ctx, request())
		if err != nil {
			t.Fatal(err)
		}
		if !view.Validated() || len(view.Authorizations) != 2 || !strings.Contains(string(view.Authorizations[0].Object), `"status": "valid"`) ||
			strings.Contains(string(view.Authorizations[0].Object), keep.Open.Account) {
			t.Errorf("validated it is %+v", view)
		}
	}
	first, err := w.FinishOrder(ctx, request())
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.FinishOrder(ctx, request())
	if err != nil || !second.Cert.Equal(first.Cert) {
		t.Errorf("finished once more: another certificate, %v", err)
	}
	if w.CA.NewOrders() != 1 || string(first.Key) != keep.Open.Key {
		t.Errorf("%d orders, or another key", w.CA.NewOrders())
	}
}

func sameRecords(a, b []issuer.Record) bool {
	byValue := func(x, y issuer.Record) int { return strings.Compare(x.Value, y.Value) }
	return slices.Equal(slices.SortedFunc(slices.Values(a), byValue), slices.SortedFunc(slices.Values(b), byValue))
}

// TestGiveUpOrder: nothing is left of an order that was given up.
func TestGiveUpOrder(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	keep := &orders{}
	request := func() issuer.Request {
		return issuer.Request{Hostnames: []string{"given.example.test"}, Orders: keep, Open: keep.Open}
	}
	if err := w.GiveUpOrder(t.Context(), request()); err != nil {
		t.Errorf("without an order: %v", err)
	}
	if _, err := w.OpenStep(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	open := *keep.Open
	if err := w.GiveUpOrder(t.Context(), request()); err != nil || keep.Open != nil {
		t.Fatalf("kept: %v, %v", keep.Open, err)
	}
	keep.Open = &open
	if _, err := w.ShowOrder(t.Context(), request()); err == nil {
		t.Error("the CA still takes the order")
	}
}

// byHandSolver has a person for a provider.
type byHandSolver struct {
	zoneSolver
	found bool
	looks int
}

func (s *byHandSolver) Begin() issuer.Solution { return &byHandSolution{s.zoneSolver.Begin(), s} }

type byHandSolution struct {
	issuer.Solution
	solver *byHandSolver
}

func (s *byHandSolution) Publish(ctx context.Context, records []issuer.Record) error {
	return s.Look(ctx, records)
}

func (s *byHandSolution) Look(_ context.Context, records []issuer.Record) error {
	s.solver.looks++
	if s.solver.found {
		return nil
	}
	return &issuer.ByHandError{Records: records, Missing: []string{"ns1 has no such name"}}
}

// TestByHandLeavesTheCAAlone: while a person is awaited the CA isn't asked, unless the order has expired or another one
// is wanted.
func TestByHandLeavesTheCAAlone(t *testing.T) {
	solver := &byHandSolver{}
	w := newWorld(t, testbed.CAConfig{}, func(c *issuer.Config) { c.Solver = solver })
	solver.DNS = w.DNS
	keep := &orders{}
	hostname := "hand.example.test"
	obtain := func() (asked int, err error) {
		before := fmt.Sprint(w.CA.Requests())
		_, err = w.Obtain(t.Context(), issuer.Request{Hostnames: []string{hostname}, Orders: keep, Open: keep.Open})
		if fmt.Sprint(w.CA.Requests()) != before {
			asked = 1
		}
		return asked, err
	}
	expects := func(when string, asked int) *issuer.ByHandError {
		t.Helper()
		got, err := obtain()
		waiting, ok := errors.AsType[*issuer.ByHandError](err)
		if !ok || got != asked {
			t.Fatalf("%s: %v, and the CA was asked %d times, want %d", when, err, got, asked)
		}
		return waiting
	}
	first := expects("at first", 1)
	if want := "a person must add to the zone: _acme-challenge.hand.example.test. 300 IN TXT "; !strings.HasPrefix(first.Error(), want) {
		t.Errorf("it says %q", first)
	}
	url := keep.Open.URL
	if second := expects("later", 0); !sameRecords(first.Records, second.Records) {
		t.Errorf("it waits for %v, before for %v", second.Records, first.Records)
	}
	keep.Open.Expires = time.Now().Add(-time.Second)
	expects("when the order should have expired", 1)
	if keep.Open.URL != url {
		t.Error("an order that lives was given up")
	}
	hostname = "other.example.test"
	expects("with another wish", 1)
	expects("and later", 0)
	solver.found = true
	w.person(t, keep.Open.ByHand)
	if _, err := obtain(); err != nil {
		t.Errorf("when the record is there: %v", err)
	}
}

// TestStrangeNames: what a CA says is pasted into zones and shown on terminals.
func TestStrangeNames(t *testing.T) {
	for said, tells := range map[string]string{
		`"value":"bank.example.test"`:                      `an authorization for "bank.example.test", which wasn't ordered`,
		`"value":"a\nupdate delete example.test\n.test"`:   "which wasn't ordered",
		`"value":"strange.example.test","odd":"\u001b[2J"`: "",
	} {
		w := newWorld(t, testbed.CAConfig{Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/authZ/") {
					next.ServeHTTP(rw, r)
					return
				}
				reply := httptest.NewRecorder()
				next.ServeHTTP(reply, r)
				for name, values := range reply.Header() {
					rw.Header()[name] = values
				}
				rw.Header().Del("Content-Length")
				body := strings.ReplaceAll(reply.Body.String(), `"value": "strange.example.test"`, said)
				_, _ = rw.Write([]byte(strings.ReplaceAll(body, `"http-01"`, `"http-01\u001b[2J"`)))
			})
		}}, nil)
		view, err := w.OpenStep(t.Context(), issuer.Request{Hostnames: []string{"strange.example.test"}, Orders: &orders{}})
		switch {
		case tells != "":
			if err == nil || !strings.Contains(err.Error(), tells) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", said, err)
			}
		case err != nil:
			t.Errorf("%s: %v", said, err)
		case strings.Contains(view.Authorizations[0].Offered, "\x1b"):
			t.Errorf("it offers %q", view.Authorizations[0].Offered)
		}
	}
}
