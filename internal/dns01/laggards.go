package dns01

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
	Cure    string

	late   int // addresses that haven't it
	silent int // addresses of those that gave no answer at all
}

// Silent reports whether none of the servers that lack the record said anything.
func (e *PropagationError) Silent() bool { return e.late > 0 && e.silent == e.late }

// lateShown is how many of the addresses that lack a record are named in an error.
const lateShown = 5

func (e *PropagationError) Error() string {
	return fmt.Sprintf("after %s, %d of %d servers have the records: %s; %s", e.After, e.Have, e.Servers, strings.Join(e.Missing, "; "), e.Cure)
}

// laggards says which servers lack which record, what they answered last, and what is usual for them. It is nil when the
// last of them got it at the last moment.
func laggards(quorums []*quorum, after time.Duration) error {
	e := &PropagationError{After: after}
	failed := slices.DeleteFunc(slices.Clone(quorums), (*quorum).satisfied)
	var late []*member
	for _, m := range membersOf(failed) {
		it, last := m.missing()
		if it == nil {
			continue
		}
		if it.isSilent() {
			e.silent++
		}
		said := fmt.Sprintf("%s %s when asked for %s", m, last, it.name)
		if usual := m.server.usually(); usual > 0 {
			said += fmt.Sprintf(" (it usually has records within %s)", usual)
		}
		e.Missing = append(e.Missing, said)
		late = append(late, m)
	}
	if len(late) == 0 {
		return nil
	}
	for _, m := range late {
		m.server.lagged()
	}
	slices.Sort(e.Missing)
	if e.late = len(late); e.late > lateShown {
		e.Missing = append(e.Missing[:lateShown:lateShown], fmt.Sprintf("and %d more", e.late-lateShown))
	}
	e.Have, e.Servers = tally(membersOf(quorums))
	e.Cure = cure(failed, after)
	return e
}

// cure is what to do about servers that lag, or about resolvers.
func cure(failed []*quorum, after time.Duration) string {
	text := "look at NOTIFY and zone transfers to them and at their port 53, or set nameservers to those that the CA can ask"
	resolvers := failed[0].members[0].recurse
	if resolvers {
		text = `a resolver remembers for a while that there was no record (the last number of the zone's SOA): wait, or set check = "authoritative"`
	}
	limit, enough := time.Duration(0), len(membersOf(failed))
	for _, q := range failed {
		limit = max(limit, q.provider.PropagationTimeout)
		have, _ := q.tally()
		if !q.effective() {
			have = 0
		}
		enough = min(enough, have)
	}
	if after < limit {
		text += fmt.Sprintf(", or leave it to the next attempt, which looks for up to %s", limit)
	} else {
		text += ", or raise propagation_timeout"
	}
	if enough > 0 && !resolvers {
		text += fmt.Sprintf(", or go on without them: min_nameservers = %d", enough)
	}
	return text
}
