package migrate

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"autocertd/internal/knownca"
)

// directoryAt finds a directory URL: one that the caller named, else the only one of the configuration, else one that is
// well known.
func (r *reader) directoryAt(matches func(*url.URL) bool) string {
	matching := func(candidates []string) (list []string) {
		for _, directory := range candidates {
			if u, err := url.Parse(directory); err == nil && matches(u) {
				list = append(list, directory)
			}
		}
		return list
	}
	if list := matching(r.directories); len(list) > 0 {
		return list[0]
	}
	if list := matching(r.configured); len(list) == 1 {
		return list[0]
	}
	var known []string
	for _, ca := range knownca.All() {
		known = append(known, ca.Directory)
	}
	slices.Sort(known)
	if list := matching(known); len(list) > 0 {
		return list[0]
	}
	return ""
}

// nameCAs gives each account a CA of its own in the configuration, the most used one first, so that this one gets the
// name that the configuration has for the directory.
func (r *reader) nameCAs(names map[string]string) {
	slices.SortStableFunc(r.Accounts, func(a, b *Account) int { return cmp.Compare(r.uses(b), r.uses(a)) })
	taken := map[string]bool{}
	for directory, name := range names {
		if !slices.ContainsFunc(r.Accounts, func(a *Account) bool { return a.Directory == directory }) {
			taken[name] = true
		}
	}
	for _, a := range r.Accounts {
		name := names[a.Directory]
		if name == "" {
			name = knownca.At(a.Directory).Name
		}
		if u, err := url.Parse(a.Directory); name == "" && err == nil {
			name = strings.ReplaceAll(usable(u.Host), ".", "-")
		}
		a.CA = free(cmp.Or(name, "imported"), taken)
	}
}

// nameCertificates makes names that the configuration takes, as near as can be to what the client calls them. What
// stands alone gets the name of its hostname.
func (r *reader) nameCertificates() {
	taken := map[string]bool{}
	for _, c := range r.Certificates {
		c.Name = usable(c.Name)
	}
	for _, c := range r.Certificates {
		bare := strings.TrimSuffix(c.Name, "_ecc") // of acme.sh
		if !slices.ContainsFunc(r.Certificates, func(o *Certificate) bool { return o != c && o.Name == bare }) {
			c.Name = bare
		}
		c.Name = free(c.Name, taken)
	}
}

// free makes a name unique by a number, and takes it.
func free(name string, taken map[string]bool) string {
	unique := name
	for n := 2; taken[unique]; n++ {
		unique = fmt.Sprintf("%s-%d", name, n)
	}
	taken[unique] = true
	return unique
}

// usable makes a name of characters that the configuration takes. A wildcard is spelled as there: _.example.com.
func usable(name string) string {
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		name = "_." + rest
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, name)
	return cmp.Or(strings.TrimLeft(name, ".-"), "imported")
}

// email is the first address of an account's contacts.
func email(contacts []string) string {
	for _, c := range contacts {
		if address, ok := strings.CutPrefix(c, "mailto:"); ok {
			return address
		}
	}
	return ""
}

// hostPort joins a server and its port, unless it has one.
func hostPort(server, port string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), port)
}
