package preflight

import "slices"

// Affected returns the names of the certificates that the failures among the findings would keep from their services.
func Affected(certs []Certificate, findings []Finding) (names []string) {
	hit := map[string]bool{}
	for _, f := range findings {
		for _, name := range f.Certificates {
			hit[name] = hit[name] || f.Status == Failure
		}
	}
	for _, c := range certs {
		if hit[c.Name] {
			names = append(names, c.Name)
		}
	}
	return names
}

// spare turns the failures of CAs into warnings where every certificate has another CA, whose turn it is then.
func spare(certs []Certificate, findings []Finding) []Finding {
	failed, needed := map[string]bool{}, map[string]bool{}
	for _, f := range findings {
		failed[f.Subject] = failed[f.Subject] || f.Status == Failure
	}
	for _, c := range certs {
		if !slices.ContainsFunc(c.CAs, func(ca string) bool { return !failed[ca] }) {
			for _, ca := range c.CAs {
				needed[ca] = true
			}
		}
	}
	for i, f := range findings {
		ca := slices.ContainsFunc(certs, func(c Certificate) bool { return slices.Contains(c.CAs, f.Subject) })
		if f.Status == Failure && ca && !needed[f.Subject] {
			findings[i].Status = Warning
			findings[i].Why += "; every certificate has another CA that is tried next"
		}
	}
	return findings
}
