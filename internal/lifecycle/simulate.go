package lifecycle

import (
	"cmp"
	"slices"
	"time"

	"autocertd/internal/budget"
	"autocertd/scheduler"
)

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
		due, _ := scheduler.RenewAt(scheduler.Facts{NotBefore: notBefore, NotAfter: notAfter,
			Window: f.snapshot.Window, Schedule: f.snapshot.Schedule, Emergency: f.snapshot.Emergency})
		lives = append(lives, life{f, notAfter, due})
	}
	return lives
}
