package lifecycle

import (
	"errors"
	"slices"
	"strings"
	"time"

	"autocertd/internal/state"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// A server that gives no answer says nothing about a certificate. So an outage is waited for in another way than a refusal:
// never longer than a quarter of an hour, and no longer than until another certificate was issued with that server's help.

// silence is who gave no answer during an attempt.
type silence struct {
	parties []string
	others  bool // something else went wrong too
}

// caParty and dnsParty name those that may be silent. A domain stands for the servers of its zone.
func caParty(ca string) string { return "CA " + ca }

func (j *job) dnsParty() string {
	_, domain, _ := strings.Cut(j.cert.Hostnames[0], ".")
	return dnsPrefix + domain
}

const dnsPrefix = "DNS "

// note takes over how an attempt at a CA failed.
func (j *job) noteSilence(s *silence, ca string, err error) {
	e, atCA := errors.AsType[*issuer.Error](err)
	switch {
	case atCA && e.Silent:
		s.parties = append(s.parties, caParty(ca))
	case !atCA && zones.Silent(err):
		s.parties = append(s.parties, j.dnsParty())
	default:
		s.others = true
	}
}

// partySeparator is between those that are silent, in a state.
const partySeparator = ", "

// silent are those that gave no answer at the last try.
func silentParties(t state.Trouble) []string {
	if t.Silent == "" {
		return nil
	}
	return strings.Split(t.Silent, partySeparator)
}

// outage reports whether nothing went wrong but that somebody gave no answer.
func (s silence) outage() bool { return len(s.parties) > 0 && !s.others }

// answered notes that somebody has helped to issue a certificate, or to prove a hostname, and wakes those who wait for that.
func (m *Manager) answered(parties ...string) {
	m.mu.Lock()
	now := time.Now()
	waiting := map[string]bool{}
	for _, party := range parties {
		for name := range m.silent[party] {
			waiting[name] = true
		}
		delete(m.silent, party)
		m.heard[party] = now
	}
	m.mu.Unlock()
	if len(waiting) > 0 && m.cfg.Wake != nil {
		m.cfg.Wake(func(name string) bool { return waiting[name] })
	}
}

// DNSAnswers notes that DNS servers that were silent answer again, and wakes those who wait for any.
func (m *Manager) DNSAnswers() {
	m.mu.RLock()
	var parties []string
	for party := range m.silent {
		if strings.HasPrefix(party, dnsPrefix) {
			parties = append(parties, party)
		}
	}
	m.mu.RUnlock()
	m.answered(parties...)
}

// hasAnswered reports whether one of those that gave no answer at the last failure has given one since.
func (m *Manager) hasAnswered(t state.Trouble) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return t.Failures > 0 && slices.ContainsFunc(silentParties(t), func(party string) bool { return m.heard[party].After(t.At) })
}

// awaits keeps in memory whom a certificate waits for. The lock is held.
func (m *Manager) awaits(name string, t state.Trouble) {
	for party, names := range m.silent {
		if delete(names, name); len(names) == 0 {
			delete(m.silent, party)
		}
	}
	for _, party := range silentParties(t) {
		if m.silent[party] == nil {
			m.silent[party] = map[string]bool{}
		}
		m.silent[party][name] = true
	}
}
