package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"autocertd/internal/config"
	"autocertd/internal/preflight"
	"autocertd/internal/term"
	"autocertd/internal/zones"
	"autocertd/providers"
)

// detectProduct is the value of --policy that asks the servers for their product.
const detectProduct = "detect"

// products implements preflight.Products. A product that was named on the command line holds for all servers; else each is
// asked once.
type products struct {
	named string
	known map[string]string // by server
}

func newProducts(named string) (*products, error) {
	p := &products{known: map[string]string{}}
	if named == detectProduct {
		return p, nil
	}
	product, err := providers.ParseProduct(named)
	p.named = string(product)
	return p, err
}

// Of implements preflight.Products.
func (p *products) Of(ctx context.Context, server string) string {
	if p.named != "" {
		return p.named
	}
	if _, asked := p.known[server]; !asked {
		p.known[server] = string(providers.Detect(ctx, server))
	}
	return p.known[server]
}

// Statement implements preflight.Products.
func (p *products) Statement(name, server, zone, key string, names []string) preflight.Statement {
	product := providers.Product(name)
	text, where := cmp.Or(product, providers.BIND).Policy(providers.Access{Zone: zone, Key: key, Names: names})
	s := preflight.Statement{Text: text, Note: fmt.Sprintf("%s: %s", product, where)}
	switch product {
	case providers.BIND:
		s.Note, s.OnePerZone = "", true
	case providers.UnknownProduct:
		s.Note, s.OnePerZone = fmt.Sprintf("%s doesn't say what it runs, so this is for BIND; for others: check --policy=%s",
			server, strings.Join(providers.ProductNames()[1:], ", --policy=")), true
	}
	return s
}

// findPlaces finds the places of the records of the named certificates; of all when none is named. It changes nothing.
func findPlaces(ctx context.Context, path string, names []string) (asker *zones.Asker, places []zones.Place, unknown []preflight.Unknown, err error) {
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
	return asker, asker.Places(ctx, wanted), unknown, nil
}

// policyReport is the output of check --policy --json.
type policyReport struct {
	Zones    []preflight.Policy `json:"zones"`
	Warnings []string           `json:"warnings,omitempty"`
}

// checkPolicy prints the least that servers must allow for issuing, in the syntax of their product.
func checkPolicy(ctx context.Context, path string, names []string, product string, asJSON bool) error {
	products, err := newProducts(product)
	if err != nil {
		return &usageError{fmt.Errorf("--policy: %w", err)}
	}
	asker, places, unknown, err := findPlaces(ctx, path, names)
	if err != nil {
		return err
	}
	list, guessed, missing := preflight.Policies(ctx, asker, places, products)
	warnings := append(unknownTexts(unknown), append(unknownTexts(guessed), unknownTexts(missing)...)...)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case asJSON:
		err = term.JSON(os.Stdout, policyReport{list, warnings})
	default:
		printWarnings(warnings)
		_, err = os.Stdout.WriteString(preflight.PolicyText(list))
	}
	if err == nil && len(unknown)+len(missing) > 0 {
		return &silentError{exitFailed}
	}
	return err
}

// delegationReport is the output of check --delegation --json.
type delegationReport struct {
	preflight.Delegation
	Warnings []string `json:"warnings,omitempty"`
}

// checkDelegation prints the CNAMEs that move all challenges into one zone.
func checkDelegation(ctx context.Context, path, zone string, names []string, asJSON bool) error {
	zone, err := config.ParseZone(zone)
	if err != nil {
		return &usageError{fmt.Errorf("--delegation: %w", err)}
	}
	asker, places, unknown, err := findPlaces(ctx, path, names)
	if err != nil {
		return err
	}
	products, _ := newProducts(detectProduct) // which is no product to parse
	delegation, unsure := preflight.Delegate(ctx, asker, zone, places, products)
	warnings := append(unknownTexts(unknown), unknownTexts(unsure)...)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case asJSON:
		return term.JSON(os.Stdout, delegationReport{delegation, warnings})
	}
	printWarnings(warnings)
	_, err = os.Stdout.WriteString(delegation.Text())
	return err
}
