package lifecycle

import (
	"context"
	"crypto/x509"
	"fmt"

	"autocertd/internal/state"
	"autocertd/issuer"
)

// openOrder returns the order to go on with, nil to make a new one. An order that can't be read must not keep the
// certificate from being issued for ever; the next one replaces it.
func (j *job) openOrder(ca string) *issuer.OpenOrder {
	open, err := j.state.Orders[ca], j.state.Faults.Orders[ca]
	if err != nil {
		j.cfg.Logger.Warn("open order can't be read; ordering anew", "certificate", j.cert.Name, "object", state.OrderKey(ca, j.cert.Name), "err", err)
		return nil
	}
	if open != nil && j.state.Bundle != nil && j.hasServed(open) {
		return nil // an earlier process died before it could drop it
	}
	if open != nil && j.insist == forced && (open.Failures > 0 || open.Waited) {
		return nil // who insists has waited for that order already
	}
	return open
}

// hasServed reports whether the bundle came from an order. One that doesn't say where it came from had a key of its own.
func (j *job) hasServed(open *issuer.OpenOrder) bool {
	if open.URL == j.state.Bundle.Order {
		return true
	}
	return !j.cert.ReuseKey && open.Key != "" && open.Key == j.state.Bundle.Key
}

// keyToReuse returns the key that the next certificate is for, nil for a new one.
func (j *job) keyToReuse() []byte {
	b := j.state.Bundle
	if !j.cert.ReuseKey || b == nil || b.Key == "" || b.KeyType != j.cert.KeyType || j.state.IsCompromised() {
		return nil
	}
	return []byte(b.Key)
}

// checkCSR refuses a CSR by a key that others may have.
func (j *job) checkCSR(ctx context.Context) error {
	if j.cert.CSR == nil {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(j.cert.CSR)
	if err != nil {
		return fmt.Errorf("%s: %w", j.cert.CSRFile, err)
	}
	if j.isCompromised(ctx, csr.RawSubjectPublicKeyInfo) {
		return fmt.Errorf("%s was signed by a key that is compromised; make a new key, and a new CSR with it", j.cert.CSRFile)
	}
	return nil
}

// dropOrders forgets the orders of a certificate that has been issued, those at other CAs too. What stays of them, after
// a crash too, is seen by openOrder.
func (j *job) dropOrders(ctx context.Context) {
	for _, ca := range j.cert.CAs {
		if err := state.KeepOrder(j.lease, ca, j.cert.Name).Drop(context.WithoutCancel(ctx)); err != nil {
			j.cfg.Logger.Warn("open order can't be forgotten", "certificate", j.cert.Name, "ca", ca, "err", err)
		}
	}
}
