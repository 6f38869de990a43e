package config

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/knownca"
	"autocertd/internal/secret"
	"autocertd/internal/suggest"
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
		Staging:        l.directory(raw.Staging),
		Email:          raw.Email.Value,
		AcceptTerms:    raw.AcceptTerms.Value,
		EAB:            l.eab(raw.EAB),
		Profile:        raw.Profile.Value,
		PreferredChain: raw.PreferredChain.Value,
		limits:         raw.Limits.Value.overrides(),
	}
	if !f.ok {
		return ca
	}
	if !raw.Directory.set {
		if ca.Directory = knownca.Directory(name); ca.Directory == "" {
			l.missing(f.at, "directory", "has no directory", "directory = "+directoryWords("URL that the CA names"))
		}
	}
	if !raw.Staging.set {
		ca.Staging = knownca.Directory(knownca.At(ca.Directory).Staging)
	}
	l.checkPreferredChain(raw.PreferredChain)
	ca.Challenges = l.challenges(raw.Challenge)
	if e := raw.Email; e.ok {
		if parsed, err := mail.ParseAddress(e.Value); err != nil || parsed.Address != e.Value {
			l.fail(e.at, fmt.Sprintf("%q isn't an email address", shorten(e.Value)), `write it plainly, as in "ssladmin@corp.example.com"`)
		}
	}
	if accept := raw.AcceptTerms; accept.ok && !accept.Value || !accept.set {
		const mistake, cure = "the CA's terms of service aren't accepted", "read them, then write accept_terms = true"
		if accept.set {
			l.fail(accept.at, mistake, cure)
		} else {
			l.missing(f.at, "accept_terms", mistake, cure)
		}
	}
	for _, file := range raw.Roots.Value {
		if file.ok {
			l.roots(&ca, file)
		}
	}
	for _, host := range raw.Hosts.Value {
		if host.ok {
			l.host(&ca, host)
		}
	}
	if raw.Roots.ok && len(raw.Roots.Value) == 0 {
		l.fail(raw.Roots.at, "is empty", "leave it out to trust the system's roots")
	}
	return ca
}

// directoryWords lists what a directory may be: the short names, or else.
func directoryWords(or string) string {
	names := knownca.Names()
	for i, name := range names {
		names[i] = strconv.Quote(name)
	}
	return strings.Join(names, ", ") + " or the " + or
}

// directory returns the URL of a directory, "" when nothing is said.
func (l *loader) directory(f field[string]) string {
	if known := knownca.Directory(f.Value); known != "" {
		return known
	}
	if !f.ok {
		return ""
	}
	u, err := url.Parse(f.Value)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "":
		l.fail(f.at, "must be one of "+directoryWords("https URL of a CA"), suggest.DidYouMean(f.Value, knownca.Names()))
	case u.Scheme != "https":
		l.fail(f.at, "must be an https URL: ACME requires TLS, and anyone on the way could issue certificates otherwise", "for a private CA set roots to its root certificate")
	case u.User != nil:
		l.fail(f.at, "must not hold a user or password", "credentials of a CA go into eab")
	case u.Fragment != "":
		l.fail(f.at, "must not hold a fragment (#)", "")
	}
	return asKnown(u, f.Value)
}

// asKnown returns the URL of a public directory as we write it, so that what is known of the CA holds however it is spelled.
func asKnown(u *url.URL, text string) string {
	if u == nil || u.User != nil || u.RawQuery != "" {
		return text
	}
	host := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(u.Host), ":443"), ".")
	if known := knownca.At(u.Scheme + "://" + host + u.EscapedPath()).Directory; known != "" {
		return known
	}
	return text
}

