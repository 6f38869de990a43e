package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"autocertd/internal/event"
	"autocertd/internal/state"
)

// told holds the kinds of events that the tests of this package made, each through a manager, a CA and a DNS server.
var told sync.Map

// TestMain wants the kinds of events of this package to be made by a test. Not among them are records that a person adds,
// which tests of the command make, and failures of single writes and questions.
func TestMain(m *testing.M) {
	status := m.Run()
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		for _, kind := range []event.Kind{
			event.Issued, event.NotIssued, event.NotForced, event.Held, event.StillWorking, event.CAFailed, event.KeyRefused,
			event.RenewalUrgent, event.Rehearsed, event.NotRehearsed, event.NotLookedAt, event.BundleUnreadable, event.BundleSetAside,
			event.OrderUnreadable, event.OrderNotDropped, event.KeyUnknown, event.StoreUnwritable, event.StoreWritable,
		} {
			if _, ok := told.Load(kind); !ok {
				fmt.Printf("no test makes the event %q\n", kind)
				status = max(status, 1)
			}
		}
	}
	os.Exit(status)
}

func record(e event.Event) { told.Store(e.Kind, true) }

// TestRehearsalIsTold goes through an issuance that works, and one whose records are refused.
func TestRehearsalIsTold(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	if err := p.Rehearse(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	w.dns.OnUpdate(refuseAll)
	if err := p.Rehearse(p.ctx, name); err == nil {
		t.Error("it works without records")
	}
	w.dns.OnUpdate(nil)
}

// TestUnreadableMark tells that a mark of a compromised key can't be read, which counts for none of another key.
func TestUnreadableMark(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	if err := state.MarkKey(p.ctx, p.store, []byte("another"), state.CompromisedKey{Serial: "01"}); err != nil {
		t.Fatal(err)
	}
	p.store.breaks(fault{Op: "Load", Prefix: "compromised/", Always: true})
	p.look()
	if n := w.cas[0].NewOrders(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}
