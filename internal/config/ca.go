package config

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

const (
	maxRootFile = 1 << 20
	addCA       = "add:\n[ca.letsencrypt]\ndirectory = \"letsencrypt\"\nemail = \"you@your.domain\"\naccept_terms = true"
)

func (l *loader) buildCAs(tables field[map[string]field[rawCA]]) {
	raw := tables.Value
	if len(raw) == 0 && (tables.ok || !tables.set) && !l.incomplete {
		l.fail(place{file: l.config.Path, key: "ca"}, "no CA is configured", addCA)
	}
	for _, name := range inOrder(raw, l.config.Files) {
		f := raw[name]
		l.checkName(name, f.at)
		l.config.CAs = append(l.config.CAs, l.buildCA(name, f))
	}
}

func (l *loader) buildCA(name string, f field[rawCA]) CA {
	raw := f.Value
	ca := CA{
		Name:           name,
		Directory:      l.directory(raw.Directory),
		Email:          raw.Email.Value,
		AcceptTerms:    raw.AcceptTerms.Value,
		EAB:            l.eab(raw.EAB),
		Profile:        raw.Profile.Value,
		PreferredChain: raw.PreferredChain.Value,
	}
	if !f.ok {
		return ca
	}
	if !raw.Directory.set {
		l.fail(f.at, "has no directory", `directory = "letsencrypt", "letsencrypt-staging" or the URL that the CA names`)
	}
	if e := raw.Email; e.ok {
		if parsed, err := mail.ParseAddress(e.Value); err != nil || parsed.Address != e.Value {
			l.fail(e.at, fmt.Sprintf("%q isn't an email address", shorten(e.Value)), `write it plainly, as in "ssladmin@corp.example.com"`)
		}
	}
	if accept := raw.AcceptTerms; accept.ok && !accept.Value || !accept.set {
		at := f.at
		if accept.set {
			at = accept.at
		}
		l.fail(at, "the CA's terms of service aren't accepted", "read them, then write accept_terms = true")
	}
	for _, file := range raw.Roots.Value {
		if file.ok {
			l.roots(&ca, file)
		}
	}
	if raw.Roots.ok && len(raw.Roots.Value) == 0 {
		l.fail(raw.Roots.at, "is empty", "leave it out to trust the system's roots")
	}
	return ca
}

func (l *loader) directory(f field[string]) string {
	switch f.Value {
	case "letsencrypt":
		return "https://acme-v02.api.letsencrypt.org/directory"
	case "letsencrypt-staging":
		return "https://acme-staging-v02.api.letsencrypt.org/directory"
	}
	if !f.ok {
		return ""
	}
	u, err := url.Parse(f.Value)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "":
		l.fail(f.at, "must be an https URL, letsencrypt or letsencrypt-staging", didYouMean(f.Value, []string{"letsencrypt", "letsencrypt-staging"}))
	case u.Scheme != "https":
		l.fail(f.at, "must be an https URL: ACME requires TLS, and anyone on the way could issue certificates otherwise", "for a private CA set roots to its root certificate")
	case u.User != nil:
		l.fail(f.at, "must not hold a user or password", "credentials of a CA go into eab")
	case u.Fragment != "":
		l.fail(f.at, "must not hold a fragment (#)", "")
	}
	return f.Value
}

func (l *loader) eab(f field[rawEAB]) *EAB {
	if !f.ok {
		return nil
	}
	kid, key := f.Value.KeyID, f.Value.HMACKey
	if !kid.set || kid.ok && kid.Value == "" || !key.set {
		l.fail(f.at, "needs both kid and hmac_key", "the CA hands out both")
	}
	if key.ok {
		_, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(key.Value.Reveal(), "="))
		if err != nil {
			l.fail(key.at, "isn't base64url, in which CAs hand it out", "copy it once more, without blanks")
		}
	}
	return &EAB{KeyID: kid.Value, HMACKey: key.Value}
}

// roots adds the certificates of one file.
func (l *loader) roots(ca *CA, f field[string]) {
	file := f.Value
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(f.at.file), file)
	}
	data, err := readBounded(file, maxRootFile)
	var found []*x509.Certificate
	if err == nil {
		found, err = parseRoots(data)
	}
	if err != nil {
		l.fail(f.at, fmt.Sprintf("%q %s", shorten(file), err), "roots are certificates in PEM")
		return
	}
	for _, root := range found {
		if time.Now().After(root.NotAfter) {
			l.warn(f.at, fmt.Sprintf("%q holds a root that expired on %s", shorten(file), root.NotAfter.Format(time.DateOnly)), "ask the CA for its new root")
		}
	}
	ca.Roots = append(ca.Roots, found...)
	ca.RootFiles = append(ca.RootFiles, file)
}

func parseRoots(data []byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for {
		block, more := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("holds something besides certificates")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a certificate that can't be parsed: %w", err)
		}
		roots, data = append(roots, cert), more
	}
	if len(roots) == 0 {
		return nil, errors.New("holds no certificate")
	}
	return roots, nil
}
