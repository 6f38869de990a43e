package zones

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// How often a server is asked for what it doesn't have yet: a sixteenth of the time since it last had something new, so
// that the delay that the asking adds is small against the delay of the server, within these bounds.
const (
	watchSoonest = 50 * time.Millisecond
	watchLater   = 250 * time.Millisecond // at most, while the server is late by no more than watchLong
	watchLong    = 10 * time.Second
	watchLatest  = time.Second
	watchShare   = 16
	watchSettled = 2 // times in a row that a record must be seen where servers settle
	watchMisses  = 4 // records of a zone that a server is asked about in one go while it has none of them
)

// pause returns how long to wait before a server is asked again that had nothing new for so long.
func pause(quiet time.Duration) time.Duration {
	latest := watchLatest
	if quiet <= watchLong {
		latest = watchLater
	}
	return min(max(quiet/watchShare, watchSoonest), latest)
}

// watched is one server and the records that it is expected to get. It is asked about many records in one go, and only
// about the first few of a zone while nothing has arrived there.
type watched struct {
	where server
	wake  chan struct{}

	mu    sync.Mutex
	items []*item
	turn  int
	busy  bool

	stream bool // it answers by TCP and not by UDP; of its goroutine alone
}

// item is one record that one order waits for at one server.
type item struct {
	TXT
	recurse bool            // the server is a resolver
	looks   int             // how often in a row the record must be seen
	poke    chan<- struct{} // the order should look
	wake    chan<- struct{} // the server's goroutine should look

	turn int // when the server was asked last; of its goroutine alone, as is what follows
	hits int // how often in a row it was seen to have the record

	mu     sync.Mutex
	seen   bool
	gone   bool   // no order waits any more
	last   string // what the server said last
	silent bool   // it said nothing at all the last time
}

// expect adds an item and makes the server's goroutine look at once.
func (s *watched) expect(it *item, running *sync.WaitGroup) {
	it.last, it.wake = "hasn't answered yet", s.wake
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

// run asks until no order waits for anything any more.
func (s *watched) run() {
	for since := time.Now(); ; {
		items := s.pending()
		if items == nil {
			return
		}
		found, again := s.round(items)
		if found || again {
			since = time.Now()
		}
		if found && !again {
			continue
		}
		timer := time.NewTimer(pause(time.Since(since)))
		select {
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
			since = time.Now()
		}
	}
}

// pending drops what is done and returns the rest: first what was there and must be seen again, then what wasn't asked
// about for longest, so that records that never come don't stand before the others. It ends the goroutine by returning nil.
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
	slices.SortStableFunc(kept, func(a, b *item) int { return cmp.Or(cmp.Compare(b.hits, a.hits), cmp.Compare(a.turn, b.turn)) })
	s.turn++
	return slices.Clone(kept)
}

// round asks about the items, of each zone until a few are missing before any was there. It reports whether any was found,
// and whether any must be seen again. Each round has a port of its own: where many machines answer at one address, another
// one may be asked then.
func (s *watched) round(items []*item) (found, again bool) {
	client := dns.Client{Net: "udp", Timeout: queryTimeout, UDPSize: udpSize}
	conn, err := client.Dial(s.where.addr)
	if err != nil {
		missAll(items, err)
		return false, false
	}
	defer conn.Close()
	arrived, misses := map[Zone]bool{}, map[Zone]int{}
	for i, it := range items {
		zone := Zone{it.Provider, it.Zone}
		if misses[zone] == watchMisses && !arrived[zone] {
			it.miss("lacks other new records of the zone, too,")
			continue
		}
		it.turn = s.turn
		reply, err := s.look(client, conn, it)
		if err != nil {
			missAll(items[i:], err)
			return found, again
		}
		if !holds(reply, it.Value) {
			misses[zone]++
			it.miss(answered(reply))
			continue
		}
		arrived[zone] = true
		if it.hits++; it.hits < it.looks {
			again = true
			it.note(false, "has the record, but not yet twice in a row,")
			continue
		}
		found = true
		it.note(true, "")
	}
	return found, again
}

// look asks for the TXT records of a name. It asks by TCP when the answer is too long for UDP, or doesn't come by UDP: a
// firewall may let nothing else through. Then it goes on by TCP, as long as that works.
func (s *watched) look(client dns.Client, conn *dns.Conn, it *item) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*queryTimeout)
	defer cancel()
	q := question(it.Name, dns.TypeTXT, it.recurse)
	var failed error
	if !s.stream {
		reply, err := exchange(ctx, client, conn, q, s.where.key)
		if err == nil && !reply.Truncated || err != nil && !Silent(err) {
			return reply, err
		}
		failed = err
	}
	reply, err := askBy(ctx, []string{"tcp"}, s.where, q)
	s.stream = err == nil && (s.stream || failed != nil)
	if err != nil && failed != nil {
		err = failed // the two say the same, as a rule
	}
	return reply, err
}

// missAll notes that a server can't be asked.
func missAll(items []*item, err error) {
	silent, last := Silent(err), unreachable(err)
	for _, it := range items {
		it.miss(last)
		it.mu.Lock()
		it.silent = silent
		it.mu.Unlock()
		if silent {
			signal(it.poke)
		}
	}
}

// miss notes that the record wasn't seen.
func (it *item) miss(last string) {
	it.hits = 0
	it.note(false, last)
}

func (it *item) note(seen bool, last string) {
	it.mu.Lock()
	it.seen, it.last, it.silent = seen, last, false
	it.mu.Unlock()
	if seen {
		signal(it.poke)
	}
}

// signal makes the receiver look, unless it is about to.
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

// isSilent reports whether the server gave no answer when it was asked last.
func (it *item) isSilent() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.silent
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
