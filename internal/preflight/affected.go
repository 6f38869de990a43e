package preflight

import (
	"slices"
	"strings"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/dnsname"
)

// Affected returns the names of the certificates that the failures among the findings would keep from their services.
func Affected(certs []Certificate, findings []Finding) (names []string) {
	hit := map[string]bool{}
	for _, f := range findings {
		if f.Status == Failure {
			for _, name := range dependents(certs, f) {
				hit[name] = true
			}
		}
	}
	for _, c := range certs {
		if hit[c.Name] {
			names = append(names, c.Name)
		}
	}
	return names
}

// zoneChecks are those whose subject is a zone, with all that is in it.
var zoneChecks = []string{"DNSSEC", "servers", "views"}

// dependents returns the certificates that need what a finding is about: those that name its subject, and where that is a
// zone those with a hostname in it; all, where nobody does.
func dependents(certs []Certificate, f Finding) []string {
	subject := dnschallenge.Hostname(f.Subject)
	zone := slices.Contains(zoneChecks, f.Check)
	for _, within := range []bool{zone, true} {
		var list []string
		for _, c := range certs {
			if c.names(subject) || within && c.within(subject) {
				list = append(list, c.Name)
			}
		}
		if len(list) > 0 {
			return list
		}
	}
	all := make([]string, len(certs))
	for i, c := range certs {
		all[i] = c.Name
	}
	return all
}

// names reports whether the certificate itself, or one of its parts, is called so.
func (c Certificate) names(subject string) bool {
	if c.Name == subject || slices.Contains(c.CAs, subject) {
		return true
	}
	for _, h := range c.Hostnames {
		if dnsname.Base(h) == dnsname.Base(subject) {
			return true
		}
	}
	for _, o := range c.Outputs {
		if o.ID(c.Name) == subject || slices.Contains(o.Reload, subject) {
			return true
		}
		for _, args := range o.Run {
			if o.Program(c.Name, args) == subject {
				return true
			}
		}
	}
	return false
}

// within reports whether the certificate has a hostname in the zone.
func (c Certificate) within(zone string) bool {
	return slices.ContainsFunc(c.Hostnames, func(h string) bool { return strings.HasSuffix(h, "."+zone) })
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
