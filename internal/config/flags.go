package config

import (
	"net/url"
	"strings"
)

// FlagCA says which CA by flags instead of files.
type FlagCA struct {
	Directory string // as in a file, short names too
	Email     string
	Roots     []string
	Hosts     []string // where the CA may lead to besides
}

// CA checks the flags as Load checks a table. Whether the terms are accepted is for the caller to say. Without a table
// there is no name: the short name of the directory stands in, or its host.
func (f FlagCA) CA() (CA, error) {
	raw := rawCA{Directory: flagged("--directory", f.Directory), AcceptTerms: flagged("--accept-terms", true)}
	if f.Email != "" {
		raw.Email = flagged("--email", f.Email)
	}
	for _, file := range f.Roots {
		raw.Roots = flagged("--roots", append(raw.Roots.Value, flagged("--roots", file)))
	}
	for _, host := range f.Hosts {
		raw.Hosts = flagged("--ca-host", append(raw.Hosts.Value, flagged("--ca-host", host)))
	}
	l := &loader{config: &Config{}}
	ca := l.buildCA(nameOf(f.Directory), flagged("--directory", raw))
	ca.AcceptTerms = false
	if len(l.problems) > 0 {
		return CA{}, l.problems
	}
	return ca, nil
}

// Addresses returns the host:port of DNS servers that flags name.
func Addresses(servers []string) (list []string, err error) {
	l := &loader{config: &Config{}}
	for _, text := range servers {
		if address, ok := l.address(flagged("--nameserver", text), nameOrIP); ok {
			list = append(list, address)
		}
	}
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return list, nil
}

// flagged is a value as if it stood in a file.
func flagged[T any](flag string, value T) field[T] {
	return field[T]{Value: value, at: place{file: flag}, set: true, ok: true}
}

func nameOf(directory string) string {
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		directory = u.Host
	}
	return strings.Map(func(r rune) rune {
		if r == '.' || bareKeyRune(r) {
			return r
		}
		return '_'
	}, directory)
}

// FlagCertificate says by arguments and flags what no file does.
type FlagCertificate struct {
	Name      string // "" for that of the first hostname
	Hostnames []string
	KeyType   string
	Profile   string
}

// Certificate checks the flags as Load checks a table.
func (f FlagCertificate) Certificate() (Certificate, error) {
	b := &certificates{loader: &loader{config: &Config{}}}
	var hostnames list
	for _, h := range f.Hostnames {
		hostnames = flagged("hostname", append(hostnames.Value, flagged("hostname", h)))
	}
	cert := Certificate{Name: f.Name, Profile: f.Profile, KeyType: DefaultKeyType, Hostnames: b.hostnames(hostnames)}
	if f.KeyType != "" {
		cert.KeyType = b.keyType(flagged("--key-type", f.KeyType))
	}
	if cert.Name == "" && len(cert.Hostnames) > 0 {
		cert.Name = strings.Replace(cert.Hostnames[0], "*.", "_.", 1)
	}
	if len(b.problems) == 0 {
		b.checkName(cert.Name, place{file: "NAME"})
	}
	if len(b.problems) > 0 {
		return Certificate{}, b.problems
	}
	return cert, nil
}
