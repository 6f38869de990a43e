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
	failures := j.state.Deploy.Failures + 1
	retry := scheduler.RetryAt(now, failures, rand.Float64(), time.Time{}, leaf.NotAfter.Sub(now))
	j.state.Deploy = Trouble{Failures: failures, Error: err.Error(), At: now.UTC(), RetryAt: retry.UTC()}
	j.cfg.Logger.Warn("certificate not deployed", "certificate", j.cert.Name, "failures", failures,
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
	wait := askDefault
	if !s.RetryAfter.IsZero() {
		wait = min(max(s.RetryAfter.Sub(now), askAtLeast), askAtMost)
	}
	ari := &j.state.ARI
	ari.AskAgain = now.Add(jitter(wait)).UTC()
	if err != nil {
		if !errors.Is(err, issuer.ErrNoRenewalInfo) {
			j.cfg.Logger.Debug("no renewal information", "certificate", j.cert.Name, "err", err)
		}
		return
	}
	if s.Start.Equal(ari.Start) && s.End.Equal(ari.End) {
		return // the same window: the moment stays
	}
	moment := s.Start.Add(time.Duration(rand.Int64N(int64(s.End.Sub(s.Start)))))
	ari.Start, ari.End, ari.Moment, ari.ChosenAt, ari.Explanation = s.Start.UTC(), s.End.UTC(), moment.UTC(), now.UTC(), s.ExplanationURL
	j.cfg.Logger.Debug("renewal suggested by the CA", "certificate", j.cert.Name, "moment", ari.Moment, "explanation", s.ExplanationURL)
}
