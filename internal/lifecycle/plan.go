package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/knownca"
	"autocertd/internal/printable"
	"autocertd/internal/state"
	"autocertd/scheduler"
)

// Planned says when the next order for a certificate is made, and why.
type Planned struct {
	Name     string    `json:"name"`
	CA       string    `json:"ca"`
	First    bool      `json:"first,omitempty"` // there is none yet
	Why      string    `json:"why"`
	Due      time.Time `json:"due"`
	At       time.Time `json:"at"`                  // when it is due and the CA has room
	Held     string    `json:"held,omitempty"`      // the limit that it waits for
	Last     []string  `json:"takes_last,omitzero"` // the limits that it uses up
	Exempt   bool      `json:"exempt,omitempty"`    // the CA counts it for no limit
	NotAfter time.Time `json:"not_after,omitzero"`  // of the certificate that there is

	Unreadable string `json:"unreadable,omitempty"` // why nothing is known of it, and so nothing else here
}

// Late reports whether the certificate expires before its turn comes.
func (p Planned) Late() bool { return !p.NotAfter.IsZero() && p.NotAfter.Before(p.At) }

// facts are a plan's input for one certificate.
type facts struct {
	*job
}

// Plan says what is next for each certificate, in the order in which it happens, and how a scenario would end if one is
// given; nil when there is no certificate to play it with. It sends nothing and changes nothing.
func Plan(ctx context.Context, store state.Store, s *Snapshot, scenario *Scenario, now time.Time) ([]Planned, *Simulation, error) {
	ledgers := map[string]*budget.Ledger{}
	for name, ca := range s.CAs {
		if !ca.Limits().Any() {
			continue
		}
		ledger, _, err := loadLedger(ctx, store, ca)
		if err != nil {
			return nil, nil, err
		}
		ledgers[name] = ledger
	}
	m := New(Config{Storage: store})
	var all []facts
	var unreadable []Planned
	for _, name := range slices.Sorted(maps.Keys(s.Certificates)) {
		f, err := m.facts(ctx, s, s.Certificates[name], now)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil { // it is this certificate's problem alone
			unreadable = append(unreadable, Planned{Name: name, CA: f.cert.CAs[0], Unreadable: printable.Lines(err.Error())})
			continue
		}
		all = append(all, f)
	}
	planned := append(unreadable, plan(all, ledgers, now)...)
	if scenario == nil {
		return planned, nil, nil
	}
	return planned, simulate(*scenario, all, planned, ledgers), nil
}

// facts reads the state of a certificate. A bundle that is of no use counts as none.
func (m *Manager) facts(ctx context.Context, s *Snapshot, cert config.Certificate, now time.Time) (facts, error) {
	f := facts{&job{Manager: m, snapshot: s, cert: cert}}
	c, err := state.Load(ctx, m.cfg.Storage, cert.Name, cert.CAs)
	if err != nil {
		return f, err
	}
	var damaged *state.DamagedError
	if err := c.Faults.Bundle; err != nil && !errors.As(err, &damaged) {
		return f, err
	}
	for _, err := range c.Faults.Orders {
		return f, err
	}
	c.Sanitize(now)
	f.state = c
	return f, nil
}

// plan computes the plan from the facts, the ledgers and the moment alone.
func plan(all []facts, ledgers map[string]*budget.Ledger, now time.Time) []Planned {
	claims := make([]budget.Claim, len(all))
	rows := make(map[string]Planned, len(all))
	for i, f := range all {
		row := f.next(now)
		rows[row.Name] = row
		ledger := ledgers[row.CA]
		var limits knownca.Limits
		if ledger != nil {
			limits = ledger.Limits
		}
		w := f.claim(limits, f.snapshot.CAs[row.CA].Directory, now)
		if row.Exempt || f.state.Orders[row.CA] != nil { // an order that is open was counted
			w.Keys, w.Needs = nil, nil
		}
		w.Due, w.Ledger = row.Due, ledger
		claims[i] = w
	}
	list := make([]Planned, 0, len(all))
	for _, turn := range budget.Plan(now, claims) {
		row := rows[turn.Name]
		row.At = turn.At
		if turn.Tight != "" {
			row.Held = budget.Describe(ledgers[row.CA].Limits, turn.Tight)
		}
		for _, key := range turn.Last {
			row.Last = append(row.Last, budget.Describe(ledgers[row.CA].Limits, key))
		}
		list = append(list, row)
	}
	return list
}

