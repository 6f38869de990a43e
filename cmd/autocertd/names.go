package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/dnsname"
	"autocertd/internal/suggest"
)

// selected returns the certificates with the given names; all of them when none is given.
func selected(cfg *config.Config, names []string) ([]config.Certificate, error) {
	if len(names) == 0 {
		return slices.Clone(cfg.Certificates), nil
	}
	var certs []config.Certificate
	for _, name := range names {
		n := slices.IndexFunc(cfg.Certificates, func(c config.Certificate) bool { return c.Name == name })
		if n < 0 {
			return nil, unknownName(cfg, name)
		}
		if !slices.ContainsFunc(certs, func(c config.Certificate) bool { return c.Name == name }) {
			certs = append(certs, cfg.Certificates[n])
		}
	}
	return certs, nil
}

// unknownName returns the error for a name that no certificate has, with the names that may have been meant.
func unknownName(cfg *config.Config, name string) error {
	unknown := fmt.Sprintf("no certificate is called %q", name)
	var names []string
	for _, c := range cfg.Certificates {
		if slices.Contains(c.Hostnames, dnsname.Canonical(name)) {
			return wrong(unknown, "the one with this hostname is "+c.Name)
		}
		names = append(names, c.Name)
	}
	return wrong(unknown, strings.TrimSpace(suggest.DidYouMean(name, names)+" autocertd status lists them"))
}

// completeNames lets shells complete the names of certificates.
func completeNames(opts *options) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cfg, err := config.Load(opts.config, config.Checks{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, c := range cfg.Certificates {
			names = append(names, c.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
