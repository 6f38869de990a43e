package zones

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// PropagationError says which servers didn't get a record in time.
type PropagationError struct {
	After   time.Duration
	Servers int      // that should have it
	Have    int      // that have it
	Missing []string // one sentence for each address that hasn't, of the first few
	Hint    string   // the cure

	late   int // addresses that haven't it
	silent int // addresses of those that gave no answer at all
}

// Silent reports whether none of the servers that lack the record said anything.
func (e *PropagationError) Silent() bool { return e.late > 0 && e.silent == e.late }

// lateShown bounds how many of the addresses that lack a record an error names.
const lateShown = 5

// Error returns how many servers have the records, and the first of those that haven't.
func (e *PropagationError) Error() string {
	return fmt.Sprintf("after %s, %d of %d servers have the records: %s", e.After, e.Have, e.Servers, strings.Join(e.Missing, "; "))
}

// Cure returns the hint.
func (e *PropagationError) Cure() string { return e.Hint }

// laggards returns an error that says which servers lack which record, and what they answered last; nil when the last of them
// got it at the last moment.
func laggards(quorums []*quorum, after time.Duration) error {
	e := &PropagationError{After: after}
	failed := slices.DeleteFunc(slices.Clone(quorums), (*quorum).satisfied)
	late := slices.DeleteFunc(membersOf(failed), (*member).complete)
	if len(late) == 0 {
		return nil
	}
	e.Missing = lacking(late)
	for _, m := range late {
		if m.isSilent() {
			e.silent++
		}
	}
	e.late = len(late)
	e.Have, e.Servers = tally(membersOf(quorums))
	e.Hint = hintFor(failed)
	walled := func(q *quorum) bool { // none of the servers in its NS records can be asked from here
		return !slices.ContainsFunc(q.members, func(m *member) bool { return m.recurse || !m.hidden && !m.isSilent() })
	}
	if slices.ContainsFunc(failed, walled) && failed[0].provider.Check != CheckResolvers {
		e.Hint += `; where a firewall lets this machine ask resolvers only: check = "resolvers", and their addresses in [resolvers] public = ["ADDRESS"]`
	}
	return e
}

// lacking returns a sentence for each of the first few servers, in order, about a record that it lacks.
func lacking(late []*member) (said []string) {
	for _, m := range late {
		it, last := m.missing()
		if it == nil {
			continue // it got the last one in this moment
		}
		text := fmt.Sprintf("%s %s when asked for %s", m, last, it.Name)
		if m.dead != "" {
			text = fmt.Sprintf("%s %s", m, m.dead)
		}
		said = append(said, text)
	}
	slices.Sort(said)
	if len(said) > lateShown {
		said = append(said[:lateShown:lateShown], fmt.Sprintf("and %d more", len(said)-lateShown))
	}
	return said
}

// ineffective returns the server that took an update, confirmed it, and answers that nothing of it is there.
func ineffective(failed []*quorum) *member {
	for _, m := range membersOf(failed) {
		if _, last := m.missing(); m.primary && slices.Contains([]string{lacksName, lacksTXT, lacksValue}, last) {
			return m
		}
	}
	return nil
}

// hintFor returns what to do about servers that lag, or about resolvers.
func hintFor(failed []*quorum) string {
	text := "look at NOTIFY and zone transfers to them and at their port 53, or set nameservers to those that the CA can ask"
	resolvers := failed[0].members[0].recurse
	if m := ineffective(failed); m != nil {
		text = fmt.Sprintf("%s took the update and doesn't have the record: see whether a policy of its own drops it (as lua-dnsupdate-policy-script of PowerDNS does), "+
			"or another program removes what is at that name", m)
	}
	if resolvers {
		text = `a resolver remembers for a while that there was no record (the last number of the zone's SOA): wait, or set check = "authoritative"`
		if slices.ContainsFunc(membersOf(failed), func(m *member) bool { _, last := m.missing(); return last == lacksValue }) {
			text = `a resolver remembers the records that were there before, for as long as their TTL says: wait, or set check = "authoritative"`
		}
	}
	enough := len(membersOf(failed))
	for _, q := range failed {
		few := *q
		few.enough = max(q.enough, 1) // as the proposal has it
		have, _ := few.tally()
		if !few.effective() {
			have = 0
		}
		enough = min(enough, have)
	}
	text += ", or raise propagation_timeout"
	if enough > 0 && !resolvers {
		text += fmt.Sprintf(", or go on without them: min_nameservers = %d", enough)
	}
	return text
}
