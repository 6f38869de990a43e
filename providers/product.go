package providers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Product is the software that a DNS server runs. Each has a syntax of its own for what it allows, and ways of its own to
// say no.
type Product string

// The products whose syntax is known here.
const (
	UnknownProduct  Product = ""
	BIND            Product = "BIND"
	Knot            Product = "Knot DNS"
	PowerDNS        Product = "PowerDNS"
	ActiveDirectory Product = "Active Directory" // of Windows or Samba
)

// ProductNames are the names that [ParseProduct] knows.
func ProductNames() []string { return []string{"bind", "knot", "powerdns", "ad"} }

// ParseProduct returns the product by its name on the command line.
func ParseProduct(name string) (Product, error) {
	known := []Product{BIND, Knot, PowerDNS, ActiveDirectory}
	if i := slices.Index(ProductNames(), strings.ToLower(name)); i >= 0 {
		return known[i], nil
	}
	return UnknownProduct, fmt.Errorf("%.40q is none of the servers that are known: %s", name, strings.Join(ProductNames(), ", "))
}

// detectTime is how long a server may take to say what it is.
const detectTime = 4 * time.Second

// Detect asks the server at host:port what it runs. Many are configured to keep that to themselves.
func Detect(ctx context.Context, server string) Product {
	ctx, cancel := context.WithTimeout(ctx, detectTime)
	defer cancel()
	p := prober{server: server}
	for _, name := range []string{"version.bind.", "version.server."} {
		m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
		m.Question[0].Qclass = dns.ClassCHAOS
		reply, err := p.ask(ctx, m)
		if err != nil {
			return UnknownProduct
		}
		for _, rr := range reply.Answer {
			if txt, ok := rr.(*dns.TXT); ok {
				if product := productOf(strings.Join(txt.Txt, "")); product != UnknownProduct {
					return product
				}
			}
		}
	}
	return UnknownProduct
}

// productOf reads what a server says of its version. BIND says a number alone.
func productOf(version string) Product {
	version = strings.ToLower(version)
	switch {
	case strings.Contains(version, "knot dns"):
		return Knot
	case strings.Contains(version, "powerdns"):
		return PowerDNS
	case strings.Contains(version, "microsoft"), strings.Contains(version, "samba"):
		return ActiveDirectory
	case strings.Contains(version, "bind"), strings.HasPrefix(version, "9."):
		return BIND
	}
	return UnknownProduct
}

// productMemory remembers what servers run, and for a while that they didn't say.
type productMemory struct {
	asked memory

	mu    sync.Mutex
	known map[string]Product
}

// of returns what is remembered of the server, and asks it when that is nothing.
func (m *productMemory) of(ctx context.Context, server string) Product {
	if product := m.remembered(server); product != UnknownProduct || m.asked.has(server) {
		return product
	}
	m.asked.add(server)
	product := Detect(ctx, server)
	if product != UnknownProduct {
		m.remember(server, product)
	}
	return product
}

func (m *productMemory) remember(server string, product Product) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = make(map[string]Product)
	}
	m.known[server] = product
}

func (m *productMemory) remembered(server string) Product {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[server]
}

// unit is the product's systemd unit, "" where that isn't known.
func (p Product) unit() string {
	switch p {
	case BIND:
		return "named"
	case Knot:
		return "knot"
	case PowerDNS:
		return "pdns"
	}
	return ""
}

// looksAtLog tells where the server says what went wrong.
func (p Product) looksAtLog() string {
	if unit := p.unit(); unit != "" {
		return "its log on the server says why: journalctl -u " + unit + " -n 50"
	}
	return "the server's log says why"
}

// Access is what a zone should allow: that one key writes TXT at some names.
type Access struct {
	Zone  string
	Key   string // the TSIG key's name, or a Kerberos principal in quotes
	Names []string
}

// Policy returns the least that p must be told to allow a, as text to paste, and where that goes. Where p is unknown both
// are empty.
func (p Product) Policy(a Access) (text, where string) {
	zone := a.Zone
	if zone == "" {
		zone = "ZONE"
	}
	switch p {
	case BIND:
		return "update-policy {\n\t" + strings.Join(a.grants(), "\n\t") + "\n};\n", "for the zone's statement in named.conf"
	case Knot:
		return fmt.Sprintf(`acl:
  - id: %[1]s-challenges
    key: %[1]s
    action: update
    update-type: [TXT]
    update-owner: name
    update-owner-match: equal
    update-owner-name: %[2]s
zone:
  - domain: %[3]s
    acl: [%[1]s-challenges]
`, a.Key, a.knotNames(len(a.Names)), zone), "for knot.conf"
	case PowerDNS:
		return fmt.Sprintf("pdnsutil set-meta %[1]s TSIG-ALLOW-DNSUPDATE %[2]s\npdnsutil set-meta %[1]s NOTIFY-DNSUPDATE 1\n", zone, a.Key),
			"to run on the server; PowerDNS has no rule for single names, so the key may write all of the zone"
	case ActiveDirectory:
		return fmt.Sprintf(`samba-tool dsacl set -H ldap://SERVER -U Administrator --sddl="(A;CI;GA;;;SID-OF-THE-ACCOUNT)" --objectdn="DC=%s,CN=MicrosoftDNS,DC=DomainDnsZones,DC=DOMAIN"`+"\n", zone),
			"to run where samba-tool is; the account may then write all of the zone"
	}
	return "", ""
}

