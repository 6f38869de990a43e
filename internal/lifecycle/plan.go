package lifecycle

import (
	"autocertd/internal/state"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/knownca"
	"autocertd/internal/printable"
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
