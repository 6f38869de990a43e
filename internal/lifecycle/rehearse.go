package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/deploy"
	"autocertd/internal/event"
	"autocertd/issuer"
)

// Rehearse goes through the issuance of a certificate at each of its CAs that the snapshot has an issuer for, which is
// meant to ask the CA's staging directory. Nothing is kept of it but the account there, and nothing changes that belongs to
// the certificate. Whether its files could be written is found out, too.
func (m *Manager) Rehearse(ctx context.Context, name string) error {
	snapshot := m.snapshot.Load()
	cert := snapshot.Certificates[name]
	var failures []error
	for _, ca := range cert.CAs {
		iss := snapshot.Issuers[ca]
		if iss == nil {
			continue
		}
		if err := m.rehearseAt(ctx, snapshot, cert, iss); err != nil {
			failures = append(failures, err)
		}
	}
	for _, o := range snapshot.Outputs.Of(name) {
		failures = append(failures, rehearseOutput(name, o)...)
	}
	err := cure.Join(failures...)
	if err != nil && ctx.Err() == nil {
		m.cfg.Tell.Tell(event.Event{Kind: event.NotRehearsed, Certificate: name, Err: err})
	}
	return err
}

func (m *Manager) rehearseAt(ctx context.Context, s *Snapshot, cert config.Certificate, iss *issuer.Issuer) error {
	begin := time.Now()
	request := issuer.Request{
		Hostnames: cert.Hostnames,
		KeyType:   issuer.KeyType(cert.KeyType),
		Profile:   s.profile(cert, iss.Name()),
		CSR:       cert.CSR,
		Orders:    unkept{},
	}
	if m.cfg.Progress != nil {
		request.Progress = func(step issuer.Step) { m.cfg.Progress(cert.Name, step) }
	}
	got, err := iss.Obtain(ctx, request)
	if err != nil {
		return err
	}
	m.cfg.Tell.Tell(event.Event{Kind: event.Rehearsed, Certificate: cert.Name, CA: iss.Name(), Details: []slog.Attr{
		slog.String("directory", iss.DirectoryURL()),
		slog.String("hostnames", strings.Join(cert.Hostnames, ",")),
		slog.Duration("lifetime", got.Cert.NotAfter.Sub(got.Cert.NotBefore).Round(time.Minute)),
		slog.Duration("took", time.Since(begin).Round(time.Millisecond)),
	}})
	return nil
}

// rehearseOutput looks whether the files can be written, and whether the programs are there that come after them.
func rehearseOutput(name string, o deploy.Output) (failures []error) {
	if err := o.CheckFiles(name); err != nil {
		failures = append(failures, fmt.Errorf("the files can't be written: %w", err))
	}
	for _, args := range o.Run {
		if err := o.CheckProgram(name, args); err != nil {
			failures = append(failures, err)
		}
	}
	return failures
}

// unkept is an issuer.OrderKeeper for orders that nobody will resume: the CA forgets them.
type unkept struct{}

// Keep implements issuer.OrderKeeper.
func (unkept) Keep(context.Context, issuer.OpenOrder) error { return nil }

// Drop implements issuer.OrderKeeper.
func (unkept) Drop(context.Context) error { return nil }
