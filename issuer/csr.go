package issuer

import (
	"crypto"
	"crypto/x509"
	"fmt"
)

// orderKey is the key that an order's certificate is for: one of ours, or one that stays elsewhere, of which there is
// nothing but the request that it signed.
type orderKey struct {
	signer crypto.Signer // nil for a key that stays elsewhere
	pem    []byte        // of signer, PKCS #8
	csr    []byte        // DER, for a key that stays elsewhere
	public crypto.PublicKey
}

// keyOf returns the key of an order: that of the request's CSR, else the given one, else a new one.
func (o *order) keyOf(text []byte) (k orderKey, err error) {
	if o.req.CSR != nil {
		csr, err := x509.ParseCertificateRequest(o.req.CSR)
		if err != nil {
			return k, fmt.Errorf("the CSR can't be read: %w", err)
		}
		return orderKey{csr: o.req.CSR, public: csr.PublicKey}, nil
	}
	if text != nil {
		k.signer, err = decodeKey(text)
	} else {
		k.signer, err = newKey(o.req.KeyType)
	}
	if err != nil {
		return k, err
	}
	k.public = k.signer.Public()
	k.pem, err = encodeKey(k.signer)
	return k, err
}

// request returns the CSR that finalizes the order (RFC 8555 section 7.4).
func (k orderKey) request(hostnames []string) ([]byte, error) {
	if k.csr != nil {
		return k.csr, nil
	}
	return certificateRequest(k.signer, hostnames)
}
