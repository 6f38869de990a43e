package zones

import (
	"cmp"
	"slices"
	"sync"
)

// quorum holds the records of one order in one zone, the servers that should have them, and how many of these are enough.
// The resolvers that are asked about a zone after its servers are a quorum of their own.
type quorum struct {
	provider Provider
	records  []TXT
	members  []*member
	enough   int  // servers; 0 for all
	logged   bool // that they can't be asked
}

// member is one address of one server.
type member struct {
	endpoint
	watched *watched
	recurse bool    // it is a resolver
	items   []*item // nil before the quorum begins
}

func (m *member) String() string {
	if m.recurse {
		return "resolver " + m.addr
	}
	return m.endpoint.String()
}

// of returns the name of the server that the address belongs to.
func (m *member) of() string { return cmp.Or(m.name, m.String()) }

// missing returns the first item that wasn't seen yet.
func (m *member) missing() (it *item, last string) {
	for _, it := range m.items {
		if seen, last := it.state(); !seen {
			return it, last
		}
	}
	return nil, ""
}

// isSilent reports whether the server gave no answer about any of the items.
func (m *member) isSilent() bool {
	return len(m.items) > 0 && !slices.ContainsFunc(m.items, func(it *item) bool { return !it.isSilent() })
}

func (m *member) complete() bool {
	it, _ := m.missing()
	return it == nil && m.items != nil
}

// begin has all members watched for all records.
func (q *quorum) begin(running *sync.WaitGroup, poke chan<- struct{}) {
	looks := 1
	if q.provider.Settle {
		looks = watchSettled
	}
	for _, m := range q.members {
		for _, r := range q.records {
			it := &item{TXT: r, recurse: m.recurse, looks: looks, poke: poke}
			m.items = append(m.items, it)
			if m.dead != "" {
				it.last, it.silent, it.wake = m.dead, true, make(chan struct{}, 1)
				continue
			}
			m.watched.expect(it, running)
		}
	}
}

// leave ends the watching.
func (q *quorum) leave() {
	for _, m := range q.members {
		for _, it := range m.items {
			it.leave()
		}
	}
}

// tally counts the servers, and those of them that have all records at all their addresses.
func tally(members []*member) (have, servers int) {
	complete := map[string]bool{}
	for _, m := range members {
		so, known := complete[m.of()]
		complete[m.of()] = m.complete() && (so || !known)
	}
	for _, so := range complete {
		if so {
			have++
		}
	}
	return have, len(complete)
}

// tally counts only the servers that the zone's NS records name.
func (q *quorum) tally() (have, servers int) {
	return tally(slices.DeleteFunc(q.counted(), func(m *member) bool { return m.hidden }))
}

// counted returns the members that matter. Where not all servers are needed, an address that says nothing is left aside
// when its server has the records at another one: a resolver that gets no answer there asks the next address.
func (q *quorum) counted() []*member {
	counted := slices.Clone(q.members)
	if q.enough == 0 {
		return counted
	}
	return slices.DeleteFunc(counted, func(m *member) bool {
		return m.isSilent() && slices.ContainsFunc(q.members, func(o *member) bool { return o.of() == m.of() && o.complete() })
	})
}

// satisfied reports whether enough servers have the records. The one that took the update is always among them.
func (q *quorum) satisfied() bool {
	have, servers := q.tally()
	return have >= min(cmp.Or(q.enough, servers), servers) && q.effective()
}

// effective reports whether the server that took the update has the records.
func (q *quorum) effective() bool {
	return !slices.ContainsFunc(q.counted(), func(m *member) bool { return m.primary && !m.complete() })
}

// membersOf returns the members of all quorums.
func membersOf(quorums []*quorum) (members []*member) {
	for _, q := range quorums {
		members = append(members, q.members...)
	}
	return members
}

// zonesOf returns the zones of quorums.
func zonesOf(quorums []*quorum) (zones []Zone) {
	for _, q := range quorums {
		zones = append(zones, q.records[0].In())
	}
	return zones
}
