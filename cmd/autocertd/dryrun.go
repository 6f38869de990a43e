package main

import (
	"fmt"
	"slices"

	"autocertd/internal/config"
)

// rehearsing turns settings into those of a rehearsal: each CA is its staging directory, which has an account of its own.
// CAs without one are left out, and a certificate for which none is left can't be rehearsed.
func rehearsing(s *settings, certs []config.Certificate) error {
	var missing string
	cas := []config.CA{}
	for _, ca := range s.CAs {
		if ca.Staging != "" {
			ca.Directory = ca.Staging
			cas = append(cas, ca)
		}
	}
	for _, c := range certs {
		if !slices.ContainsFunc(cas, func(ca config.CA) bool { return slices.Contains(c.CAs, ca.Name) }) {
			missing = c.CAs[0]
		}
	}
	if missing != "" {
		return &usageError{fmt.Errorf("CA %s has no staging directory to rehearse at; add below [ca.%s]:\nstaging = \"https://…\"", missing, missing)}
	}
	s.CAs = cas
	return nil
}
