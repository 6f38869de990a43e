package zones

import (
	"fmt"
	"strings"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/dnsname"
	"autocertd/internal/suggest"
)

// NoProviderError says that no configured provider serves a name.
type NoProviderError struct {
	Name      string   // with the aliases that lead to it
	Zone      string   // as DNS has it, "" when not known
	Alias     string   // the CNAME or DNAME, and its owner, that leads to a name that the servers of its provider refuse
	Delegated bool     // a provider serves the zone above, whose servers delegate this one
	Zones     []string // those that are served
	Meant     string   // a hostname in a zone that is known, from which this one differs by a slip; "" for none
	Unasked   error    // why it isn't known whether an alias leads elsewhere; nil when it is
}

// Error returns which name, and its zone where that is known.
func (e *NoProviderError) Error() string {
	text := "no provider serves " + e.Name
	if e.Zone != "" {
		text += ", which is in zone " + e.Zone
	}
	switch {
	case e.Alias != "":
		text += ": the servers refuse it"
	case e.Delegated:
		text += ", delegated to other servers"
	}
	return text
}

// Cure returns what to configure.
func (e *NoProviderError) Cure() string {
	switch {
	case e.Alias != "":
		return "add a provider for the zone of the target, or remove the " + e.Alias
	case e.Delegated:
		return "add a provider for those, with that zone in its zones"
	case e.Meant != "":
		return fmt.Sprintf("did you mean %s? If not, add its zone to zones of the provider that can write there", e.Meant)
	case len(e.Zones) == 0:
		return "none is configured that names its zones: set zones in the right one"
	}
	text := fmt.Sprintf("the providers serve %s: add the zone to zones of the right one, if that can write there", few(e.Zones))
	if e.Unasked != nil {
		text += `; if a CNAME leads from it to one of them, name resolvers that know it: [resolvers] public = ["ADDRESS"]`
	}
	return text
}

// few returns the first of several names, and how many more there are.
func few(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// Meant returns the hostname that was probably meant by the name of a challenge that no zone holds, and its zone: one that
// differs from the end of the name by a slip or two. It returns nothing when none does.
func Meant(name string, zones []string) (host, zone string) {
	labels := strings.Split(dnschallenge.Hostname(dnsname.Canonical(name)), ".")
	best := slips + 1
	for _, z := range zones {
		n := strings.Count(z, ".") + 1
		for have := max(1, n-1); have <= min(n+1, len(labels)); have++ { // a dot more or less is a slip, too
			end := strings.Join(labels[len(labels)-have:], ".")
			d := suggest.Distance(end, z)
			if d == 0 || d >= best || 4*d > len(z) {
				continue
			}
			best, host, zone = d, z, z
			if begin := labels[:len(labels)-have]; len(begin) > 0 {
				host = strings.Join(begin, ".") + "." + z
			}
		}
	}
	return host, zone
}

// slips bounds the letters that may be wrong, missing, too many, or swapped with their neighbour.
const slips = 2
