package lifecycle

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCostOfRenewal counts what one forced renewal at a CA with limits asks of the store, since each will be a round trip
// where the store is on another host.
func TestCostOfRenewal(t *testing.T) {
	w := limitedWorld(t, `orders = "100 per 1h"`)
	p := w.start()
	p.look()
	p.look() // as the daemon does within the hour
	p.store.written()
	p.store.mu.Lock()
	p.store.leases, p.store.scans, p.store.loads = nil, nil, 0
	p.store.mu.Unlock()
	p.probed = time.Time{} // the last write was long ago
	if err := p.Renew(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	var saves, journal, host []string
	for _, write := range p.store.written() {
		op, key, _ := strings.Cut(write, " ")
		switch {
		case !strings.HasPrefix(op, "Save"):
		case strings.HasPrefix(key, "journal/"):
			journal = append(journal, write)
		case strings.HasPrefix(key, "deployments/"):
			host = append(host, write)
		default:
			saves = append(saves, write)
		}
	}
	p.store.mu.Lock()
	leases, scans, loads := p.store.leases, p.store.scans, p.store.loads
	p.store.mu.Unlock()
	t.Logf("saves %v, of records %v, of this host %v; leases %v, scans %v, %d loads", saves, journal, host, leases, scans, loads)
	if len(saves) > 3 || len(journal) > 1 || len(host) > 1 {
		t.Errorf("saves are %v, of records %v, of this host %v", saves, journal, host)
	}
	order := slices.IndexFunc(saves, func(s string) bool { return strings.HasPrefix(s, "Save orders/") })
	if bundle := slices.Index(saves, "Save bundles/"+name+".json"); order < 0 || bundle < order {
		t.Errorf("the key of the order isn't durable before the certificate: %v", saves)
	}
	// An account is the issuer's, and a deployment this host's.
	shared := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
			return strings.HasPrefix(s, "deployment") || strings.HasPrefix(s, "account")
		})
	}
	if got := shared(leases); len(got) > 2 || len(leases) > 3 {
		t.Errorf("leases are %v", leases)
	}
	if got := shared(scans); len(got) > 1 || len(scans) > 3 {
		t.Errorf("scans are %v", scans)
	}
	if loads > 1 { // of the ledger
		t.Errorf("%d loads", loads)
	}
}
