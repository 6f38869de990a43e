package dns01

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/zones"
	"autocertd/issuer"
)

// Many orders at random on a server that fails at random: in the end nothing is left, in the zone or in the journal.
func TestStress(t *testing.T) {
	const workers, rounds, names = 24, 8, 12
	d := startDNS(t, nil)
	d.OnUpdate(func(*dns.Msg) (int, bool) {
		switch rand.IntN(20) {
		case 0:
			return dns.RcodeServerFailure, true // refused for now
		case 1:
			return 0, false // done, and the answer lost
		}
		return 0, true
	})
	files := openFiles(t, t.TempDir())
	p := rfc2136(t, d.Addr(), d.Key("acme-key"))
	p.Check = zones.CheckPrimary
	s := newSolver(files, p)
	var orders sync.WaitGroup
	for range workers {
		orders.Go(func() {
			for range rounds {
				randomOrder(t, s, names)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var sweeps sync.WaitGroup
	sweeps.Go(func() {
		for ctx.Err() == nil {
			if err := s.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
			configure(s, p)
		}
	})
	orders.Wait()
	cancel()
	sweeps.Wait()
	d.OnUpdate(nil) // Close has one more chance
	closeSolver(t, s)
	if all := d.All(); len(all) != 0 || s.Left() != 0 {
		t.Errorf("left in the zone: %v; remembered: %d", all, s.Left())
	}
	if objects := journalObjects(t, files); len(objects) != 0 {
		t.Errorf("left in the journal: %q", objects)
	}
}

// randomOrder is one order with a few records that others may share. It may be given up at any moment.
func randomOrder(t *testing.T, s *Solver, names int) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sol := s.Begin()
	defer sol.Remove()
	giveUp := rand.IntN(5)
	if giveUp == 0 {
		return
	}
	if giveUp == 1 {
		timer := time.AfterFunc(rand.N(20*time.Millisecond), cancel)
		defer timer.Stop()
	}
	var records []issuer.Record
	for range 1 + rand.IntN(3) {
		records = append(records, challenge(fmt.Sprintf("h%d", rand.IntN(names)), fmt.Sprint(rand.IntN(3))))
	}
	if err := sol.Publish(ctx, records); err != nil {
		return // three failures in a row, or given up
	}
	if err := sol.Wait(ctx, func(int, int) {}); err != nil && ctx.Err() == nil {
		t.Errorf("a record that was published isn't there: %v", err)
	}
}
