package lifecycle

import "context"

// tellContacts lets the CAs of a certificate whose configuration changed know whom to write to, which may be what changed.
// Nothing depends on it: the next order tells them as well.
func (j *job) tellContacts(ctx context.Context) {
	for _, ca := range j.cert.CAs {
		iss := j.snapshot.Issuers[ca]
		if iss == nil {
			continue
		}
		if err := iss.UpdateContact(ctx); err != nil && ctx.Err() == nil {
			j.cfg.Logger.Warn("the CA can't be told the account's contact", "ca", ca, "err", err)
		}
	}
}
