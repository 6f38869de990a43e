package config

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"autocertd/internal/dnsname"
)

const maxCSRFile = 1 << 20

// csr takes the hostnames of a certificate from a request that was made elsewhere.
func (b *certificates) csr(cert *Certificate, raw rawCertificate) {
	f := raw.CSR
	for _, other := range []struct {
		set bool
		at  place
	}{{raw.KeyType.set, raw.KeyType.at}, {raw.ReuseKey.set, raw.ReuseKey.at}} {
		if other.set {
			b.fail(other.at, "the CSR says which key", "leave it out")
		}
	}
	file := f.Value
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(f.at.file), file)
	}
	data, err := b.readText(file, maxCSRFile)
	var csr *x509.CertificateRequest
	var hostnames []string
	if err == nil {
		csr, err = parseCSR(data)
	}
	if err == nil {
		hostnames, err = requested(csr)
	}
	if err != nil {
		b.failFile(f.at, file, err, `openssl req -new -key KEY -subj / -addext "subjectAltName = DNS:www.your.domain"`)
		return
	}
	if raw.Hostnames.set && !dnsname.Same(cert.Hostnames, hostnames) {
		b.fail(raw.Hostnames.at, "aren't those of the CSR: "+strings.Join(hostnames, ", "), "leave them out")
	}
	if !raw.Hostnames.set {
		cert.Hostnames = hostnames
	}
	cert.CSRFile, cert.CSR, cert.KeyType = file, csr.Raw, ""
}

// parseCSR reads a request in PEM.
func parseCSR(data []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(data)
	switch {
	case strings.Contains(string(data), "PRIVATE KEY"):
		return nil, errors.New("holds a private key, which must stay where it is")
	case block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, errors.New("holds no certificate signing request in PEM")
	case strings.TrimSpace(string(rest)) != "":
		return nil, errors.New("holds something besides one certificate signing request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("holds a certificate signing request that can't be used: %w", err)
	}
	return csr, nil
}

// requested returns the hostnames of a request, which may hold no other names: dns-01 proves hostnames alone. A CA takes
// the common name for one more.
func requested(csr *x509.CertificateRequest) ([]string, error) {
	if len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return nil, errors.New("asks for names that aren't hostnames")
	}
	names := csr.DNSNames
	if cn := csr.Subject.CommonName; cn != "" {
		names = append(slices.Clone(names), cn)
	}
	var hostnames []string
	for _, name := range names {
		hostname, err := normalHostname(name)
		if err != nil {
			return nil, fmt.Errorf("asks for %q: %w", shorten(name), err)
		}
		if !slices.Contains(hostnames, hostname) {
			hostnames = append(hostnames, hostname)
		}
	}
	if n := len(hostnames); n == 0 || n > maxHostnames {
		return nil, fmt.Errorf("asks for %d hostnames; it must be 1 to %d", n, maxHostnames)
	}
	return hostnames, nil
}
