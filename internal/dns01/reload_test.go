package dns01

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestOrdersKeepTheirProviders: an order that began before a reload goes on with the providers and resolvers that it found,
// one that begins afterwards has the new ones, and both are in one queue. What the provider of before can't remove any
// more is left to the one of now.
func TestOrdersKeepTheirProviders(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		before, after := &fakeClient{}, &fakeClient{}
		s := newSolver(openFiles(t, dir), fake(before))
		s.UseResolvers([]string{"192.0.2.1:53"})
		old := s.begin()
		other := fake(after)
		other.Nameservers, other.Check, other.Zones = []string{"192.0.2.2:53"}, CheckPrimary, []string{"example.test", "other.test"}
		s.Use([]Provider{other}, []string{"192.0.2.3:53"})
		young := s.begin()

		for _, tt := range []struct {
			sol      *solution
			resolver string
			zones    []string
			check    Check
		}{{old, "192.0.2.1:53", []string{"example.test"}, CheckNone}, {young, "192.0.2.3:53", other.Zones, CheckPrimary}} {
			p, ok := tt.sol.solver.provider("bind")
			if q, err := tt.sol.solver.watchers.quorums(t.Context(), []recordKey{}); err != nil || len(q) > 0 {
				t.Fatal(q, err)
			}
			if zones := tt.sol.solver.zones(); !slices.Equal(zones, tt.zones) || !ok || p.Check != tt.check || !slices.Equal(tt.sol.solver.recursive(), []string{tt.resolver}) {
				t.Errorf("an order goes by zones %v, check %s, resolvers %v", zones, p.Check, tt.sol.solver.recursive())
			}
		}

		results := make(chan error, 2)
		go func() { results <- old.submit(t.Context(), []recordKey{key("old", "x")}) }()
		go func() { results <- young.submit(t.Context(), []recordKey{key("young", "x")}) }()
		if err := errors.Join(<-results, <-results); err != nil {
			t.Fatal(err)
		}
		want := func(when string, atBefore, atAfter int) {
			t.Helper()
			if before.Left() != atBefore || after.Left() != atAfter {
				t.Errorf("%s: %d records by the provider of before, %d by the one of now; want %d and %d", when, before.Left(), after.Left(), atBefore, atAfter)
			}
		}
		want("published", 1, 1)
		if len(before.Calls("append")) != 1 || !before.Zone.Has(key("old", "x")) {
			t.Errorf("the provider of before got %v", before.Calls(""))
		}
		before.Before = func(call) (bool, error) { return false, broken{errors.New("BADKEY")} }
		old.Remove()
		young.Remove()
		synctest.Wait()
		time.Sleep(2 * removeOldest)
		want("removed", 1, 0)
		time.Sleep(2 * time.Minute)
		mustSweep(t, s)
		closeSolver(t, s)
		if n := len(after.Calls("delete")); n != 2 {
			t.Errorf("the provider of now was asked %d times to remove, want once for its own record and once for the other's", n)
		}
	})
}
