//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

// company is a primary with two secondaries, one of which the CA asks.
func company() siteConfig {
	return siteConfig{bind: testbed.BINDConfig{Secondaries: []testbed.Secondary{{Notify: true}, {Notify: true}}}, validator: 1}
}

func TestFirstStart(t *testing.T) {
	s := newSite(t, company())
	s.hostnames = hosts(200)
	begin := time.Now()
	d := s.start(t)
	eventually(t, func() error { return s.bundles(200) })
	s.deployed(t, s.hostnames...)
	took := time.Since(begin)
	s.clean(t, zone)
	messages := s.bind.UpdateMessages()
	t.Logf("200 certificates in %s, %d update messages for 400 changes, %d orders", took.Round(time.Millisecond), messages, s.ca.NewOrders())
	if messages < 0 || messages > 40 {
		t.Errorf("%d update messages", messages)
	}
	if n := s.ca.NewOrders(); n != 200 {
		t.Errorf("%d orders for 200 certificates", n)
	}
	d.stop(t)
}

// bundles is an error while fewer than n certificates have been issued.
func (s *site) bundles(n int) error { return s.atLeast(n, "bundles") }

// atLeast is an error while fewer than n objects are in a folder of the state.
func (s *site) atLeast(n int, folder ...string) error {
	if have := len(s.objects(folder...)); have < n {
		return fmt.Errorf("%d of %d in %v", have, n, folder)
	}
	return nil
}

// TestFirstStartKilled kills the daemon three times while it works for 200 certificates: while it makes orders, while its
// records are in the zone and the CA is asked to look, and when it has many certificates.
func TestFirstStartKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var book orderBook
	cfg := company()
	cfg.ca.Wrap = book.keep
	s := newSite(t, cfg)
	s.hostnames = hosts(200)
	s.write(t)
	orders, challenges, bundles := 10+random.IntN(100), 1+random.IntN(50), 70+random.IntN(80)
	kills := []func() error{ // each says what isn't there yet
		func() error { return s.atLeast(orders, "orders", "test") },
		func() error { return book.stallAt(challenges) },
		func() error { return s.bundles(bundles) },
	}

	known := map[string]string{} // hostname to the order that must be its last
	left := 0                    // records that the killed ones left
	lost := 0                    // orders that the CA had made, and none of the killed ones had kept
	for _, notYet := range kills {
		d := s.startAgain(t)
		eventually(t, notYet)
		d.kill(t)
		book.answerAll()
		records, err := s.bind.TXT(t.Context(), zone)
		if err != nil {
			t.Fatal(err)
		}
		left += len(records)
		s.noteOrders(t, &book, known)
		lost = s.ca.NewOrders() - len(known)
		t.Logf("killed with %d open orders, %d certificates, %d records, %d orders at the CA",
			len(s.objects("orders", "test")), len(s.objects("bundles")), len(records), s.ca.NewOrders())
		if s.bundles(200) == nil {
			t.Fatal("killed too late: all certificates are there")
		}
	}
	if left == 0 {
		t.Error("no kill left a record behind, so that nothing had to be swept")
	}
	s.startAgain(t)
	eventually(t, func() error { return s.bundles(200) })
	s.deployed(t, s.hostnames...)
	s.clean(t, zone)
	for hostname, url := range known {
		if last := book.last(hostname); last != url {
			t.Errorf("%s was ordered again, by %s, although its order %s was known", hostname, last, url)
		}
	}
	extra := s.ca.NewOrders() - 200
	t.Logf("%d update messages, %d orders too many", s.bind.UpdateMessages(), extra)
	if extra > lost {
		t.Errorf("%d orders too many, and the kills have lost %d", extra, lost)
	}
}

// noteOrders notes what a dead daemon had in its state directory: the open orders, and the orders that became
// certificates.
func (s *site) noteOrders(t *testing.T, book *orderBook, known map[string]string) {
	t.Helper()
	for _, hostname := range s.objects("bundles") {
		known[hostname] = book.last(hostname)
	}
	for _, hostname := range s.objects("orders", "test") {
		data, err := os.ReadFile(s.path("state", "orders", "test", hostname+".json"))
		var order struct{ URL string }
		if err := errors.Join(err, json.Unmarshal(data, &order)); err != nil {
			t.Fatal(err)
		}
		known[hostname] = order.URL
	}
}

// orderBook notes which orders the CA has created, by hostname, and can keep the CA from answering to challenges.
type orderBook struct {
	mu         sync.Mutex
	orders     map[string][]string // URLs
	challenges int                 // requests to look for a record
	stall      int                 // from this challenge on there is no answer; 0 for none
}

// stallAt leaves the nth challenge and all later ones without an answer. It is an error while there were fewer.
func (b *orderBook) stallAt(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stall = n; b.challenges < n {
		return fmt.Errorf("%d of %d challenges", b.challenges, n)
	}
	return nil
}

// asked is an error while there were fewer than n challenges.
func (b *orderBook) asked(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.challenges < n {
		return fmt.Errorf("%d of %d challenges", b.challenges, n)
	}
	return nil
}

// answerAll ends what stallAt began.
func (b *orderBook) answerAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stall = 0
}

// stalled counts a challenge, and reports whether it gets no answer.
func (b *orderBook) stalled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.challenges++
	return b.stall > 0 && b.challenges >= b.stall
}

// keep goes in front of the CA. It notes an order before the client hears of it.
func (b *orderBook) keep(ca http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if strings.HasPrefix(r.URL.Path, "/chalZ/") && b.stalled() {
			<-r.Context().Done() // until the client dies
			return
		}
		reply := httptest.NewRecorder()
		ca.ServeHTTP(reply, r)
		if reply.Code == http.StatusCreated {
			b.note(body, reply.Header().Get("Location"))
		}
		for name, values := range reply.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(reply.Code)
		_, _ = w.Write(reply.Body.Bytes())
	})
}

// note reads the payload of a signed request (RFC 8555 section 7.4). Other requests have no identifiers.
func (b *orderBook) note(body []byte, url string) {
	var signed struct{ Payload string }
	var order struct{ Identifiers []struct{ Value string } }
	_ = json.Unmarshal(body, &signed)
	payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	_ = json.Unmarshal(payload, &order)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.orders == nil {
		b.orders = map[string][]string{}
	}
	for _, id := range order.Identifiers {
		b.orders[id.Value] = append(b.orders[id.Value], url)
	}
}

// last returns the last order for a hostname, "" when there is none.
func (b *orderBook) last(hostname string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.Clone(b.orders[hostname])
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}
