package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// download fetches the certificate of a valid order and checks that it is what was ordered.
func (o *order) download(ctx context.Context) (*Bundle, error) {
	noting, noted := observe(ctx)
	chains, err := o.client.GetCertificateChain(noting, o.account, o.state.Certificate, o.cfg.PreferredChain != "")
	if err != nil {
		return nil, o.failed("certificate", noted, err)
	}
	chain, err := o.choose(chains)
	if err != nil {
		return nil, o.explain("certificate", err)
	}
	bundle, err := split(chain)
	if err == nil {
		err = matches(bundle.Cert, o.key.public, o.req.Hostnames)
	}
	if err != nil { // of no use, and the same order gives the same certificate again
		return nil, o.orderFailed(ctx, "certificate", noted, acme.Order{Status: acme.StatusInvalid}, err)
	}
	bundle.Key, bundle.Account, bundle.Order = o.key.pem, o.account.Location, o.state.Location
	return bundle, nil
}

func parseChain(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the CA sent a broken certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("the CA sent no certificate")
	}
	return certs, nil
}

// split takes a PEM chain apart into the leaf and what is above it, in a clean form.
func split(chain []byte) (*Bundle, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	encode := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	var above bytes.Buffer
	for _, c := range certs[1:] {
		above.Write(encode(c))
	}
	return &Bundle{Leaf: encode(certs[0]), Chain: above.Bytes(), Cert: certs[0]}, nil
}

// matches checks that a certificate is for the key and the hostnames, and valid for a while.
func matches(cert *x509.Certificate, key crypto.PublicKey, hostnames []string) error {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key) {
		return errors.New("the CA sent a certificate for another key")
	}
	for _, h := range hostnames {
		if err := cert.VerifyHostname(strings.Replace(h, "*", "any", 1)); err != nil {
			return fmt.Errorf("the CA sent a certificate that lacks a hostname: %w", err)
		}
	}
	if !time.Now().Before(cert.NotAfter) {
		return fmt.Errorf("the CA sent a certificate that expired at %s; check this machine's clock", cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}
