package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/suggest"
)

const (
	maxHostnames       = 100
	maxPrivateWarnings = 10 // a long list in one such zone is one mistake, not thousands
)

// A certificates collects certificates and what they share.
type certificates struct {
	*loader
	names    map[string]place // where each certificate is defined
	cas      map[string]bool  // whether the CA of that name is private
	defaults Certificate

	settledCA bool // it is clear which CA issues by default, or was told that it isn't
	private   int  // hostnames that no public CA issues for, though one is asked
}

func (l *loader) buildCertificates(raw *rawConfig) {
	b := &certificates{loader: l, names: map[string]place{}, cas: map[string]bool{}}
	for _, ca := range l.config.CAs {
		b.cas[ca.Name] = len(ca.Roots) > 0
	}
	b.setDefaults(raw.Defaults.Value)
	for _, f := range raw.Hostnames.Value {
		b.bare(f)
	}
	for _, f := range raw.Certificates {
		if f.ok {
			b.explicit(f)
		}
	}
	if more := b.private - maxPrivateWarnings; more > 0 {
		l.warn(place{file: l.config.Path}, fmt.Sprintf("no public CA issues for %d more hostnames either", more), "")
	}
	if len(raw.Hostnames.Value) == 0 && len(raw.Certificates) == 0 && !l.incomplete {
		l.warn(place{file: l.config.Path, key: "hostnames"}, "there is nothing to do: no hostname is configured", `hostnames = ["www.your.domain"]`)
	}
}

func (b *certificates) setDefaults(raw rawDefaults) {
	b.defaults.CAs = b.caNames(raw.CA)
	if !raw.CA.set && len(b.config.CAs) == 1 {
		b.defaults.CAs = []string{b.config.CAs[0].Name}
	}
	b.defaults.KeyType = b.keyType(raw.KeyType)
	b.defaults.Profile = raw.Profile.Value
	b.settledCA = raw.CA.set || len(b.config.CAs) < 2 || b.incomplete
}

func (b *certificates) keyType(f field[string]) string {
	return b.oneOf(f, DefaultKeyType, "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096")
}

// caNames returns the names in a list of CAs that exist.
func (b *certificates) caNames(f list) []string {
	var names []string
	for _, entry := range f.Value {
		_, known := b.cas[entry.Value]
		switch {
		case !entry.ok:
		case !known && b.incomplete: // it may stand in the file that couldn't be read
		case !known:
			b.fail(entry.at, fmt.Sprintf("there is no CA %q", shorten(entry.Value)), suggest.DidYouMean(entry.Value, b.allCAs()))
		case slices.Contains(names, entry.Value):
			b.fail(entry.at, fmt.Sprintf("CA %q is listed twice", entry.Value), "")
		default:
			names = append(names, entry.Value)
		}
	}
	if f.ok && len(f.Value) == 0 {
		b.fail(f.at, "is empty", "")
	}
	return names
}

func (b *certificates) allCAs() []string {
	names := make([]string, len(b.config.CAs))
	for i, ca := range b.config.CAs {
		names[i] = ca.Name
	}
	return names
}

// bare adds the certificate of a hostname that stands alone.
func (b *certificates) bare(f field[string]) {
	hostname, ok := b.hostname(f)
	if !ok {
		return
	}
	cert := b.defaults
	cert.Name = hostname
	if rest, wildcard := strings.CutPrefix(hostname, "*."); wildcard {
		cert.Name = "_." + rest
	}
	cert.Hostnames = []string{hostname}
	b.needCA(f.at)
	b.add(cert, f.at)
}

// explicit adds the certificate of a table.
func (b *certificates) explicit(f field[rawCertificate]) {
	raw := f.Value
	cert := b.defaults
	cert.Name = raw.Name.Value
	at := f.at
	if raw.Name.ok {
		at = raw.Name.at
		b.checkName(cert.Name, at)
	} else if !raw.Name.set {
		b.missing(at, "name", "has no name", `name = "web", for its files and in commands`)
	}
	cert.Hostnames = b.hostnames(raw.Hostnames)
	if len(raw.Hostnames.Value) == 0 && (raw.Hostnames.ok || !raw.Hostnames.set && !raw.CSR.set) {
		b.missing(place{at.file, at.line, f.at.key}, "hostnames", "has no hostnames", `hostnames = ["www.your.domain"]`)
	}
	if raw.CA.set {
		cert.CAs = b.caNames(raw.CA)
	} else {
		b.needCA(at)
	}
	if raw.KeyType.set {
		cert.KeyType = b.keyType(raw.KeyType)
	}
	if raw.Profile.set {
		cert.Profile = raw.Profile.Value
	}
	cert.ReuseKey = raw.ReuseKey.Value
	if raw.CSR.ok {
		b.csr(&cert, raw)
	}
	b.add(cert, at)
}

