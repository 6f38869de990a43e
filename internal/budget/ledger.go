package budget

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"autocertd/internal/knownca"
)

// A Ledger counts the use of the limits of one account at one CA.
//
// A bucket is one moment: when it is full again if nothing more is taken from it. That is later by Rate.Each for each
// token taken, and at most Rate.Per ahead, when the bucket is empty. The moment at which the CA takes a token is known only
// once it has answered; until then an order under way counts as taken at the very moment of the question, which is the worst
// case. So the CA's buckets are never emptier than these.
type Ledger struct {
	Limits knownca.Limits `json:"-"`

	Full    map[Key]time.Time `json:"full,omitempty"` // of the buckets that aren't full
	Running []Running         `json:"running,omitempty"`
}

// Running is an order under way, and the buckets that it takes from.
type Running struct {
	ID    string    `json:"id"`
	Lease string    `json:"lease"` // under which it runs; once it is free, the order has ended
	Since time.Time `json:"since"`
	Keys  []Key     `json:"keys"`
}

// longestRun is how long an order takes at most. After it one counts as given up though its lease is held.
const longestRun = time.Hour

// Open reads a ledger. It reports false when the data is none.
func Open(data []byte, l knownca.Limits) (*Ledger, bool) {
	ledger := &Ledger{Limits: l}
	if json.Unmarshal(data, ledger) != nil {
		return &Ledger{Limits: l}, false
	}
	return ledger, true
}

// Advance brings a ledger to a moment: buckets that are full leave it, a clock that was ahead leaves no bucket emptier than
// empty, and orders that have ended count as taken: now, or at the latest moment at which they can have ended.
func (l *Ledger) Advance(now time.Time, alive func(Running) bool) {
	for _, run := range slices.Clone(l.Running) {
		if !alive(run) || now.Sub(run.Since) > longestRun || run.Since.After(now.Add(longestRun)) {
			l.End(run.ID)
			latest := run.Since.Add(longestRun)
			if run.Since.After(now) || latest.After(now) {
				latest = now
			}
			l.Spend(run.Keys, latest)
		}
	}
	for key, full := range l.Full {
		r := rate(l.Limits, key)
		switch empty := now.Add(r.Per); {
		case !r.Limited() || !full.After(now):
			delete(l.Full, key)
		case full.After(empty):
			l.Full[key] = empty
		}
	}
}

// Room returns when there is a token in all of the buckets, now at the earliest, and which bucket is the last to have it,
// "" when all have it now. ahead says how many others take a token of a bucket before; nil is none.
func (l *Ledger) Room(keys []Key, now time.Time, ahead func(Key) int) (at time.Time, tight Key) {
	at = now
	for _, key := range keys {
		r := rate(l.Limits, key)
		if !r.Limited() {
			continue
		}
		taken := 1
		if ahead != nil {
			taken += ahead(key)
		}
		for _, run := range l.Running {
			if slices.Contains(run.Keys, key) {
				taken++
			}
		}
		full := later(l.Full[key], now).Add(time.Duration(taken) * r.Each())
		if t := full.Add(-time.Duration(r.Count) * r.Each()); t.After(at) {
			at, tight = t, key
		}
	}
	return at, tight
}

// Spend takes a token from each of the buckets.
func (l *Ledger) Spend(keys []Key, now time.Time) {
	for _, key := range keys {
		if r := rate(l.Limits, key); r.Limited() {
			if l.Full == nil {
				l.Full = map[Key]time.Time{}
			}
			l.Full[key] = later(l.Full[key], now).Add(r.Each()).UTC()
		}
	}
}

// Return puts a token back into each of the buckets, for an order that the CA didn't count.
func (l *Ledger) Return(keys []Key) {
	for _, key := range keys {
		if r := rate(l.Limits, key); r.Limited() && !l.Full[key].IsZero() {
			l.Full[key] = l.Full[key].Add(-r.Each())
		}
	}
}

// Begin notes an order under way.
func (l *Ledger) Begin(run Running) { l.Running = append(l.Running, run) }

// End removes the running order of an id, and returns its buckets.
func (l *Ledger) End(id string) (keys []Key) {
	l.Running = slices.DeleteFunc(slices.Clone(l.Running), func(r Running) bool {
		if r.ID == id {
			keys = r.Keys
		}
		return r.ID == id
	})
	return keys
}

// OrdersOnly returns those of the buckets that count orders, not certificates.
func OrdersOnly(keys []Key) []Key {
	if slices.Contains(keys, orders) {
		return []Key{orders}
	}
	return nil
}

// NoOrders returns those of the buckets that count certificates, not orders.
func NoOrders(keys []Key) []Key {
	return slices.DeleteFunc(slices.Clone(keys), func(key Key) bool { return key == orders })
}

// Clone returns a ledger that changes alone.
func (l *Ledger) Clone() *Ledger {
	return &Ledger{Limits: l.Limits, Full: maps.Clone(l.Full), Running: slices.Clone(l.Running)}
}

// Left returns how many tokens a bucket has.
func (l *Ledger) Left(key Key, now time.Time) int {
	r := rate(l.Limits, key)
	if !r.Limited() {
		return 0
	}
	missing := later(l.Full[key], now).Sub(now)
	return max(r.Count-int((missing+r.Each()-1)/r.Each()), 0)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
