package lifecycle

import (
	"context"
	"errors"
	"time"

	"autocertd/issuer"
)

// How often a CA is asked for renewal information: what it says, within bounds; RFC 9773 section 4.3. The jitter comes on
// top, and even so it is twice a day at least.
const (
	askDefault = 6 * time.Hour
	askAtMost  = 10 * time.Hour
	askAtLeast = time.Minute
	askTimeout = 10 * time.Second // a CA that doesn't respond holds nothing up
)

// renewalInfo is the reply of a CA to the question when to renew a certificate, or why there is none.
type renewalInfo struct {
	issuer.Suggestion
	err      error
	at       time.Time // when it was asked
	askAgain time.Time
}

// renewalInfo asks the CA for its renewal window when the time has come, or at once, and commits what it says.
func (j *job) renewalInfo(ctx context.Context, atOnce bool) {
	now, c := time.Now(), j.state
	if c.X509 == nil || now.Before(c.ARI.AskAgain) && !atOnce {
		return
	}
	iss := j.snapshot.Issuers[c.Bundle.CA]
	if iss == nil || iss.DirectoryURL() != c.Bundle.Directory {
		return
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	s, err := iss.RenewalInfo(asking, c.X509)
	cancel()
	if ctx.Err() != nil {
		return // there was no reply
	}
	wait := askDefault
	if !s.RetryAfter.IsZero() {
		wait = min(max(s.RetryAfter.Sub(now), askAtLeast), askAtMost)
	}
	if err == nil && !(writable(s.Start) && writable(s.End)) {
		err = errors.New("the CA suggests a window outside of all calendars")
	}
	j.commitInfo(renewalInfo{Suggestion: s, err: err, at: now, askAgain: now.Add(jitter(wait))})
}

// writable reports whether a moment can be written down: in UTC a year of four digits. Any other would make all that is
// known unsaveable.
func writable(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= 9999
}
