package lifecycle

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"autocertd/internal/deploy"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// deploy brings the outputs to the bundle. When they are right already, that only reads.
func (j *job) deploy(ctx context.Context) error {
	if j.bundle == nil {
		return nil
	}
	leaf := j.state.Leaf
	result, err := j.cfg.Deployer.Apply(ctx, deploy.Bundle{Name: j.cert.Name, Hostnames: leaf.Hostnames,
		Key: []byte(j.bundle.Key), Leaf: []byte(j.bundle.Leaf), Chain: []byte(j.bundle.Chain),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Serial: leaf.Serial, Fingerprint: leaf.Fingerprint,
		Issuer: leaf.Issuer, Directory: j.bundle.Directory}, j.snapshot.outputs(j.cert.Name), j.state.Outputs)
	j.state.Outputs, j.state.Pending = result.State, result.Pending
	if len(result.Changed) > 0 || len(result.Reloaded) > 0 {
		j.cfg.Logger.Info("certificate deployed", "certificate", j.cert.Name, "files", len(result.Changed), "reloaded", result.Reloaded)
	}
	if err == nil {
		j.state.Deploy = Trouble{}
		j.progress(issuer.Step{Name: Deployed})
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	now := time.Now()
	retry := scheduler.RetryAt(now, j.state.Deploy.Failures+1, rand.Float64(), time.Time{}, leaf.NotAfter.Sub(now))
	if latest := now.Add(lookInterval); retry.After(latest) {
		retry = latest // every look tries it
	}
	j.state.Deploy = j.state.Deploy.next(err, now, retry)
	j.cfg.Logger.Warn("certificate not deployed", "certificate", j.cert.Name, "failures", j.state.Deploy.Failures,
		"retry", retry.UTC().Format(time.RFC3339), "err", err)
	return err
}

// How often a CA is asked for renewal information: what it says, within bounds; RFC 9773 section 4.3.
const (
	askDefault = 6 * time.Hour
	askAtMost  = 12 * time.Hour
	askAtLeast = time.Minute
)

// askRenewalInfo asks the CA for its renewal window when the time has come. Failures cost nothing: the rule by lifetime
// holds meanwhile.
func (j *job) askRenewalInfo(ctx context.Context) {
	now := time.Now()
	if j.leaf == nil || now.Before(j.state.ARI.AskAgain) {
		return
	}
	iss := j.snapshot.Issuers[j.bundle.CA]
	if iss == nil || iss.DirectoryURL() != j.bundle.Directory {
		return
	}
	s, err := iss.RenewalInfo(ctx, j.leaf)
	if ctx.Err() != nil {
		return // nobody answered
	}
	wait := askDefault
	if !s.RetryAfter.IsZero() {
		wait = min(max(s.RetryAfter.Sub(now), askAtLeast), askAtMost)
	}
	j.state.ARI.AskAgain = now.Add(jitter(wait)).UTC()
	if err == nil && !(sayable(s.Start) && sayable(s.End)) {
		err = errors.New("the CA suggests a window outside of all calendars")
	}
	if err != nil {
		if !errors.Is(err, issuer.ErrNoRenewalInfo) {
			j.cfg.Logger.Debug("no renewal information", "certificate", j.cert.Name, "err", err)
		}
		return
	}
	if ari := j.state.ARI; s.Start.Equal(ari.Start) && s.End.Equal(ari.End) {
		return // the same window: the moment stays
	}
	moment := s.Start.Add(rand.N(s.End.Sub(s.Start)))
	j.state.ARI = Suggestion{Start: s.Start.UTC(), End: s.End.UTC(), Moment: moment.UTC(), ChosenAt: now.UTC(),
		Explanation: brief(s.ExplanationURL), AskAgain: j.state.ARI.AskAgain}
	j.cfg.Logger.Debug("renewal suggested by the CA", "certificate", j.cert.Name, "moment", moment.UTC(), "explanation", j.state.ARI.Explanation)
}

// sayable reports whether a moment can be written down: in UTC a year of four digits. What can't would make the whole
// state unsaveable.
func sayable(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= 9999
}
