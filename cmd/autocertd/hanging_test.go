//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

// undecided is a CA that may accept challenges and never come to a verdict about them.
type undecided struct {
	Now  atomic.Bool
	left atomic.Int32 // challenges without a verdict
}

func (u *undecided) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !u.Now.Load() || !strings.HasPrefix(r.URL.Path, "/chalZ/") {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		u.left.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"type": "dns-01", "status": "processing", "token": "x", "url": "https://" + r.Host + r.URL.Path})
	})
}

// TestHangingHoldsUpNobody has 150 certificates that wait for a server which never shows their records, and 150 that wait
// for the CA's verdict, more than there are places. One more certificate, at the same CA, comes as if they weren't there.
func TestHangingHoldsUpNobody(t *testing.T) {
	t.Parallel()
	const each, stale = 150, "stale.test"
	var verdict undecided
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: zone}, {Name: stale}},
		Secondaries: []testbed.Secondary{{Poll: time.Hour}}}, ca: testbed.CAConfig{Wrap: verdict.wrap}})
	s.providers = []string{
		s.provider("bind", fmt.Sprintf("zones = [%q]", zone), nameservers(s.bind.Addr())),
		s.provider("stale", fmt.Sprintf("zones = [%q]", stale), `propagation_timeout = "10m"`),
	}
	for i := range each {
		s.hostnames = append(s.hostnames, fmt.Sprintf("ca%03d.%s", i, zone), fmt.Sprintf("dns%03d.%s", i, stale))
	}
	verdict.Now.Store(true)
	d := s.start(t)
	eventually(t, func() error {
		if n := verdict.left.Load(); n < each {
			return fmt.Errorf("%d of %d wait for a verdict", n, each)
		}
		return s.atLeast(2*each, "orders", "test")
	})

	verdict.Now.Store(false)
	s.hostnames = append(s.hostnames, "well."+zone)
	begin := time.Now()
	s.write(t)
	s.deployed(t, "well."+zone)
	took := time.Since(begin).Round(time.Millisecond)
	t.Logf("beside %d certificates that hang, one more came within %s", 2*each, took)
	if took > time.Minute { // those that hang are given up after five minutes and ten
		t.Errorf("it waited for those that hang")
	}
	if n := len(s.objects("bundles")); n != 1 {
		t.Errorf("%d certificates; the others were to hang", n)
	}
	d.kill(t)
}
