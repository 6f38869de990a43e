package issuer

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/cure"
	"autocertd/internal/printable"
)

// usable makes a bundle of the preferred chain. A chain that services or their clients can't use is an error; oddities are
// logged.
func (c Config) usable(chains []acme.Certificate, req Request, key crypto.PublicKey) (*Bundle, error) {
	text, err := c.choose(chains)
	if err != nil {
		return nil, err
	}
	certs, err := parseChain(text)
	if err != nil {
		return nil, err
	}
	if certs, err = arrange(certs, key); err != nil {
		return nil, err
	}
	odd, err := judge(certs, req.Hostnames, time.Now())
	if err == nil {
		err = worse(certs[0], req.InUse, time.Now())
	}
	if err != nil {
		return nil, err
	}
	for _, what := range odd {
		c.Logger.Warn("the certificate isn't quite what was ordered", "ca", c.Name, "hostname", req.Hostnames[0], "what", what)
	}
	return bundleOf(certs), nil
}

// Bounds for certificates.
const (
	longestChain = 10
	clockError   = time.Hour        // by which our clock or the CA's may be wrong
	clockOdd     = 5 * time.Minute  // above which the difference is logged
	shortestUse  = 10 * time.Second // that must be left of a certificate's lifetime, and a tenth of it
	shortLived   = 4 * time.Minute  // in which no certificate ends that takes the place of one that lasts longer
)

func parseChain(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" { // RFC 8555 section 9.1 lets clients reject it
			return nil, fmt.Errorf("the CA sent something else among the certificates: %s", strconv.Quote(printable.Short(block.Type, 100)))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the CA sent a broken certificate: %w", err)
		}
		if slices.ContainsFunc(certs, cert.Equal) { // some send the first one twice
			continue
		}
		if certs = append(certs, cert); len(certs) > longestChain {
			return nil, fmt.Errorf("the CA sent a chain of more than %d certificates", longestChain)
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("the CA sent no certificate")
	}
	return certs, nil
}

// arrange puts a chain in order: the certificate of the key first, and then each that signed the one before. Some CAs
// send it the other way round.
func arrange(certs []*x509.Certificate, key crypto.PublicKey) ([]*x509.Certificate, error) {
	ours := func(c *x509.Certificate) bool {
		public, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		return ok && public.Equal(key)
	}
	leaf := slices.IndexFunc(certs, ours)
	if leaf < 0 {
		return nil, errors.New("the CA sent a certificate for another key")
	}
	chain, left := []*x509.Certificate{certs[leaf]}, slices.Delete(slices.Clone(certs), leaf, leaf+1)
	for len(left) > 0 {
		last := chain[len(chain)-1]
		next := slices.IndexFunc(left, func(c *x509.Certificate) bool {
			return bytes.Equal(last.RawIssuer, c.RawSubject) && last.CheckSignatureFrom(c) == nil
		})
		if next < 0 {
			return nil, fmt.Errorf("the CA sent a chain that doesn't belong together: nothing in it has signed certificate %d, which names %s as its issuer", len(chain), nameOf(last.Issuer))
		}
		chain, left = append(chain, left[next]), slices.Delete(left, next, next+1)
	}
	return chain, nil
}

// nameOf shows a name in a certificate.
func nameOf(name pkix.Name) string { return strconv.Quote(printable.Short(name.String(), 100)) }

