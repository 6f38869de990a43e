package dns01

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"autocertd/internal/zones"
)

// TestOrdersKeepTheirProviders: an order that began before a reload goes on with the providers and resolvers that it found,
// one that begins afterwards has the new ones, and both are in one queue. What the provider of before can't remove any
// more is left to the one of now.
func TestOrdersKeepTheirProviders(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		before, after := &fakeClient{}, &fakeClient{}
		s := New(Config{Storage: openFiles(t, dir)})
		s.Adopt(s.With([]Provider{fake(before)}, nil))
		old := s.begin()
		other := fake(after)
		other.Nameservers, other.Check, other.Zones = []string{"192.0.2.2:53"}, zones.CheckPrimary, []string{"example.test", "other.test"}
		s.Adopt(s.With([]Provider{other}, nil))
		young := s.begin()

		for _, tt := range []struct {
			sol   *solution
			zones []string
			check zones.Check
		}{{old, []string{"example.test"}, zones.CheckNone}, {young, other.Zones, zones.CheckPrimary}} {
			p, ok := tt.sol.solver.table().provider("bind")
			if known := tt.sol.solver.Zones().KnownZones(); !slices.Equal(known, tt.zones) || !ok || p.Check != tt.check {
				t.Errorf("an order goes by zones %v, check %s", known, p.Check)
			}
		}

		results := make(chan error, 2)
		go func() { results <- old.submit(t.Context(), []zones.TXT{key("old", "x")}) }()
		go func() { results <- young.submit(t.Context(), []zones.TXT{key("young", "x")}) }()
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
