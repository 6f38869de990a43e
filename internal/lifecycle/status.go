package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/printable"
	"autocertd/internal/state"
	"autocertd/internal/store"
)

// Condition is how a certificate is, in one word or two.
type Condition string

// The conditions, as status shows them.
const (
	Valid       Condition = "valid"
	Due         Condition = "renewal due"
	OnHold      Condition = "held"    // due, and the CA would refuse the order
	Failing     Condition = "failing" // the last try to issue failed
	NotDeployed Condition = "not deployed"
	ByHand      Condition = "waits for a record" // that a person must add
	Missing     Condition = "not issued yet"
	Expired     Condition = "expired"
	Revoked     Condition = "revoked"      // we had the CA revoke it; it is replaced
	AtWork      Condition = "waits for CA" // which hasn't decided about the order yet
	Unreadable  Condition = "unreadable"   // what is remembered of it can't be read
)

// Status is everything that is known about one certificate, without its keys.
type Status struct {
	Name      string        `json:"name"`
	Hostnames []string      `json:"hostnames"` // as configured
	Condition Condition     `json:"state"`
	NotBefore time.Time     `json:"not_before,omitzero"`
	NotAfter  time.Time     `json:"not_after,omitzero"`
	RenewAt   time.Time     `json:"renew_at,omitzero"`
	RenewWhy  string        `json:"renew_why,omitempty"`
	NextLook  time.Time     `json:"next_look,omitzero"`
	Leaf      state.Leaf    `json:"leaf,omitzero"`
	Issue     state.Trouble `json:"issue,omitzero"`
	Deploy    state.Trouble `json:"deploy,omitzero"`
	Pending   []string      `json:"pending,omitempty"`
	ByHand    []string      `json:"by_hand,omitempty"`
	Held      state.Held    `json:"held,omitzero"`
	Working   state.Working `json:"working,omitzero"`

	Unreadable string `json:"unreadable,omitempty"` // why nothing is known of it

	ARI state.Suggestion `json:"renewal_info,omitzero"`
}

// LastError is why nothing is known of it, else why it is held, else the last error, of issuing before that of deploying, else what a person must do; ""
// when there is nothing of that.
func (s Status) LastError() string {
	return cmp.Or(s.Unreadable, s.Held.Reason, s.Working.What, s.Issue.Error, s.Deploy.Error, strings.Join(s.ByHand, "; "), s.revocation())
}

// LastCure returns what a person can do about [Status.LastError], "" where nothing is known.
func (s Status) LastCure() string {
	switch s.LastError() {
	case "":
		return ""
	case s.Issue.Error:
		return s.Issue.Cure
	case s.Deploy.Error:
		return s.Deploy.Cure
	}
	return ""
}

// revocation says when and why a certificate was revoked, and what comes next; "" for one that wasn't.
func (s Status) revocation() string {
	r := s.Leaf.Revoked
	if r.At.IsZero() {
		return ""
	}
	if r.Reason == "" {
		return fmt.Sprintf("found revoked at %s; while it is configured, another one is ordered at the next look", r.At.Format(time.RFC3339))
	}
	return fmt.Sprintf("revoked at %s (%s); while it is configured, another one is ordered at the next look", r.At.Format(time.RFC3339), r.Reason)
}

// Statuses returns the status of each certificate on a host, the most urgent first. One whose state can't be read hides no
// other.
func Statuses(ctx context.Context, r store.Reader, node string, certs []config.Certificate, now time.Time) ([]Status, error) {
	list := make([]Status, 0, len(certs))
	load, err := loader(ctx, r, node, len(certs))
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		c, d, err := load(cert.Name)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			list = append(list, Status{Name: cert.Name, Hostnames: cert.Hostnames, Condition: Unreadable, Unreadable: printable.Lines(err.Error())})
			continue
		}
		list = append(list, Status{
			Name:      cert.Name,
			Hostnames: cert.Hostnames,
			Condition: condition(c, d, now),
			NotBefore: c.Leaf.NotBefore,
			NotAfter:  c.Leaf.NotAfter,
			RenewAt:   c.RenewAt,
			RenewWhy:  c.RenewWhy,
			NextLook:  nextLook(c, d),
			Leaf:      c.Leaf,
			Issue:     c.Issue,
			Deploy:    d.Trouble,
			Pending:   d.Pending,
			ByHand:    c.ByHand,
			Held:      c.Held,
			Working:   c.Working,
			ARI:       c.ARI,
		})
	}
	slices.SortStableFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(concern(a.Condition), concern(b.Condition)), a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// loader returns what loads certificates: of a few each by itself, of many all by one scan.
func loader(ctx context.Context, r store.Reader, node string, n int) (func(name string) (*state.Certificate, *state.Deployment, error), error) {
	const few = 3
	if n <= few {
		return func(name string) (*state.Certificate, *state.Deployment, error) { return known(ctx, r, node, name) }, nil
	}
	all, err := state.LoadAll(ctx, r, node)
	return func(name string) (*state.Certificate, *state.Deployment, error) {
		k, ok := all[name]
		if !ok {
			return &state.Certificate{Name: name}, &state.Deployment{Name: name}, nil
		}
		return k.Certificate, k.Deployment, k.Err
	}, err
}

// known loads the facts of a certificate, and its deployment on a host.
func known(ctx context.Context, r store.Reader, node, name string) (*state.Certificate, *state.Deployment, error) {
	c, err := state.LoadFacts(ctx, r, name)
	if err != nil {
		return nil, nil, err
	}
	d, err := state.LoadDeployment(ctx, r, node, name)
	return c, d, err
}

// nextLook returns when a certificate is looked at again, or its files here.
func nextLook(c *state.Certificate, d *state.Deployment) time.Time {
	if next := d.Trouble.RetryAt; d.Trouble.Failures > 0 && next.Before(c.NextLook) {
		return next
	}
	return c.NextLook
}

func condition(s *state.Certificate, d *state.Deployment, now time.Time) Condition {
	switch {
	case !s.Leaf.NotAfter.IsZero() && !now.Before(s.Leaf.NotAfter):
		return Expired
	case s.IsRevoked():
		return Revoked
	case s.IsHeld():
		return OnHold
	case s.Working.CA != "":
		return AtWork
	case s.Issue.Failures > 0:
		return Failing
	case len(s.ByHand) > 0:
		return ByHand
	case s.Leaf.NotAfter.IsZero():
		return Missing
	case d.Trouble.Failures > 0:
		return NotDeployed
	case !s.RenewAt.IsZero() && !now.Before(s.RenewAt):
		return Due
	}
	return Valid
}

// concern orders conditions by how much a person should care.
func concern(c Condition) int {
	return slices.Index([]Condition{Expired, Unreadable, Revoked, Failing, NotDeployed, ByHand, OnHold, AtWork, Missing, Due, Valid}, c)
}
