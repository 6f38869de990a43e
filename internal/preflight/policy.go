package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/zones"
)

// Products knows what DNS servers run, and the syntax of each product.
type Products interface {
	// Of returns what a server runs; "" when it doesn't say.
	Of(ctx context.Context, server string) string
	// Statement returns the text that allows a key to write names of a zone, to be pasted into the configuration of a
	// server that runs the product. Of an unknown product it is BIND's.
	Statement(product, server, zone, key string, names []string) Statement
}

// Statement allows a key to write into a zone.
type Statement struct {
	Text       string
	Note       string // what else must be known of it; "" when there is nothing
	OnePerZone bool   // several for one zone must be put together
}

// futureProduct is the product of a server that doesn't exist yet.
const futureProduct = "BIND"

// unknownPrincipal stands in statements for providers that sign without a TSIG key of their own.
const unknownPrincipal = `"PRINCIPAL@REALM"`

// Policy is the least that a zone must allow a provider.
type Policy struct {
	Provider string   `json:"provider"`
	Zone     string   `json:"zone"`              // "" when it isn't known
	Key      string   `json:"key,omitempty"`     // that signs the updates; "" when the provider has none of its own
	Names    []string `json:"names"`             // where records are written
	Product  string   `json:"product,omitempty"` // what the provider's server runs; "" when it doesn't say
	Policy   string   `json:"policy"`            // in the product's syntax, or BIND's; "" for a provider that doesn't send dynamic updates

	statement Statement
}

// Unknown is a name that could not be looked at, and why.
type Unknown struct {
	Name string
	Err  error
}

// Policies gathers places by provider and zone, and returns what each zone must allow. Names are guessed of which nobody
// says whether they are aliases, and missing when no provider serves them.
func Policies(ctx context.Context, asker *zones.Asker, places []zones.Place, products Products) (list []Policy, guessed, missing []Unknown) {
	list = []Policy{}
	for _, place := range places {
		switch {
		case place.Provider == "":
			missing = append(missing, Unknown{place.Chain[0], place.Err})
			continue
		case place.Err != nil:
			guessed = append(guessed, Unknown{place.Chain[0], fmt.Errorf("taken as it is, since nobody says whether it is an alias: %w", place.Err)})
		}
		at := slices.IndexFunc(list, func(p Policy) bool { return p.Provider == place.Provider && p.Zone == place.Zone })
		if at < 0 {
			at = len(list)
			list = append(list, Policy{Provider: place.Provider, Zone: place.Zone})
		}
		list[at].Names = append(list[at].Names, place.Name())
	}
	for i := range list {
		slices.Sort(list[i].Names)
		list[i].Names = slices.Compact(list[i].Names) // aliases may share a target
		provider, _, _ := asker.ProviderFor(list[i].Names[0])
		if len(provider.Servers) > 0 {
			list[i].Allow(provider.Servers[0], provider.Key, products.Of(ctx, provider.Servers[0]), products)
		}
	}
	slices.SortFunc(list, func(a, b Policy) int {
		return slices.Compare([]string{a.Provider, a.Zone}, []string{b.Provider, b.Zone})
	})
	return list, guessed, missing
}

// Allow fills in what a server must allow the key.
func (p *Policy) Allow(server string, key *zones.Key, product string, products Products) {
	signer := unknownPrincipal
	if key != nil {
		p.Key, signer = key.Name, key.Name
	}
	p.Product = product
	p.statement = products.Statement(product, server, p.Zone, signer, p.Names)
	p.Policy = p.statement.Text
}

// PolicyText writes policies, each with a comment that says where it belongs.
func PolicyText(list []Policy) string {
	seen := map[string]bool{}
	var blocks []string
	for _, p := range list {
		var b strings.Builder
		fmt.Fprintf(&b, "# %s, provider %s", p.where(), p.Provider)
		switch {
		case p.Policy == "":
			b.WriteString(": nothing is needed, since it sends no dynamic updates of its own")
		case seen[p.Zone] && p.statement.OnePerZone:
			b.WriteString(": a zone has one update-policy, so put these lines into the one above")
		}
		b.WriteByte('\n')
		if p.statement.Note != "" {
			fmt.Fprintf(&b, "# %s\n", p.statement.Note)
		}
		if strings.Contains(p.Policy, unknownPrincipal) {
			fmt.Fprintf(&b, "# The provider has no key of its own: write the Kerberos principal that it uses in place of %s\n", unknownPrincipal)
		}
		seen[p.Zone] = p.Policy != "" && p.Zone != ""
		blocks = append(blocks, b.String()+p.Policy)
	}
	return strings.Join(blocks, "\n")
}

func (p *Policy) where() string {
	if p.Zone == "" {
		return "the zones that hold these names"
	}
	return "zone " + p.Zone
}
