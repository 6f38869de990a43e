package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"autocertd/internal/term"
	"autocertd/internal/zones"
	"autocertd/providers"
)

// unknownPrincipal stands in grants of providers that sign without a TSIG key of their own.
const unknownPrincipal = `"PRINCIPAL@REALM"`

// policy is the least that a zone must allow a provider.
type policy struct {
	Provider string   `json:"provider"`
	Zone     string   `json:"zone"`              // "" when it isn't known
	Key      string   `json:"key,omitempty"`     // that signs the updates; "" when the provider has none of its own
	Names    []string `json:"names"`             // where records are written
	Product  string   `json:"product,omitempty"` // what the provider's server runs; "" when it doesn't say
	Policy   string   `json:"policy"`            // in the product's syntax, or BIND's; "" for a provider that doesn't send dynamic updates

	note string // what else must be known of it
}

// policyReport is what check --policy --json prints.
type policyReport struct {
	Zones    []policy `json:"zones"`
	Warnings []string `json:"warnings,omitempty"`

	missing int // names that are in no policy, since no provider serves them or no account is registered
}

// findPlaces finds out where the records of the named certificates go, of all without names. It changes nothing.
func findPlaces(ctx context.Context, path string, names []string) (asker *zones.Asker, places []zones.Place, warnings []string, err error) {
	s, err := openSession(path, "autocertd check", looks)
	if err != nil {
		return nil, nil, nil, err
	}
	certs, err := selected(s.settings.Config, names)
	if err != nil {
		return nil, nil, nil, err
	}
	asker = s.asker()
	wanted, unknown := s.challengeNames(ctx, certs)
	return asker, asker.Places(ctx, wanted), unplacedTexts(unknown), nil
}

// detectProduct is the value of --policy that leaves it to the servers to say what they are.
const detectProduct = "detect"

// productFinder returns what a provider's server runs, each asked once. A product that was named on the command line
// holds for all of them.
func productFinder(ctx context.Context, named string) (func(zones.Provider) providers.Product, error) {
	if named != detectProduct {
		product, err := providers.ParseProduct(named)
		return func(zones.Provider) providers.Product { return product }, err
	}
	known := map[string]providers.Product{}
	return func(p zones.Provider) providers.Product {
		if len(p.Servers) == 0 {
			return providers.UnknownProduct
		}
		server := p.Servers[0]
		if _, asked := known[server]; !asked {
			known[server] = providers.Detect(ctx, server)
		}
		return known[server]
	}, nil
}

// checkPolicy prints the least that servers must allow for issuing, in the syntax of their product.
func checkPolicy(ctx context.Context, path string, names []string, product string, asJSON bool) error {
	productOf, err := productFinder(ctx, product)
	if err != nil {
		return &usageError{fmt.Errorf("--policy: %w", err)}
	}
	asker, places, warnings, err := findPlaces(ctx, path, names)
	if err != nil {
		return err
	}
	report := findPolicies(asker, places, productOf)
	report.Warnings, report.missing = append(warnings, report.Warnings...), report.missing+len(warnings)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case asJSON:
		err = term.JSON(os.Stdout, report)
	default:
		printWarnings(report.Warnings)
		_, err = os.Stdout.WriteString(policyText(report.Zones))
	}
	if err == nil && report.missing > 0 {
		return &silentError{exitFailed}
	}
	return err
}

// findPolicies gathers the places by provider and zone.
func findPolicies(asker *zones.Asker, places []zones.Place, productOf func(zones.Provider) providers.Product) policyReport {
	report := policyReport{Zones: []policy{}}
	var guessed, missing []unplaced
	for _, place := range places {
		switch {
		case place.Provider == "":
			missing = append(missing, unplaced{place.Chain[0], place.Err})
			continue
		case place.Err != nil:
			guessed = append(guessed, unplaced{place.Chain[0], fmt.Errorf("taken as it is, since nobody says whether it is an alias: %w", place.Err)})
		}
		at := slices.IndexFunc(report.Zones, func(z policy) bool { return z.Provider == place.Provider && z.Zone == place.Zone })
		if at < 0 {
			at = len(report.Zones)
			report.Zones = append(report.Zones, policy{Provider: place.Provider, Zone: place.Zone})
		}
		report.Zones[at].Names = append(report.Zones[at].Names, place.Name())
	}
	for i := range report.Zones {
		z := &report.Zones[i]
		slices.Sort(z.Names)
		z.Names = slices.Compact(z.Names) // aliases may share a target
		p, _, _ := asker.ProviderFor(z.Names[0])
		z.allow(p, productOf(p))
	}
	slices.SortFunc(report.Zones, func(a, b policy) int {
		return slices.Compare([]string{a.Provider, a.Zone}, []string{b.Provider, b.Zone})
	})
	report.Warnings = append(unplacedTexts(guessed), unplacedTexts(missing)...)
	report.missing = len(missing)
	return report
}

// allow fills in what the zone must allow the provider. A server that doesn't say what it is gets BIND's syntax, with a note.
func (z *policy) allow(p zones.Provider, product providers.Product) {
	if len(p.Servers) == 0 {
		return
	}
	signer := unknownPrincipal
	if p.Key != nil {
		z.Key, signer = p.Key.Name, p.Key.Name
	}
	z.Product = string(product)
	var where string
	z.Policy, where = cmp.Or(product, providers.BIND).Policy(providers.Access{Zone: z.Zone, Key: signer, Names: z.Names})
	switch product {
	case providers.BIND:
	case providers.UnknownProduct:
		z.note = fmt.Sprintf("%s doesn't say what it runs, so this is for BIND; for others: check --policy=%s", p.Servers[0], strings.Join(providers.ProductNames()[1:], ", --policy="))
	default:
		z.note = fmt.Sprintf("%s: %s", product, where)
	}
}

// policyText writes the policies, each with a comment that says where it belongs.
func policyText(zones []policy) string {
	seen := map[string]bool{}
	var blocks []string
	for _, z := range zones {
		var b strings.Builder
		switch {
		case z.Policy == "":
			fmt.Fprintf(&b, "# %s, provider %s: nothing is needed, since it sends no dynamic updates of its own\n", z.where(), z.Provider)
		case seen[z.Zone] && (z.Product == "" || z.Product == string(providers.BIND)):
			fmt.Fprintf(&b, "# %s, provider %s: a zone has one update-policy, so put these lines into the one above\n", z.where(), z.Provider)
		default:
			fmt.Fprintf(&b, "# %s, provider %s\n", z.where(), z.Provider)
		}
		if z.note != "" {
			fmt.Fprintf(&b, "# %s\n", z.note)
		}
		if strings.Contains(z.Policy, unknownPrincipal) {
			fmt.Fprintf(&b, "# The provider has no key of its own: write the Kerberos principal that it uses in place of %s\n", unknownPrincipal)
		}
		seen[z.Zone] = z.Policy != "" && z.Zone != ""
		blocks = append(blocks, b.String()+z.Policy)
	}
	return strings.Join(blocks, "\n")
}

func (z *policy) where() string {
	if z.Zone == "" {
		return "the zones that hold these names"
	}
	return "zone " + z.Zone
}
