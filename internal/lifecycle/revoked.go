package lifecycle

import (
	"context"

	"autocertd/internal/state"
)

// compromisedWhy is why a certificate is replaced whose key was marked.
const compromisedWhy = "its key is compromised"

// blockedWhy is the Why of a key that a CA takes for no certificate any more.
const blockedWhy = "blocked by the CA"

// isCompromised reports whether a public key was marked.
func (j *job) isCompromised(ctx context.Context, spki []byte) bool {
	marked, err := state.IsCompromised(ctx, j.cfg.Storage, spki)
	j.unsureOfKey(ctx, err)
	return marked
}

func (j *job) unsureOfKey(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		j.cfg.Logger.Warn("whether the key is compromised can't be found out", "certificate", j.cert.Name, "err", err)
	}
}

// noteCompromised forgets the open orders for keys that were marked, when the key of the bundle was.
func (j *job) noteCompromised(ctx context.Context) {
	j.unsureOfKey(ctx, j.state.Faults.Compromised)
	if !j.state.IsCompromised() {
		return
	}
	for ca, open := range j.state.Orders {
		if !j.isCompromised(ctx, state.PublicKey(open.Key)) {
			continue
		}
		delete(j.state.Orders, ca)
		if err := state.KeepOrder(j.lease, ca, j.cert.Name).Drop(ctx); err != nil {
			j.cfg.Logger.Warn("open order can't be forgotten", "certificate", j.cert.Name, "ca", ca, "err", err)
		}
	}
}
