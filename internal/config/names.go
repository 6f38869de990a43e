package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/dnsname"
)

// inOrder returns the names of tables in the order of files and lines.
func inOrder[T any](tables map[string]field[T], files []string) []string {
	return slices.SortedFunc(maps.Keys(tables), func(a, b string) int {
		x, y := tables[a].at, tables[b].at
		return cmp.Or(cmp.Compare(slices.Index(files, x.file), slices.Index(files, y.file)), cmp.Compare(x.line, y.line), cmp.Compare(a, b))
	})
}

// checkName refuses names that couldn't be a part of a file name.
func (l *loader) checkName(name string, at place) {
	odd := func(r rune) bool { return r != '.' && !bareKeyRune(r) }
	if name == "" || len(name) > 200 || name[0] == '.' || name[0] == '-' || strings.ContainsFunc(name, odd) {
		l.fail(at, fmt.Sprintf("%q isn't a valid name", shorten(name)), "1 to 200 of the characters a-z, A-Z, 0-9, . _ and -, with neither . nor - in front")
	}
}

// normalHostname returns a hostname as a CA wants it: lower case, in ASCII, without a trailing dot.
func normalHostname(text string) (string, error) {
	name, wildcard := strings.CutPrefix(strings.TrimSuffix(text, "."), "*.")
	if err := plausible(name); err != nil {
		return "", err
	}
	if strings.Contains(name, "_") {
		return "", errors.New("a hostname has no underscore, and no CA issues for it")
	}
	ascii, err := idna.Lookup.ToASCII(name)
	if err != nil {
		return "", errors.New("isn't a valid hostname")
	}
	if err := checkLabels(ascii, dnschallenge.MaxHostname); err != nil {
		return "", err
	}
	if wildcard {
		ascii = "*." + ascii
	}
	return ascii, nil
}

// plausible names the usual slips, for which an IDNA error would be a poor explanation.
func plausible(name string) error {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return errors.New("is an IP address, which dns-01 cannot prove; give the host a name, or get its certificate from a private CA by another challenge")
	}
	switch {
	case name == "":
		return errors.New("is empty")
	case strings.Contains(name, "*"):
		return errors.New("a wildcard is the whole first label, as in *.corp.example.com")
	case strings.ContainsAny(name, "/:"):
		return errors.New("must be a hostname alone, without scheme, port or path")
	case strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
		return errors.New("has an empty label")
	}
	return nil
}

func checkLabels(name string, most int) error {
	if len(name) > most {
		return fmt.Errorf("is longer than %d characters", most)
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("has a label that isn't 1 to 63 characters long")
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return errors.New("ends in a number, so it isn't a hostname")
	}
	return nil
}

// normalZone returns a zone's name as hostnames are spelled. Unlike them it may have labels with an underscore.
func normalZone(text string) (string, error) {
	name := strings.TrimSuffix(text, ".")
	if strings.Contains(name, "*") {
		return "", errors.New("isn't a zone but a wildcard")
	}
	if err := plausible(name); err != nil {
		return "", err
	}
	ascii, err := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false)).ToASCII(name)
	if err != nil || strings.ContainsFunc(ascii, func(r rune) bool { return r != '.' && !bareKeyRune(r) }) {
		return "", errors.New("isn't a valid zone name")
	}
	return ascii, checkLabels(ascii, 253)
}

// isPrivate reports whether no public CA may issue for the hostname: a single label, or a name below one of the
// top-level names that are kept for private use.
func isPrivate(hostname string) bool {
	name := dnsname.Base(hostname)
	top := name[strings.LastIndexByte(name, '.')+1:]
	switch top {
	case name, "local", "internal", "lan", "corp", "home", "test", "example", "invalid", "localhost":
		return true
	}
	return name == "home.arpa" || strings.HasSuffix(name, ".home.arpa")
}

// Whether a server may be given by name. A resolver may not: it would have to be resolved first.
const (
	ipOnly   = true
	nameOrIP = false
)

// address returns the host:port of a DNS server.
func (l *loader) address(f field[string], ipOnly bool) (string, bool) {
	if !f.ok {
		return "", false
	}
	address, err := splitAddress(f.Value, dnsPort, ipOnly)
	if err != nil {
		l.fail(f.at, fmt.Sprintf("%q %s", shorten(f.Value), err), "")
		return "", false
	}
	return address, true
}

// The ports that are meant where none is given.
const (
	dnsPort   = "53"
	httpsPort = "443"
)

func splitAddress(text, port string, ipOnly bool) (string, error) {
	host := text
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		host = ip.String()
	} else if h, p, err := net.SplitHostPort(text); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "", errors.New("has no valid port")
		}
		host, port = h, p
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(host, port), nil
	}
	if ipOnly {
		return "", errors.New("must be an IP address, perhaps with a port")
	}
	name, err := normalHostname(host)
	if err != nil || strings.HasPrefix(name, "*") {
		return "", errors.New("must be a hostname or an IP address, perhaps with a port")
	}
	return net.JoinHostPort(name, port), nil
}
