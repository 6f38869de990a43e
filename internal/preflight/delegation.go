package preflight

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/dnsname"
	"autocertd/internal/zones"
)

const (
	aliasTTL    = 300 // seconds
	longestName = 253 // characters of a DNS name
)

// Alias is a challenge name and where its record goes once it is delegated.
type Alias struct {
	Name   string `json:"name"`
	Zone   string `json:"zone"` // that holds the name; "" when it isn't known
	Target string `json:"target"`
	Line   string `json:"line,omitempty"` // for the zone file; "" when there is nothing to do
	Note   string `json:"note,omitempty"`
}

// Delegation moves all challenges into one zone.
type Delegation struct {
	Zone    string  `json:"zone"`
	Aliases []Alias `json:"aliases"`
	Policy  Policy  `json:"policy"`           // of the challenge zone
	Stanza  string  `json:"stanza,omitempty"` // for the configuration; "" when there is nothing to add

	served bool // a provider names the zone
}

// Delegate finds for each place what must change so that its record is written into the zone. Names are unknown of which
// nobody says whether they are aliases already.
func Delegate(ctx context.Context, asker *zones.Asker, zone string, places []zones.Place, products Products) (report Delegation, unknown []Unknown) {
	report = Delegation{Zone: zone, Aliases: []Alias{}, Policy: Policy{Zone: zone}}
	for _, place := range places {
		a := aliasFor(place, zone)
		if a.Zone == "" {
			_, a.Zone, _ = asker.ProviderFor(a.Name)
		}
		if place.Err != nil && a.Line != "" {
			unknown = append(unknown, Unknown{a.Name, fmt.Errorf("whether it is an alias already isn't known: %w", place.Err)})
		}
		report.Aliases = append(report.Aliases, a)
		report.Policy.Names = append(report.Policy.Names, a.Target)
	}
	slices.SortFunc(report.Aliases, func(a, b Alias) int {
		return slices.Compare([]string{a.Zone, a.Name}, []string{b.Zone, b.Name})
	})
	slices.Sort(report.Policy.Names)
	report.Policy.Names = slices.Compact(report.Policy.Names)
	report.provide(ctx, asker, products)
	return report, unknown
}

// aliasFor finds what must change for one place.
func aliasFor(place zones.Place, zone string) Alias {
	name := place.Chain[0]
	a := Alias{Name: name, Target: place.Name()}
	if len(place.Chain) == 1 {
		a.Zone = place.Zone
	}
	switch {
	case dnsname.In(name, zone):
		a.Note = "lies in the challenge zone"
		return a
	case dnsname.In(place.Name(), zone):
		a.Note = "is delegated already, to " + place.Name()
		return a
	case len(place.Chain) > 1:
		a.Note = "is an alias of " + place.Chain[1] + " now; its CNAME must go"
	}
	a.Target = target(dnschallenge.Hostname(name), zone)
	a.Line = fmt.Sprintf("%s. %d IN CNAME %s.", name, aliasTTL, a.Target)
	return a
}

// target is a hostname's own name in the challenge zone.
func target(hostname, zone string) string {
	name := hostname + "." + zone
	if len(name) <= longestName {
		return name
	}
	sum := sha256.Sum256([]byte(hostname))
	return hex.EncodeToString(sum[:16]) + "." + zone
}

// provide finds the provider of the challenge zone, or describes one.
func (r *Delegation) provide(ctx context.Context, asker *zones.Asker, products Products) {
	p, zone, ok := asker.ProviderFor(r.Zone)
	r.served = zone != ""
	server, key := "ns1."+r.Zone, &zones.Key{Name: "acme-key"}
	if ok {
		r.Policy.Provider = p.Name
	}
	if ok && len(p.Servers) == 0 && r.served {
		return // an API, which has no update-policy
	}
	if !ok && len(r.Aliases) > 0 { // the server of today is the likeliest
		p, _, _ = asker.ProviderFor(r.Aliases[0].Name)
	}
	runs := futureProduct
	if len(p.Servers) > 0 {
		server = p.Servers[0]
		runs = products.Of(ctx, server)
	}
	if p.Key != nil || ok && len(p.Servers) > 0 {
		key = p.Key
	}
	r.Policy.Allow(server, key, runs, products)
	if !r.served {
		r.Stanza = fmt.Sprintf("[provider.challenges]\ntype     = \"rfc2136\"\nserver   = %q\nkey_file = \"/etc/autocertd/tsig.key\"\nzones    = [%q]\n", server, r.Zone)
	}
}

// Text writes the lines of the zone files; all else are comments there.
func (r *Delegation) Text() string {
	var b strings.Builder
	for i, a := range r.Aliases {
		if i == 0 || a.Zone != r.Aliases[i-1].Zone {
			where := (&Policy{Zone: a.Zone}).where()
			fmt.Fprintf(&b, "; For %s:\n", where)
		}
		if a.Note != "" {
			fmt.Fprintf(&b, "; %s. %s\n", a.Name, a.Note)
		}
		if a.Line != "" {
			b.WriteString(a.Line + "\n")
		}
	}
	fmt.Fprintf(&b, ";\n; %s\n", r.providerText())
	b.WriteString(commented(r.Stanza))
	if r.Policy.Policy != "" {
		where := "in named.conf"
		if r.Policy.statement.Note != "" {
			where = "(" + r.Policy.statement.Note + ")"
		}
		fmt.Fprintf(&b, ";\n; For zone %s %s:\n", r.Zone, where)
		b.WriteString(commented(r.Policy.Policy))
	}
	return b.String()
}

// providerText says who writes into the challenge zone.
func (r *Delegation) providerText() string {
	switch {
	case r.served:
		return fmt.Sprintf("Provider %s serves zone %s already.", r.Policy.Provider, r.Zone)
	case r.Policy.Provider != "":
		return fmt.Sprintf("Provider %s names no zones, so it writes into zone %s too. If others serve that zone, for config.toml,\n; and give provider %s its own zones = [\"…\"]:",
			r.Policy.Provider, r.Zone, r.Policy.Provider)
	}
	return fmt.Sprintf("No provider serves zone %s yet. For config.toml:", r.Zone)
}

// commented makes each line a comment of a zone file.
func commented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(";\t" + line)
	}
	return b.String()
}