// checkPreferredChain refuses what is meant as a fingerprint and can't be one: no chain would ever match.
func (l *loader) checkPreferredChain(f field[string]) {
	const shortest = 32 // of other hashes; no name of a root looks like this
	digits := strings.ReplaceAll(f.Value, ":", "")
	other := strings.ContainsFunc(digits, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
	if n := len(digits); f.ok && !other && n >= shortest && n != sha256.Size*2 {
		l.fail(f.at, fmt.Sprintf("is a fingerprint of %d hex digits, and one by SHA-256 has %d", n, sha256.Size*2),
			"openssl x509 -in root.pem -noout -fingerprint -sha256")
	}
}

// challenges returns the types of challenges to answer.
func (l *loader) challenges(f list) (types []dnschallenge.Type) {
	var known []string
	for _, t := range dnschallenge.Types() {
		known = append(known, string(t))
	}
	if f.ok && len(f.Value) == 0 {
		l.fail(f.at, "is empty", fmt.Sprintf("leave it out for %s alone", known[0]))
	}
	for _, entry := range f.Value {
		if !entry.ok {
			continue
		}
		t := dnschallenge.Type(entry.Value)
		if l.oneOf(entry, known...); slices.Contains(types, t) {
			l.fail(entry.at, fmt.Sprintf("names %s twice", shorten(entry.Value)), "")
		}
		types = append(types, t)
	}
	return types
}

func (l *loader) eab(f field[rawEAB]) *EAB {
	if !f.ok {
		return nil
	}
	kid, key := f.Value.KeyID, f.Value.HMACKey
	kid.Value = strings.TrimSpace(kid.Value) // copied with what stood around it
	if lacks := !key.set; !kid.set || kid.ok && kid.Value == "" || lacks {
		name := "kid"
		if lacks {
			name = "hmac_key"
		}
		l.missing(f.at, name, "needs both kid and hmac_key", "the CA hands out both")
	}
	eab := &EAB{KeyID: kid.Value}
	if key.ok {
		normal, err := normalHMACKey(key.Value.Reveal())
		if hint, twice := "copy the key alone once more, without quotes or a name before it", errors.Is(err, errTwice); err != nil {
			if twice {
				hint = "decode it once: base64 -d"
			}
			l.fail(key.at, err.Error(), hint)
		}
		eab.HMACKey = secret.New(normal)
	}
	return eab
}

var errTwice = errors.New("is in base64 twice, and CAs want the key itself")

// normalHMACKey returns a key in base64url without padding (RFC 8555, section 7.3.4, and RFC 7515, section 2), however it
// was handed out: padded, in the alphabet of standard base64, or on several lines. No error shows the key.
func normalHMACKey(text string) (string, error) {
	data, err := anyBase64(base64.RawURLEncoding, text)
	if err != nil || len(data) == 0 {
		return "", errors.New("isn't base64url, in which CAs hand it out")
	}
	// Keys of HMAC are bytes at random, 32 or 64 of them. Such bytes don't happen to be base64 of 32 or 64 others.
	if inner, err := anyBase64(base64.RawURLEncoding.Strict(), string(data)); err == nil && (len(inner) == 32 || len(inner) == 64) {
		return "", errTwice
	}
	return base64.RawURLEncoding.EncodeToString(data), nil
}

// anyBase64 decodes base64 in either alphabet, padded or not, with line ends and blanks anywhere.
func anyBase64(encoding *base64.Encoding, text string) ([]byte, error) {
	text = strings.Join(strings.Fields(text), "")
	text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	return encoding.DecodeString(text)
}

// host adds a host that the CA may lead to. A URL is taken for its host: that is what an error shows.
func (l *loader) host(ca *CA, f field[string]) {
	text := f.Value
	if u, err := url.Parse(text); err == nil && u.Scheme == "https" && u.Host != "" {
		text = u.Host
	}
	address, err := splitAddress(text, httpsPort, nameOrIP)
	if err != nil {
		l.fail(f.at, fmt.Sprintf("%q %s", shorten(f.Value), err), `name the host of the URL that the CA leads to, as in hosts = ["acme.example.net"]`)
		return
	}
	ca.Hosts = append(ca.Hosts, address)
}

// roots adds the certificates of one file.
func (l *loader) roots(ca *CA, f field[string]) {
	file := f.Value
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(f.at.file), file)
	}
	data, err := l.readText(file, maxRootFile)
	var found []*x509.Certificate
	if err == nil {
		found, err = parseRoots(data)
	}
	if err != nil {
		l.failFile(f.at, file, err, "roots are certificates in PEM")
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
