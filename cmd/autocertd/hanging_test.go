//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// TestHangingHooksHoldUpNobody has more certificates whose new output runs a program that hangs than there are places. One
// more certificate comes while all of them hang, and status says what they wait for.
func TestHangingHooksHoldUpNobody(t *testing.T) {
	t.Parallel()
	const hanging = 12
	s := newSite(t, siteConfig{})
	s.top, s.hostnames = "concurrency = 1", hosts(hanging) // eight places
	d := s.start(t)
	s.deployed(t, s.hostnames...)

	program := s.path("hangs")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n: >\"$AUTOCERTD_DIR/begun\"\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.tables = fmt.Sprintf("[[output]]\nmatch = [\"h*\"]\ndir = %q\nrun = [[%q]]\n", s.path("out", "{name}"), program)
	s.hostnames = append(s.hostnames, "well."+zone)
	s.write(t)
	eventually(t, func() error {
		begun, err := filepath.Glob(s.path("out", "*", "begun"))
		if len(begun) < hanging {
			return errors.Join(err, fmt.Errorf("%d of %d programs run", len(begun), hanging))
		}
		return s.pairs("well." + zone)
	})
	eventually(t, func() error {
		if r := s.command(t, "status", s.hostnames[0]); !strings.Contains(r.stdout, "running commands") {
			return fmt.Errorf("status says %s", r.stdout)
		}
		return nil
	})
	if strings.Contains(d.says(t), "certificate not deployed") {
		t.Error("some were given up before all ran")
	}
	d.stop(t)
}

// TestKilledDuringValidation kills a daemon while the CA looks for the records of 30 certificates, and starts it again with
// many more than it works on at a time. The records stay for as long as the CA may look for them, and each of the 30 comes
// of the order that it had.
func TestKilledDuringValidation(t *testing.T) {
	t.Parallel()
	const validating, more = 30, 300
	const caWaits = 5 * time.Second // for DNS, before it asks once more
	var book orderBook
	s := newSite(t, siteConfig{})
	dns := holdTCP(t, s.bind.Addr())
	s.startCA(t, testbed.CAConfig{DNS: dns.addr, Wrap: book.keep})
	all := hosts(validating + more)
	first := all[more:] // by their names they would be the last
	s.hostnames = first
	d := s.start(t)
	eventually(t, func() error { return errors.Join(book.asked(validating), dns.holds(validating)) })
	d.kill(t)
	known := map[string]string{}
	s.noteOrders(t, &book, known)
	if len(known) != validating {
		t.Fatalf("%d orders were kept, want %d", len(known), validating)
	}

	s.hostnames, s.top = all, "concurrency = 1"
	d = s.start(t)
	eventually(t, func() error { // the newcomers' turn has come, and that of the sweep
		records, err := s.bind.TXT(t.Context(), zone)
		have := 0
		for _, name := range first {
			have += len(records["_acme-challenge."+name])
		}
		if have < validating {
			t.Errorf("%d of %d records are there while the CA looks for them", have, validating)
		}
		if len(records) < validating+5 {
			err = errors.Join(err, fmt.Errorf("%d records", len(records)))
		}
		return err
	})
	if took := time.Since(time.Unix(0, dns.first.Load())); took > caWaits {
		t.Skipf("the machine is so slow that the CA may have given up looking, after %s", took)
	}
	dns.release()
	s.deployed(t, all...)
	for hostname, url := range known {
		if last := book.last(hostname); last != url {
			t.Errorf("%s was ordered again, by %s instead of %s", hostname, last, url)
		}
	}
	d.stop(t)
	s.clean(t, zone)
}

// held is a server in front of another, which lets nothing through at first.
type held struct {
	addr    string
	waiting atomic.Int32 // connections
	first   atomic.Int64 // when the first of them began, in nanoseconds
	open    chan struct{}
	release func()
}

// holdTCP starts one. It ends with the test.
func holdTCP(t *testing.T, to string) *held {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &held{addr: listener.Addr().String(), open: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.open) })
	t.Cleanup(func() { _ = listener.Close(); h.release() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go h.pass(conn, to)
		}
	}()
	return h
}

func (h *held) pass(conn net.Conn, to string) {
	defer conn.Close()
	h.first.CompareAndSwap(0, time.Now().UnixNano())
	h.waiting.Add(1)
	<-h.open
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { _, _ = io.Copy(server, conn) }() // ends when server is closed
	_, _ = io.Copy(conn, server)
}

// holds is an error while fewer than n connections wait.
func (h *held) holds(n int) error {
	if have := int(h.waiting.Load()); have < n {
		return fmt.Errorf("%d of %d connections wait", have, n)
	}
	return nil
}
