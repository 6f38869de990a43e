package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/deploy"
	"autocertd/internal/printable"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// State is what is remembered about one certificate. All of it can be found out again, so it is saved without waiting
// for the disk; keys and open orders are objects of their own.
type State struct {
	Name     string     `json:"name"`
	Wish     string     `json:"wish,omitempty"` // what configuration was last acted on
	Leaf     Leaf       `json:"leaf"`           // zero before the first certificate
	NextLook time.Time  `json:"next_look"`
	RenewAt  time.Time  `json:"renew_at,omitzero"`
	RenewWhy string     `json:"renew_why,omitempty"`
	Issue    Trouble    `json:"issue,omitzero"`
	Deploy   Trouble    `json:"deploy,omitzero"`
	Pending  []string   `json:"pending,omitempty"` // what is still to do for the outputs
	ByHand   []string   `json:"by_hand,omitempty"` // the records that a person must add before the order can go on
	ARI      Suggestion `json:"ari,omitzero"`
	Held     Held       `json:"held,omitzero"`
	Working  Working    `json:"working,omitzero"`
	// AskAfter holds the CAs that said when to ask again: the Retry-After of each.
	AskAfter map[string]time.Time `json:"ask_after,omitempty"`

	// Compromised is the fingerprint of a certificate that is to be replaced at once, since others may have its key.
	Compromised string `json:"compromised,omitempty"`

	Outputs deploy.State `json:"outputs,omitempty"`

	// Bundle is the mark of the bundle that was last read, and found to be of one piece.
	Bundle string `json:"bundle,omitempty"`
}

// Leaf is what is known of the certificate that is on disk.
type Leaf struct {
	Hostnames   []string  `json:"hostnames,omitempty"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Serial      string    `json:"serial,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	CA          string    `json:"ca,omitempty"`

	Revoked Revocation `json:"revoked,omitzero"` // zero unless we had it revoked
}

// Working says that a CA hasn't decided about an order yet. That is no failure: the same order is asked again.
type Working struct {
	CA    string    `json:"ca"`
	What  string    `json:"what"` // in words
	Since time.Time `json:"since"`
	Again time.Time `json:"again"` // when the order is asked again
}

// Trouble is a row of failures that hasn't ended yet.
type Trouble struct {
	Failures int       `json:"failures,omitempty"`
	Error    string    `json:"error,omitempty"` // the problem of the last
	Cure     string    `json:"cure,omitempty"`  // what a person can do about it; states written before have it in Error
	At       time.Time `json:"at,omitzero"`
	RetryAt  time.Time `json:"retry_at,omitzero"`
	// Silent are those that gave no answer at the last try, as in "CA one, DNS corp.example". The first certificate that is issued
	// with their help ends the wait. Outage says that nothing but that went wrong.
	Silent string `json:"silent,omitempty"`
	Outage bool   `json:"outage,omitempty"`
	// AtCA says that a CA had a part in the last failure. CAs count those, so that it isn't repeated without need.
	AtCA bool `json:"at_ca,omitempty"`
}

// next is the trouble after one more failure.
func (t Trouble) next(err error, now, retry time.Time) Trouble {
	_, atCA := errors.AsType[*issuer.Error](err)
	return Trouble{Failures: t.Failures + 1, Error: printable.Lines(err.Error()), Cure: printable.Lines(cure.Of(err)), At: now.UTC(), RetryAt: retry.UTC(), AtCA: atCA}
}

// Suggestion is the CA's renewal window (RFC 9773) and the moment that was chosen in it, which stays as long as the
// window does.
type Suggestion struct {
	Start       time.Time `json:"start,omitzero"`
	End         time.Time `json:"end,omitzero"`
	Moment      time.Time `json:"moment,omitzero"`
	ChosenAt    time.Time `json:"chosen_at,omitzero"`
	Explanation string    `json:"explanation_url,omitempty"`
	AskAgain    time.Time `json:"ask_again,omitzero"`
	// Hurries counts the renewals before this certificate that the CA asked for at once, in a row.
	Hurries int `json:"hurries,omitempty"`
}

func stateObject(name string) string { return "states/" + name + ".json" }
func lockName(name string) string    { return "certificate-" + name }

// loadState returns the state of a certificate, an empty one when there is none. One that can't be read was torn by a
// power loss; it is found out again.
func loadState(ctx context.Context, storage store.Store, name string) (*State, error) {
	state := &State{Name: name}
	data, err := storage.Load(ctx, stateObject(name))
	switch {
	case errors.Is(err, store.ErrNotExist):
		return state, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(data, state); err != nil || state.Name != name {
		return &State{Name: name}, nil
	}
	return state, nil
}

func (m *Manager) saveState(ctx context.Context, s *State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return m.cfg.Storage.SaveLazily(context.WithoutCancel(ctx), stateObject(s.Name), data)
}

// maxFailures bounds what is counted. It is far beyond what can happen.
const maxFailures = 1_000_000

// mend takes out of a state what would make everything wait for years: the moments that a clock which was ahead has
// left, and what no clock can have.
func (s *State) mend(now time.Time) {
	ahead := now.Add(time.Minute) // clocks are put right by a second now and then
	if s.NextLook.After(now.Add(2 * lookInterval)) {
		s.NextLook = time.Time{}
	}
	if s.Issue.At.After(ahead) {
		s.AskAfter = nil // noted by the same clock
	}
	for _, t := range []*Trouble{&s.Issue, &s.Deploy} {
		if t.At.After(ahead) || t.RetryAt.After(ahead.Add(longestWait)) {
			t.RetryAt = time.Time{}
		}
		t.Failures = min(max(t.Failures, 0), maxFailures)
	}
	s.ARI.Hurries = max(s.ARI.Hurries, 0)
	if s.ARI.ChosenAt.After(ahead) || s.ARI.AskAgain.After(now.Add(2*askAtMost)) {
		s.ARI = Suggestion{}
	}
	if s.Held.Since.After(ahead) {
		s.Held = Held{}
	}
	if s.Working.Since.After(ahead) || s.Working.Again.After(ahead.Add(longestWait)) {
		s.Working.Since, s.Working.Again = now.UTC(), now.UTC()
	}
	for ca, until := range s.AskAfter {
		if until.After(ahead.Add(longestWait)) {
			delete(s.AskAfter, ca)
		}
	}
}

// wish is a mark of all that the configuration says about a certificate. Another mark means that somebody changed it.
func (s *Snapshot) wish(cert config.Certificate) string {
	type account struct {
		Directory, Profile, Email, KeyID string
		Roots                            []string
	}
	accounts := make([]account, len(cert.CAs))
	for i, name := range cert.CAs {
		ca := s.CAs[name]
		accounts[i] = account{Directory: ca.Directory, Profile: ca.Profile, Email: ca.Email, Roots: ca.RootFiles}
		if ca.EAB != nil {
			accounts[i].KeyID = ca.EAB.KeyID
		}
	}
	data, err := json.Marshal(struct {
		Certificate config.Certificate
		Accounts    []account
		Outputs     []deploy.Output
	}{cert, accounts, s.Outputs.Of(cert.Name)})
	if err != nil {
		panic(fmt.Sprintf("plain values can't fail to marshal: %v", err))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
