package dns01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// How often a server is asked for what it doesn't have yet: a twelfth of the time since it last had something new, so
// that the delay that the asking adds is small against the delay of the server, within these bounds.
const (
	watchSoonest = 50 * time.Millisecond
	watchLatest  = 2 * time.Second
	watchShare   = 12
)

// watchers looks, for all orders at once, whether servers have records. It asks each server about many records in one
// go, and only about the first of them while nothing has arrived there.
type watchers struct {
	solver *Solver

	mu      sync.Mutex
	servers map[string]*watched // by address
	zones   map[zoneKey][]endpoint
}

// watched is one server and what it is expected to get.
type watched struct {
	mu    sync.Mutex
	where endpoint
	items []*item
	busy  bool
	wake  chan struct{}
}

// item is one record that one order waits for at one server.
type item struct {
	recordKey
	poke chan<- struct{} // the order should look
	wake chan<- struct{} // the server's goroutine should look

	mu   sync.Mutex
	seen bool
	gone bool   // nobody waits any more
	last string // what the server said last
}

// forget drops what is known of zones' servers; after a reload they may be others.
func (w *watchers) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zones = nil
}

// wait returns nil when every server that must have them was seen to have all records.
func (w *watchers) wait(ctx context.Context, records []recordKey, seen func(have, want int)) error {
	poke := make(chan struct{}, 1)
	waiting := map[endpoint][]*item{}
	timeout := time.Duration(0)
	defer func() {
		for _, items := range waiting {
			for _, it := range items {
				it.leave()
			}
		}
	}()
	for _, r := range records {
		p, ok := w.solver.provider(r.provider)
		if !ok {
			return fmt.Errorf("provider %q isn't configured any more", r.provider)
		}
		timeout = max(timeout, p.PropagationTimeout)
		endpoints, err := w.endpoints(ctx, p, r.zone)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			it := &item{recordKey: r, poke: poke}
			waiting[e] = append(waiting[e], it)
			w.server(e).expect(it, &w.solver.running)
		}
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for last := -1; ; {
		if have := countSeen(waiting); have != last {
			seen(have, len(waiting))
			last = have
		}
		if last == len(waiting) {
			return nil
		}
		select {
		case <-poke:
		case <-deadline.C:
			return laggards(waiting, timeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func countSeen(waiting map[endpoint][]*item) (have int) {
	for _, items := range waiting {
		all := true
		for _, it := range items {
			seen, _ := it.state()
			all = all && seen
		}
		if all {
			have++
		}
	}
	return have
}

// laggards says which servers lack which record, and what they answered.
func laggards(waiting map[endpoint][]*item, timeout time.Duration) error {
	e := &PropagationError{After: timeout, Servers: len(waiting)}
	for where, items := range waiting {
		for _, it := range items {
			if seen, last := it.state(); !seen {
				e.Missing = append(e.Missing, fmt.Sprintf("%s: %s for %s", where, last, it.name))
				break
			}
		}
	}
	return e
}

// PropagationError says which servers didn't get a record in time.
type PropagationError struct {
	After   time.Duration
	Servers int      // that must have it
	Missing []string // one sentence for each laggard
}

func (e *PropagationError) Error() string {
	return fmt.Sprintf("after %s, %d of %d servers have the record; missing at %s; check NOTIFY and zone transfers to them, or raise propagation_timeout",
		e.After, e.Servers-len(e.Missing), e.Servers, strings.Join(e.Missing, ", and "))
}

// endpoints looks up a zone's servers, once until they are forgotten.
func (w *watchers) endpoints(ctx context.Context, p Provider, zone string) ([]endpoint, error) {
	key := zoneKey{p.Name, zone}
	w.mu.Lock()
	list, ok := w.zones[key]
	w.mu.Unlock()
	if ok {
		return list, nil
	}
	list, err := w.solver.endpoints(ctx, p, zone)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.zones == nil {
		w.zones = map[zoneKey][]endpoint{}
	}
	w.zones[key] = list
	return list, nil
}

func (w *watchers) server(e endpoint) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.servers == nil {
		w.servers = map[string]*watched{}
	}
	s := w.servers[e.addr]
	if s == nil {
		s = &watched{where: e, wake: make(chan struct{}, 1)}
		w.servers[e.addr] = s
	}
	return s
}

// expect adds an item and makes the server's goroutine look at once.
func (s *watched) expect(it *item, running *sync.WaitGroup) {
	it.last, it.wake = "not asked yet", s.wake
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items = append(s.items, it)
	if s.busy {
		signal(s.wake)
		return
	}
	s.busy = true
	running.Go(s.run)
}

// run asks until nobody waits for anything any more.
func (s *watched) run() {
	for since := time.Now(); ; {
		items := s.pending()
		if items == nil {
			return
		}
		if s.round(items) {
			since = time.Now()
			continue
		}
		pause := min(max(time.Since(since)/watchShare, watchSoonest), watchLatest)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
			since = time.Now()
		}
	}
}

// pending drops what is done and returns the rest, one place further round than last time, so that one record that never
// comes doesn't stand before the others. It ends the goroutine by returning nil.
func (s *watched) pending() []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.items[:0]
	for _, it := range s.items {
		if !it.done() {
			kept = append(kept, it)
		}
	}
	clear(s.items[len(kept):])
	if s.items = kept; len(kept) == 0 {
		s.busy = false
		return nil
	}
	s.items = append(s.items[1:], s.items[0])
	return append([]*item(nil), s.items...)
}

// round asks about the items until one is missing before any was found, and reports whether any was found.
func (s *watched) round(items []*item) (found bool) {
	client := dns.Client{Net: "udp", Timeout: queryTimeout, UDPSize: udpSize}
	conn, err := client.Dial(s.where.addr)
	if err != nil {
		items[0].note(false, unreachable(err))
		return false
	}
	defer conn.Close()
	for _, it := range items {
		q := question(it.name, dns.TypeTXT, false)
		reply, _, err := client.ExchangeWithConn(q, conn)
		if err == nil && reply.Truncated {
			ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
			reply, err = ask(ctx, s.where.addr, q)
			cancel()
		}
		if err != nil {
			it.note(false, unreachable(err))
			return found
		}
		has := holds(reply, it.value)
		it.note(has, answered(reply))
		if found = found || has; !found {
			return false
		}
	}
	return found
}

func holds(reply *dns.Msg, value string) bool {
	for _, rr := range reply.Answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.Join(txt.Txt, "") == value {
			return true
		}
	}
	return false
}

// answered says in words what a server answered that doesn't have the value.
func answered(reply *dns.Msg) string {
	switch {
	case reply.Rcode != dns.RcodeSuccess:
		return "answers " + dns.RcodeToString[reply.Rcode]
	case len(reply.Answer) == 0:
		return "answers no TXT"
	}
	return "answers other values"
}

func unreachable(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return "doesn't answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refuses connections"
	}
	return err.Error()
}

func (it *item) note(seen bool, last string) {
	it.mu.Lock()
	it.seen, it.last = seen, last
	it.mu.Unlock()
	if seen {
		signal(it.poke)
	}
}

// signal makes the receiver look, unless it was already told to.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (it *item) state() (seen bool, last string) {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.seen, it.last
}

func (it *item) done() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.seen || it.gone
}

func (it *item) leave() {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.gone = true
	if !it.seen {
		signal(it.wake)
	}
}