// grants are BIND's lines for a.
func (a Access) grants() []string {
	lines := make([]string, len(a.Names))
	for i, name := range a.Names {
		lines[i] = fmt.Sprintf("grant %s name %s. TXT;", a.Key, name)
	}
	return lines
}

// knotNames is Knot's list of the names, at most n of them.
func (a Access) knotNames(n int) string {
	var b strings.Builder
	for i, name := range a.Names[:min(n, len(a.Names))] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name + ".")
	}
	return "[" + b.String() + "]"
}

// addsKey is the cure for a key that the server doesn't have.
func (p Product) addsKey(a Access, algorithm string) string {
	switch p {
	case BIND:
		return fmt.Sprintf(`on the server, name the file with key "%[1]s" in named.conf: include "/etc/bind/%[1]s.key"; and then: rndc reconfig`, a.Key)
	case Knot:
		return fmt.Sprintf(`in knot.conf, add the key below key: (id: %[1]s, algorithm: %[2]s, secret: …), name it in an acl of the zone (key: %[1]s), and then: knotc reload`, a.Key, algorithm)
	case PowerDNS:
		return fmt.Sprintf("on the server: pdnsutil list-tsig-keys; pdnsutil import-tsig-key %[1]s %[2]s SECRET; pdnsutil set-meta %[3]s TSIG-ALLOW-DNSUPDATE %[1]s", a.Key, algorithm, a.Zone)
	}
	return fmt.Sprintf("add key %q to the server with the same algorithm and secret, and let it update the zone", a.Key)
}

// allowsNames is the cure for names that the server's policy forbids.
func (p Product) allowsNames(a Access) string {
	switch p {
	case BIND:
		return fmt.Sprintf("add to update-policy of zone %s, above any deny, and run rndc reconfig: %s", a.Zone, firstFew(a.grants(), " "))
	case Knot:
		return fmt.Sprintf("add to the zone's acl in knot.conf and run knotc reload: update-owner-name: %s", a.knotNames(few))
	case PowerDNS:
		return fmt.Sprintf("PowerDNS takes no TXT beside a CNAME, and asks lua-dnsupdate-policy-script if there is one; see: pdnsutil list-zone %s", a.Zone)
	}
	return fmt.Sprintf("let the server allow key %q to write TXT at %s", a.Key, firstFew(a.Names, ", "))
}

// allowsZone is the cure for a primary that refuses every update of the zone with a key that it knows.
func (p Product) allowsZone(a Access, address string) (reason, cure string) {
	switch p {
	case BIND:
		return "the zone is frozen, or has no update-policy",
			fmt.Sprintf("on the server: rndc thaw %[1]s; and if it isn't frozen, add to its zone %[1]s: update-policy { %[2]s };", a.Zone, firstFew(a.grants(), " "))
	case Knot:
		return "no acl of the zone lets the key update it",
			fmt.Sprintf("add to an acl of zone %s in knot.conf, and run knotc reload: key: %s, action: update, update-type: [TXT], update-owner: name, update-owner-match: equal, update-owner-name: %s",
				a.Zone, a.Key, a.knotNames(few))
	case PowerDNS:
		return "updates are switched off, or not allowed from our address or with this key",
			fmt.Sprintf("on the server, in pdns.conf: dnsupdate=yes and allow-dnsupdate-from=%s, then: systemctl restart pdns; and: pdnsutil set-meta %s TSIG-ALLOW-DNSUPDATE %s", address, a.Zone, a.Key)
	}
	return "its policy doesn't allow the key, or it isn't the primary",
		fmt.Sprintf("let server be the primary of the zone, and let that allow key %q to write TXT at %s", a.Key, firstFew(a.Names, ", "))
}

// crowded is the cure for a name that holds too many records.
func (p Product) crowded(zone, name string) string {
	cure := "remove those that nobody needs any more; they are shown by: dig +tcp TXT " + name
	if p == BIND {
		cure += fmt.Sprintf("; or allow more in zone %s: max-records-per-type 1000;", zone)
	}
	return cure
}

// fails is the cure for SERVFAIL, of which a server says no more.
func (p Product) fails(name string) string {
	switch p {
	case BIND:
		return fmt.Sprintf("perhaps there are too many records at the name (max-records-per-type; see: dig +tcp TXT %s), or it can't write the zone's journal; its log on the server says: journalctl -u named -n 50", name)
	case ActiveDirectory:
		return "often our account has no right for the name, which somebody else has made"
	}
	return fmt.Sprintf("perhaps there are too many records at the name (see: dig +tcp TXT %s), or it can't write the zone; %s", name, p.looksAtLog())
}

// access is what u needs.
func (u update) access(key tsigKey) Access {
	return Access{Zone: u.zone, Key: key.name, Names: u.names()}
}

// names returns the full names of the records, each once, without the trailing dot.
func (u update) names() []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range u.records {
		if name := u.full(r); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}
