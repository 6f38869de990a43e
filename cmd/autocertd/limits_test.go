//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/lifecycle"
	"autocertd/internal/testbed"
)

// The limits of the CA: Let's Encrypt's, at a smaller scale.
const (
	fewOrders  = 10
	fewCerts   = 5 // for one domain
	limitsTime = 4 * time.Second
)

// TestLimits gets sixty certificates below six domains from a CA that allows few at a time, while the daemon is killed
// once and stopped once. Nothing that it sends is refused, and it takes no longer than the limits make it.
func TestLimits(t *testing.T) {
	t.Parallel()
	limiter := &limiter{buckets: map[string]*tokens{}}
	cfg := siteConfig{ca: testbed.CAConfig{Wrap: limiter.guard}}
	var hostnames []string
	for i := range 6 {
		domain := fmt.Sprintf("company%d.test", i)
		cfg.bind.Zones = append(cfg.bind.Zones, testbed.BINDZone{Name: domain})
		for n := range 10 {
			hostnames = append(hostnames, fmt.Sprintf("h%d.%s", n, domain))
		}
	}
	s := newSite(t, cfg)
	s.hostnames = hostnames
	s.providers = []string{"[ca.test.limits]\n" +
		fmt.Sprintf("orders = \"%d per %s\"\ncertificates_per_domain = \"%d per %s\"\n", fewOrders, limitsTime, fewCerts, limitsTime) +
		s.providers[0]}
	begin := time.Now()
	d := s.start(t)
	eventually(t, func() error { return s.bundles(15) })
	eventually(t, func() error {
		held := 0
		for _, c := range s.report(t).Certificates {
			if c.Issue.Failures > 0 {
				t.Fatalf("%s failed: %s", c.Name, c.Issue.Error)
			}
			if c.Condition == lifecycle.OnHold && c.Held.Until.After(begin) && c.Held.Reason != "" {
				held++
			}
		}
		if held == 0 {
			return errors.New("nothing is held")
		}
		return nil
	})
	d.kill(t)
	d = s.startAgain(t)
	eventually(t, func() error { return s.bundles(35) })
	d.stop(t)
	if s.bundles(60) == nil {
		t.Error("stopped too late: all certificates are there")
	}
	d = s.startAgain(t)
	eventually(t, func() error { return s.bundles(60) })
	took := time.Since(begin)
	d.stop(t)

	accepted, refused := limiter.counted()
	least := time.Duration(accepted-fewOrders) * limitsTime / fewOrders
	t.Logf("60 certificates by %d orders in %s; the limits allow them in %s: %+.0f %%", accepted, took.Round(10*time.Millisecond), least,
		100*(float64(took)/float64(least)-1))
	if refused > 0 {
		t.Errorf("%d orders were refused", refused)
	}
	if took > 2*least+patience/4 {
		t.Errorf("it took %s instead of %s", took, least)
	}
}

// limiter is a CA's door: token buckets for all orders and for each domain.
type limiter struct {
	mu                sync.Mutex
	buckets           map[string]*tokens
	accepted, refused int
}

// tokens are what a bucket had at a moment.
type tokens struct {
	left float64
	at   time.Time
}

// guard goes in front of the CA.
func (l *limiter) guard(ca http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if strings.HasSuffix(r.URL.Path, "/order-plz") && !l.admits(body) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many", "status": 429}`)
			return
		}
		ca.ServeHTTP(w, r)
	})
}

// admits takes a token from each bucket that an order is counted in, if all have one.
func (l *limiter) admits(body []byte) bool {
	var signed struct{ Payload string }
	var order struct{ Identifiers []struct{ Value string } }
	_ = json.Unmarshal(body, &signed)
	payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	_ = json.Unmarshal(payload, &order)
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]float64{"": fewOrders}
	for _, id := range order.Identifiers {
		_, domain, _ := strings.Cut(id.Value, ".")
		counts[domain] = fewCerts
	}
	now := time.Now()
	for name, most := range counts {
		b := l.buckets[name]
		if b == nil {
			b = &tokens{most, now}
			l.buckets[name] = b
		}
		b.left, b.at = min(most, b.left+most*float64(now.Sub(b.at))/float64(limitsTime)), now
		if b.left < 1 {
			l.refused++
			return false
		}
	}
	for name := range counts {
		l.buckets[name].left--
	}
	l.accepted++
	return true
}

func (l *limiter) counted() (accepted, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted, l.refused
}
