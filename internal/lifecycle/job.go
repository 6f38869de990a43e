package lifecycle

import (
	"context"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// job is one look at one certificate, under its lease.
type job struct {
	*Manager
	snapshot *Snapshot
	cert     config.Certificate
	insist   Insistence
	lease    store.Lease // all writes go through it
	state    *state.Certificate
	unsaved  bool // state was changed by commit since it was loaded or saved
}

func (j *job) view() view {
	return view{Wish{Certificate: j.cert, Snapshot: j.snapshot, Insist: j.insist}, j.state}
}

// read loads what is known of the certificate.
func (j *job) read(ctx context.Context) (err error) {
	if j.state, err = state.Load(ctx, j.cfg.Storage, j.cert.Name, j.cert.CAs); err != nil {
		return err
	}
	if err := state.DivideHost(ctx, j.cfg.Storage, j.lease, j.cfg.Node, j.state); err != nil {
		return err
	}
	j.state.Sanitize(time.Now())
	return nil
}

func (j *job) progress(s issuer.Step) {
	if s.Name == issuer.Validated {
		j.answered(j.dnsParty())
	}
	if j.cfg.Progress != nil {
		j.cfg.Progress(j.cert.Name, s)
	}
}