// judge checks that a certificate is for the hostnames, and valid now and for a while, with its chain. It returns oddities
// that may be intended.
func judge(chain []*x509.Certificate, hostnames []string, now time.Time) (odd []string, err error) {
	cert := chain[0]
	for _, h := range hostnames {
		if !slices.ContainsFunc(cert.DNSNames, func(name string) bool { return strings.EqualFold(name, h) }) && (strings.HasPrefix(h, "*.") || cert.VerifyHostname(h) != nil) {
			return nil, fmt.Errorf("the CA sent a certificate that lacks the hostname %s", h)
		}
	}
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return nil, errors.New("the CA sent a certificate that names itself as its issuer")
	}
	for n, c := range chain[:min(2, len(chain))] {
		of := "a certificate"
		if n > 0 {
			of = "the certificate of an issuer"
		}
		switch lifetime, left := c.NotAfter.Sub(c.NotBefore), c.NotAfter.Sub(now); {
		case lifetime <= 0:
			return nil, fmt.Errorf("the CA sent %s that is never valid: from %s to %s", of, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		case len(c.UnhandledCriticalExtensions) > 0:
			return nil, fmt.Errorf("the CA sent %s with a critical extension that no client knows (%s)", of, c.UnhandledCriticalExtensions[0])
		case c.NotBefore.Sub(now) > clockError:
			return nil, cure.New(fmt.Sprintf("the CA sent %s that isn't valid before %s", of, c.NotBefore.Format(time.RFC3339)), "check this machine's clock")
		case left <= 0:
			return nil, cure.New(fmt.Sprintf("the CA sent %s that expired at %s", of, c.NotAfter.Format(time.RFC3339)), "check this machine's clock")
		case n == 0 && (left < shortestUse || left < lifetime/10):
			return nil, fmt.Errorf("the CA sent %s that expires at %s, too soon to be of use", of, c.NotAfter.Format(time.RFC3339))
		}
	}
	if early := cert.NotBefore.Sub(now); early > clockOdd {
		odd = append(odd, fmt.Sprintf("it isn't valid before %s; either this machine's clock is late or the CA's is early", cert.NotBefore.Format(time.RFC3339)))
	}
	if len(chain) == 1 {
		odd = append(odd, "it comes without a chain, so that it is trusted only by those who trust its issuer directly: "+nameOf(cert.Issuer))
	}
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
		odd = append(odd, "it isn't for TLS servers (its extended key usage lacks serverAuth), so that clients will refuse it")
	}
	if cert.IsCA {
		odd = append(odd, "it is the certificate of a CA, by which its key can issue others")
	}
	if more := others(cert, hostnames); len(more) > 0 {
		odd = append(odd, "it is for names that weren't ordered, too: "+printable.Short(strings.Join(more, ", "), 500))
	}
	return odd, nil
}

// others lists the names in a certificate that weren't ordered.
func others(cert *x509.Certificate, hostnames []string) (names []string) {
	for _, name := range cert.DNSNames {
		if !slices.Contains(hostnames, strings.ToLower(name)) {
			names = append(names, name)
		}
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	return append(names, cert.EmailAddresses...)
}

// worse is an error when a certificate is about to expire and the one in use isn't.
func worse(cert, inUse *x509.Certificate, now time.Time) error {
	if inUse == nil || cert.NotAfter.Sub(now) > shortLived || !cert.NotAfter.Before(inUse.NotAfter) {
		return nil
	}
	return fmt.Errorf("the CA sent a certificate that expires at %s, before the one that is in use", cert.NotAfter.Format(time.RFC3339))
}

// bundleOf writes a chain in a clean form.
func bundleOf(chain []*x509.Certificate) *Bundle {
	encode := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	var above bytes.Buffer
	for _, c := range chain[1:] {
		above.Write(encode(c))
	}
	return &Bundle{Leaf: encode(chain[0]), Chain: above.Bytes(), Cert: chain[0]}
}

// choose returns the preferred chain, or the CA's default when there is none such.
func (c Config) choose(chains []acme.Certificate) ([]byte, error) {
	if len(chains) == 0 {
		return nil, errors.New("the CA sent no certificate")
	}
	if c.PreferredChain == "" {
		return chains[0].ChainPEM, nil
	}
	var names []string
	for _, chain := range chains {
		certs, err := parseChain(chain.ChainPEM)
		if err != nil {
			names = append(names, "one that can't be read")
			continue
		}
		top := certs[len(certs)-1] // of one that is in order
		if c.prefers(top) {
			return chain.ChainPEM, nil
		}
		names = append(names, nameOf(top.Issuer))
	}
	c.Logger.Warn("the CA offers no chain to the preferred root; taking its default", "ca", c.Name,
		"preferred_chain", c.PreferredChain, "offered", strings.Join(names, ", "))
	return chains[0].ChainPEM, nil
}

// prefers reports whether the last certificate of a chain leads to the preferred root: it is the root itself, was issued
// by a root of that name, or by a root that this machine knows and that has the fingerprint.
func (c Config) prefers(top *x509.Certificate) bool {
	want, byFingerprint := fingerprint(c.PreferredChain)
	if !byFingerprint {
		return top.Issuer.CommonName == c.PreferredChain
	}
	if sha256.Sum256(top.Raw) == want {
		return true
	}
	own := x509.NewCertPool()
	for _, root := range c.Roots {
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