// next returns the row of a certificate as if there were room.
func (f facts) next(now time.Time) Planned {
	row := Planned{Name: f.cert.Name, First: f.state.Bundle == nil, Due: now}
	if row.Why = f.view().due(now); row.Why == "" {
		row.Due, row.Why = f.view().renewal(now)
	}
	if f.state.X509 != nil {
		row.NotAfter = f.state.X509.NotAfter.UTC()
	}
	if t := f.state.Issue; t.Failures > 0 && t.RetryAt.After(row.Due) {
		row.Due, row.Why = t.RetryAt, row.Why+"; the next try after a failure"
	}
	for i, ca := range f.cert.CAs { // the first that may be asked then
		if i == 0 || !f.state.AskAfter[ca].After(row.Due) && f.state.AskAfter[row.CA].After(row.Due) {
			row.CA = ca
		}
	}
	row.Due = row.Due.UTC()
	row.Exempt = f.exempt(f.snapshot.CAs[row.CA].Directory, row.Due)
	return row
}

// Scenario asks a plan: what if nothing could be issued for a while?
type Scenario struct {
	Lifetime time.Duration // of all certificates; 0 leaves to each its own
	Outage   time.Duration
}

// Simulation is the answer, for an outage that begins at the worst moment: when the certificate is due that has the least
// time left then.
type Simulation struct {
	From    time.Time `json:"outage_from"`
	To      time.Time `json:"outage_to"`
	First   string    `json:"first"`   // the certificate that would expire first, or would come closest to it
	Expires time.Time `json:"expires"` // when it does
	Renewed time.Time `json:"renewed"` // when its successor comes
	Delayed int       `json:"delayed"` // certificates that are due during the outage
	Expired int       `json:"expired"` // of those
}

// life is a certificate in a scenario.
type life struct {
	facts
	notAfter, due time.Time
}

// simulate plays a scenario: a function of the facts, the plan for them, and the ledgers. It returns nil when there is no
// certificate to play it with.
func simulate(sc Scenario, all []facts, planned []Planned, ledgers map[string]*budget.Ledger) *Simulation {
	lives := sc.lives(all, planned)
	if len(lives) == 0 {
		return nil
	}
	worst := slices.MinFunc(lives, func(a, b life) int {
		return cmp.Or(cmp.Compare(a.notAfter.Sub(a.due), b.notAfter.Sub(b.due)), a.due.Compare(b.due), cmp.Compare(a.cert.Name, b.cert.Name))
	})
	result := &Simulation{From: worst.due.UTC(), To: worst.due.Add(sc.Outage).UTC()}
	ends := map[string]time.Time{}
	var claims []budget.Claim
	for _, l := range lives {
		if l.due.Before(result.From) || l.due.After(result.To) {
			continue
		}
		// The renewal comes after the window that the CA suggested, so it counts.
		claim := budget.Claim{Name: l.cert.Name, Due: result.To, Urgency: float64(l.notAfter.Sub(result.To)), Ledger: ledgers[l.cert.CAs[0]]}
		if claim.Ledger != nil {
			claim.Keys = budget.Keys(claim.Ledger.Limits, l.cert.Hostnames, true)
		}
		claims = append(claims, claim)
		ends[l.cert.Name] = l.notAfter
	}
	for _, turn := range budget.Plan(result.To, claims) {
		end := ends[turn.Name]
		result.Delayed++
		if end.Before(turn.At) {
			result.Expired++
		}
		if result.First == "" || end.Sub(turn.At) < result.Expires.Sub(result.Renewed) {
			result.First, result.Expires, result.Renewed = turn.Name, end.UTC(), turn.At.UTC()
		}
	}
	return result
}

// lives returns the certificates of the scenario: the present ones, or with another lifetime their successors.
func (sc Scenario) lives(all []facts, planned []Planned) (lives []life) {
	issued := map[string]time.Time{}
	for _, p := range planned {
		issued[p.Name] = p.At
	}
	for _, f := range all {
		var notBefore, notAfter time.Time
		switch {
		case sc.Lifetime > 0:
			notBefore = issued[f.cert.Name]
			notAfter = notBefore.Add(sc.Lifetime)
		case f.state.X509 == nil:
			continue
		default:
			notBefore, notAfter = f.state.X509.NotBefore, f.state.X509.NotAfter
		}
		due, _ := scheduler.RenewAt(scheduler.Facts{
			NotBefore: notBefore,
			NotAfter:  notAfter,
			Window:    f.snapshot.Window,
			Schedule:  f.snapshot.Schedule,
			Emergency: f.snapshot.Emergency,
		})
		lives = append(lives, life{f, notAfter, due})
	}
	return lives
}
