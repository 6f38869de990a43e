package dns01

import (
	"context"
	"errors"
	"fmt"
	"time"

	"autocertd/internal/zones"
)

// Sweep takes over what dead processes left in the journal and tries again what couldn't be removed. It is called at
// start and at every tick, and goes through the same queues as every removal.
func (s *Solver) Sweep(ctx context.Context) error {
	s.Zones().Probe(ctx)
	return s.sweep(ctx, time.Now())
}

// sweep tries again what is due at a moment.
func (s *Solver) sweep(ctx context.Context, due time.Time) error {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	if s.journal.slots == nil {
		return nil
	}
	s.expire(ctx)
	var err error
	if !s.isClosing() {
		err = s.journal.refreshLocked(ctx, s.inherit)
	}
	s.retry(ctx, due)
	return err
}

func (s *Solver) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// expire removes the kept records whose orders have ended, or had their time.
func (s *Solver) expire(ctx context.Context) {
	if !s.has(func(r *record) bool { return r.state == stateKept }) {
		return
	}
	open, now := s.openOrders(ctx), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireLocked(func(r *record) bool { return !open(r.challenge) || !now.Before(r.until) })
}

func (s *Solver) expireLocked(which func(*record) bool) {
	for _, r := range s.records {
		if r.state == stateKept && which(r) && r.expire() {
			s.followLocked(r)
		}
	}
}

// has reports whether there is such a record.
func (s *Solver) has(which func(*record) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if which(r) {
			return true
		}
	}
	return false
}

// retry queues again what couldn't be removed, is due at a moment and can be removed now. What another process needs by now
// is left to that. The journal is locked.
func (s *Solver) retry(ctx context.Context, due time.Time) {
	configured := func(r *record) bool {
		_, ok := s.table().provider(r.Provider)
		return ok && r.state == stateFailed
	}
	if !s.has(configured) {
		return
	}
	elsewhere := s.journal.elsewhereLocked(ctx)
	var empty []*group
	s.mu.Lock()
	for key, r := range s.records {
		switch {
		case !configured(r):
			continue
		case elsewhere[key]:
			done, _ := r.abandon()
			empty = append(empty, done...)
		case r.isDue(due):
			r.retry()
		}
		s.followLocked(r)
	}
	s.mu.Unlock()
	s.journal.drop(ctx, empty)
}

// Close sends what still waits, removals above all, tries once more what couldn't be removed, and gives the journal back.
// When the context ends it breaks off. It is called when the orders have ended; nothing is sent after it. What could not
// be removed is an error, and stays in the journal for the next process.
func (s *Solver) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.expireLocked(func(*record) bool { return true })
	s.pokeAllLocked()
	s.mu.Unlock()
	s.finish(ctx)
	if ctx.Err() == nil && s.has(func(r *record) bool { return r.state == stateFailed }) {
		if err := s.sweep(ctx, time.Now().Add(time.Hour)); err != nil { // whenever it is due
			s.cfg.Logger.Warn("records that couldn't be removed aren't tried again", "err", err)
		}
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.finish(ctx)
	s.cfg.Zones.Close()
	s.stop()
	s.journal.close()
	return s.leftBehind(ctx.Err())
}

// finish waits until nothing is on its way; when the context ends, it stops what is.
func (s *Solver) finish(ctx context.Context) {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-ctx.Done():
		s.stop()
		<-idle
	}
}

// leftBehind returns an error that says how many records stay behind and why, or nil. Those of a provider that is gone
// were logged when it went.
func (s *Solver) leftBehind(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, sure := 0, true
	for _, r := range s.records {
		if len(r.groups) == 0 || errors.Is(r.failure, zones.ErrNoProvider) {
			continue
		}
		n++
		sure = sure && r.confirmed
		if why == nil {
			why = r.failure
		}
	}
	switch {
	case n == 0:
		return nil
	case why == nil:
		why = errors.New("their orders haven't ended")
	}
	records, are, them := "records", "are still", "they are in the journal, and the next start removes them"
	if n == 1 {
		records, are, them = "record", "is still", "it is in the journal, and the next start removes it"
	}
	if !sure { // no server said that all of them had been published
		are = "may be"
	}
	return fmt.Errorf("%d TXT %s %s published; %s: %w", n, records, are, them, why)
}
