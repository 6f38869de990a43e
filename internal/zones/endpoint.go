package zones

import (
	"fmt"
	"sync"
	"time"
)

// endpoint is one address of one server that must have the records of a zone.
type endpoint struct {
	server
	name    string // the server's name, or "" when it was given by address
	dead    string // why it has no address, "" when it has one
	primary bool   // it took the update
	hidden  bool   // it is a primary that no NS record names
}

// alive returns the servers of endpoints that have an address.
func alive(endpoints []endpoint) (list []server) {
	for _, e := range endpoints {
		if e.dead == "" {
			list = append(list, e.server)
		}
	}
	return list
}

func (e endpoint) String() string {
	if e.dead != "" {
		return e.name
	}
	if e.name == "" {
		return e.addr
	}
	return fmt.Sprintf("%s (%s)", e.name, e.addr)
}

// serversKept is how long the servers of a zone are remembered. Orders that wait together look them up once, and a
// change of the zone's NS records is noticed soon.
const serversKept = 5 * time.Minute

// searches remembers the servers of zones as one configuration has them, for all orders.
type searches struct {
	mu    sync.Mutex
	zones map[Zone]*search
}

// search is one search for a zone's servers, for all orders that wait for its result.
type search struct {
	done  chan struct{}
	until time.Time // zero while it runs
	list  []endpoint
	err   error
	again bool // the order that searched was given up: another one must
}

// get returns the search for a zone's servers, and whether the caller has to make it.
func (s *searches) get(zone Zone) (one *search, ours bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one = s.zones[zone]
	if one != nil && (one.until.IsZero() || time.Now().Before(one.until)) {
		return one, false
	}
	one = &search{done: make(chan struct{})}
	s.zones[zone] = one
	return one, true
}

// finish ends a search for the orders that wait for it, and keeps its result unless it failed.
func (s *searches) finish(zone Zone, one *search) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.until = time.Now().Add(serversKept)
	if one.err != nil && s.zones[zone] == one {
		delete(s.zones, zone)
	}
	close(one.done)
}

// invalidate has the servers of zones looked up again by the next order: one that lacks records may have left the zone's NS
// records since.
func (s *searches) invalidate(zones []Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, zone := range zones {
		if one := s.zones[zone]; one != nil && !one.until.IsZero() {
			delete(s.zones, zone)
		}
	}
}
