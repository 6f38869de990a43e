package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"autocertd/internal/printable"
	"autocertd/internal/state"
	"autocertd/issuer"
)

// How often a CA is asked for renewal information: what it says, within bounds; RFC 9773 section 4.3. The jitter comes on
// top, and even so it is twice a day at least.
const (
	askDefault = 6 * time.Hour
	askAtMost  = 10 * time.Hour
	askAtLeast = time.Minute
	askTimeout = 10 * time.Second // a CA that doesn't answer holds nobody up
)

// askRenewalInfo asks the CA for its renewal window when the time has come. Failures cost nothing: the rule by lifetime
// holds meanwhile.
func (j *job) askRenewalInfo(ctx context.Context) {
	now := time.Now()
	if j.state.X509 == nil || now.Before(j.state.ARI.AskAgain) && !j.ask {
		return
	}
	j.ask = false
	iss := j.snapshot.Issuers[j.state.Bundle.CA]
	if iss == nil || iss.DirectoryURL() != j.state.Bundle.Directory {
		return
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	s, err := iss.RenewalInfo(asking, j.state.X509)
	cancel()
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
			level := slog.LevelDebug
			if j.insist != onSchedule {
				level = slog.LevelWarn // a person waits for what the CA says
			}
			j.cfg.Logger.Log(ctx, level, "no renewal information", "certificate", j.cert.Name, "err", err)
		}
		return
	}
	if ari := j.state.ARI; s.Start.Equal(ari.Start) && s.End.Equal(ari.End) {
		return // the same window: the moment stays
	}
	moment := s.Start.Add(rand.N(s.End.Sub(s.Start)))
	j.state.ARI = state.Suggestion{Start: s.Start.UTC(), End: s.End.UTC(), Moment: moment.UTC(), ChosenAt: now.UTC(),
		Explanation: printable.Line(s.ExplanationURL), AskAgain: j.state.ARI.AskAgain, Hurries: j.state.ARI.Hurries}
	if j.state.ARI.Urgent() {
		j.cfg.Logger.Warn("the CA asks for a renewal now", "certificate", j.cert.Name, "ca", j.state.Bundle.CA,
			"window_end", s.End.UTC().Format(time.RFC3339), "explanation", j.state.ARI.Explanation)
		return
	}
	j.cfg.Logger.Debug("renewal suggested by the CA", "certificate", j.cert.Name, "moment", moment.UTC(), "explanation", j.state.ARI.Explanation)
}

// because is why, with the page on which the CA explains itself.
func because(s state.Suggestion, why string) string {
	if s.Urgent() && s.Explanation != "" {
		return why + ": " + s.Explanation
	}
	return why
}

// settling is how long a new certificate is kept whatever its CA says. When the CA wants it renewed at once, as after a mass
// revocation, that is minutes. It is hours when the one before was renewed at once too, and doubles each time, so that a CA
// that always says so is followed ever more slowly.
func settling(s state.Suggestion) time.Duration {
	if s.Urgent() && s.Hurries == 0 {
		return hurried
	}
	return settled << min(s.Hurries, maxHurries)
}

// maxHurries bounds the doubling: 16 days, more than a third of most lifetimes.
const maxHurries = 6

// sayable reports whether a moment can be written down: in UTC a year of four digits. What can't would make the whole
// state unsaveable.
func sayable(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= 9999
}
