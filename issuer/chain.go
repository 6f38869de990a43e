package issuer

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/mholt/acmez/v3/acme"
)

// choose returns the preferred chain, or the CA's default when there is none such.
func (i *Issuer) choose(chains []acme.Certificate) ([]byte, error) {
	if len(chains) == 0 {
		return nil, errors.New("the CA sent no certificate")
	}
	if i.cfg.PreferredChain == "" {
		return chains[0].ChainPEM, nil
	}
	var names []string
	for _, c := range chains {
		certs, err := parseChain(c.ChainPEM)
		if err != nil {
			names = append(names, "one that can't be read")
			continue
		}
		top := certs[len(certs)-1] // of one that is in order
		if i.prefers(top) {
			return c.ChainPEM, nil
		}
		names = append(names, nameOf(top.Issuer))
	}
	i.cfg.Logger.Warn("the CA offers no chain to the preferred root; taking its default", "ca", i.cfg.Name,
		"preferred_chain", i.cfg.PreferredChain, "offered", strings.Join(names, ", "))
	return chains[0].ChainPEM, nil
}

// prefers reports whether the last certificate of a chain leads to the preferred root: it is the root itself, was issued
// by a root of that name, or by a root that this machine knows and that has the fingerprint.
func (i *Issuer) prefers(top *x509.Certificate) bool {
	want, byFingerprint := fingerprint(i.cfg.PreferredChain)
	if !byFingerprint {
		return top.Issuer.CommonName == i.cfg.PreferredChain
	}
	if sha256.Sum256(top.Raw) == want {
		return true
	}
	own := x509.NewCertPool()
	for _, root := range i.cfg.Roots {
		own.AddCert(root)
	}
	for _, roots := range []*x509.CertPool{own, nil} { // nil is the system's
		ways, err := top.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			continue // this pool has no root for it
		}
		for _, way := range ways {
			if sha256.Sum256(way[len(way)-1].Raw) == want {
				return true
			}
		}
	}
	return false
}

// fingerprint reads a SHA-256 fingerprint in hex, with or without colons.
func fingerprint(text string) (sum [sha256.Size]byte, ok bool) {
	data, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(data) != len(sum) {
		return sum, false
	}
	return [sha256.Size]byte(data), true
}