// hostnames returns the hostnames of one certificate, each once.
func (b *certificates) hostnames(f list) []string {
	var hostnames []string
	seen := make(map[string]bool, len(f.Value))
	for _, entry := range f.Value {
		if hostname, ok := b.hostname(entry); ok && !seen[hostname] {
			seen[hostname] = true
			hostnames = append(hostnames, hostname)
		}
	}
	if len(hostnames) > maxHostnames {
		b.fail(f.at, fmt.Sprintf("has %d hostnames, and a certificate has at most %d", len(hostnames), maxHostnames), "make several certificates of it")
	}
	return hostnames
}

func (b *certificates) hostname(f field[string]) (string, bool) {
	if !f.ok {
		return "", false
	}
	hostname, err := normalHostname(f.Value)
	if err != nil {
		b.fail(f.at, fmt.Sprintf("%q: %s", shorten(f.Value), err), "")
		return "", false
	}
	return hostname, true
}

func (b *certificates) add(cert Certificate, at place) {
	if other, taken := b.names[cert.Name]; taken && cert.Name != "" {
		b.fail(at, fmt.Sprintf("certificate %q is defined already at %s", cert.Name, other), "keep one of the two")
		return
	}
	b.names[cert.Name] = at
	b.checkMostNames(cert, at)
	b.warnPrivate(cert, at)
	b.config.Certificates = append(b.config.Certificates, cert)
}

// checkMostNames refuses more hostnames than any of the CAs allows for the profile. It warns when another CA may issue.
func (b *certificates) checkMostNames(cert Certificate, at place) {
	tight, most := "", 0
	others := false
	for _, name := range cert.CAs {
		ca := b.ca(name)
		allowed := ca.MostNames(cmp.Or(cert.Profile, ca.Profile))
		if allowed == 0 || len(cert.Hostnames) <= allowed {
			others = true
		} else {
			tight, most = name, allowed
		}
	}
	if tight == "" || len(cert.Hostnames) > maxHostnames { // which was told
		return
	}
	tell := b.fail
	if others {
		tell = b.warn
	}
	ca := b.ca(tight)
	tell(at, fmt.Sprintf("has %d hostnames, and CA %q allows %d with profile %q", len(cert.Hostnames), tight, most, cmp.Or(cert.Profile, ca.Profile, "classic")),
		"make several certificates of it, or take another profile")
}

// ca returns a CA by its name, which exists.
func (b *certificates) ca(name string) CA {
	return b.config.CAs[slices.IndexFunc(b.config.CAs, func(ca CA) bool { return ca.Name == name })]
}

// needCA tells, once, that nothing says which of several CAs issues.
func (b *certificates) needCA(at place) {
	if b.settledCA {
		return
	}
	b.settledCA = true
	all := b.allCAs()
	b.fail(at, "nothing says which CA issues, and there are several: "+strings.Join(all, ", "), fmt.Sprintf("add:\n[defaults]\nca = [%q]", all[0]))
}

// warnPrivate warns of names for which the CAs of the certificate will not issue.
func (b *certificates) warnPrivate(cert Certificate, at place) {
	public := slices.IndexFunc(cert.CAs, func(name string) bool { return !b.cas[name] })
	if public < 0 {
		return
	}
	for _, hostname := range cert.Hostnames {
		if !isPrivate(hostname) {
			continue
		}
		if b.private++; b.private <= maxPrivateWarnings {
			b.warn(at, fmt.Sprintf("no public CA issues for %q, and CA %q isn't a private one", hostname, cert.CAs[public]),
				"use a name in a domain of yours, or a private CA with roots set")
		}
	}
}
