package lifecycle

import (
	"cmp"
	"context"
	"crypto/x509"
	"slices"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/dnsname"
	"autocertd/internal/state"
	"autocertd/issuer"
)

// Hand is one certificate that a person orders step by step. It holds the certificate's lease, keeps the same objects as a
// Manager, and must be released.
type Hand struct {
	job     *job
	Release func()
}

// TakeInHand waits for the lease of a certificate.
func TakeInHand(ctx context.Context, cfg Config, cert config.Certificate) (*Hand, error) {
	m := New(cfg)
	lease, err := cfg.Storage.Acquire(ctx, state.Lock(cert.Name))
	if err != nil {
		return nil, err
	}
	j := &job{
		Manager:  m,
		snapshot: &Snapshot{},
		cert:     cert,
		insist:   byHand,
		lease:    lease,
	}
	if err = j.read(ctx); err == nil {
		err = j.open(ctx)
	}
	if err != nil {
		lease.Release()
		return nil, err
	}
	return &Hand{job: j, Release: lease.Release}, nil
}

// Bundle is what was issued last, nil when nothing was.
func (h *Hand) Bundle() (*state.Bundle, *x509.Certificate) {
	return h.job.state.Bundle, h.job.state.X509
}

// LikeBefore makes the order one for what was issued last, for a name that nothing else is known of. It returns what that is.
func (h *Hand) LikeBefore() config.Certificate {
	c, b := &h.job.cert, h.job.state.Bundle
	c.Hostnames, c.KeyType, c.Profile = b.Hostnames, b.KeyType, b.Profile
	return *c
}

// Fresh reports whether the certificate in storage is for the hostnames and has more than a third of its life before it.
func (h *Hand) Fresh(hostnames []string, now time.Time) bool {
	b, leaf := h.Bundle()
	return b != nil && dnsname.Same(b.Hostnames, hostnames) &&
		leaf.NotAfter.Sub(now) > leaf.NotAfter.Sub(leaf.NotBefore)/3
}

func (h *Hand) keeper(ca string) state.OrderKeeper {
	return state.KeepOrder(h.job.lease, ca, h.job.cert.Name)
}

// Open returns the open order at a CA, nil when there is none or it has served.
func (h *Hand) Open(ctx context.Context, ca string) (*issuer.OpenOrder, error) {
	open, err := state.LoadOrder(ctx, h.job.cfg.Storage, ca, h.job.cert.Name)
	if err == nil && open != nil && h.job.state.Bundle != nil && h.job.hasServed(open) {
		return nil, nil
	}
	return open, err
}

// Wanted is the request for what is wanted at a CA. The order is counted against the CA's limits, and never held: a person
// knows better.
func (h *Hand) Wanted(ctx context.Context, iss *issuer.Issuer, ca config.CA) (issuer.Request, error) {
	j := h.job
	counted := &spending{OrderKeeper: h.keeper(ca.Name), ledger: j.ledgers.of(ca), ca: ca}
	if limits := ca.Limits(); limits.Any() {
		counted.otherwise = budget.Keys(limits, j.cert.Hostnames, j.again(ca.Directory))
		if !j.exempt(ca.Directory, time.Now()) {
			counted.keys = counted.otherwise
		}
	}
	return issuer.Request{
		Hostnames: j.cert.Hostnames,
		KeyType:   issuer.KeyType(j.cert.KeyType),
		Profile:   cmp.Or(j.cert.Profile, ca.Profile),
		Key:       j.keyToReuse(),
		CSR:       j.cert.CSR,
		Replaces:  j.replaces(iss),
		Orders:    counted,
	}, j.checkCSR()
}

// GoingOn is the request that goes on with an open order.
func (h *Hand) GoingOn(ca string, open *issuer.OpenOrder) issuer.Request {
	return issuer.Request{
		Hostnames: open.Hostnames,
		KeyType:   open.KeyType,
		Profile:   open.Profile,
		CSR:       open.CSR,
		Orders:    h.keeper(ca),
		Open:      open,
	}
}

// Save makes what was issued for an order durable, forgets the order, and lets the daemon look at once. Dying on the way
// leaves an order that has served, as Open sees.
func (h *Hand) Save(ctx context.Context, iss *issuer.Issuer, open *issuer.OpenOrder, issued *issuer.Bundle) error {
	j := h.job
	j.cert.Hostnames, j.cert.KeyType = open.Hostnames, cmp.Or(string(open.KeyType), config.DefaultKeyType)
	j.cert.Profile, j.cert.CSR = open.Profile, open.CSR
	if !slices.Contains(j.cert.CAs, iss.Name()) {
		j.cert.CAs = append(slices.Clone(j.cert.CAs), iss.Name())
	}
	return j.commitByHand(ctx, j.bundleOf(iss, issued), issued.Cert)
}
