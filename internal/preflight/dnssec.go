package preflight

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/zones"
)

// probe is a question about signatures.
type probe struct {
	subject string
	name    string // asked for; an alias stands for all zones on its way
	zone    bool   // name is the apex of a zone

	certificates []string // names of those that need the answer
}

// checkDNSSEC asks the configured resolvers about every zone that is written to, and about the zones that aliases begin in.
func (cfg Config) checkDNSSEC(ctx context.Context, all []rehearsal) []Finding {
	probes := probesFor(all)
	found := make([][]Finding, len(probes))
	var running errgroup.Group
	running.SetLimit(lookups)
	for i, p := range probes {
		running.Go(func() error {
			found[i] = forCertificates(p.certificates, judgeDNSSEC(p, cfg.Solver.Zones().Validation(ctx, p.name))...)
			return nil
		})
	}
	_ = running.Wait() // what fails is a finding
	return slices.Concat(found...)
}

// probesFor are the questions that cover all names. Hosts beside each other are in one zone as a rule, so one alias is asked
// for among those of hosts with the same parent.
func probesFor(all []rehearsal) (probes []probe) {
	known := map[string]int{} // the index of a question
	ask := func(key string, p probe, r rehearsal) {
		at, ok := known[key]
		if !ok {
			at, known[key] = len(probes), len(probes)
			probes = append(probes, p)
		}
		probes[at].certificates = append(probes[at].certificates, r.certificates...)
	}
	for _, r := range all {
		zone := r.Target.Zone
		if zone == "" {
			continue // it has no place to be looked for
		}
		ask(zone, probe{subject: zone, name: zone, zone: true}, r)
		if _, parent, _ := strings.Cut(r.base, "."); len(r.Target.Chain) > 1 {
			ask(parent+" -> "+zone, probe{subject: r.subject, name: r.name}, r)
		}
	}
	return probes
}

// judgeDNSSEC says what the resolvers' verdicts mean for issuing.
func judgeDNSSEC(p probe, verdicts []zones.Verdict) (list []Finding) {
	by := map[zones.Validity][]string{}
	for _, v := range verdicts {
		f := Finding{Subject: p.subject, Check: "DNSSEC"}
		reasons := strings.Join(v.Reasons, "; ")
		switch {
		case v.Validity == zones.Bogus:
			f.Status, f.Text = Failure, fmt.Sprintf("resolver %s finds the signatures of %s bogus", v.Resolver, v.Zone)
			if reasons != "" {
				f.Text += ": " + reasons
			}
			f.Why, f.Cure = "every CA validates DNSSEC, and gets no answer from a bogus zone", cureBogus(v)
			list = append(list, f)
		case v.Validity == zones.Unanswered:
			f.Status, f.Text = Warning, fmt.Sprintf("resolver %s has no answer: %s", v.Resolver, reasons)
			f.Why, f.Cure = "a CA may get none either", "see for yourself:\ndig "+at(v.Resolver)+" SOA "+p.name
			list = append(list, f)
		case v.Validity == zones.NotValidating && v.Signed:
			f.Status, f.Text = Warning, fmt.Sprintf("signed, but resolver %s doesn't look at signatures", v.Resolver)
			f.Why = "every CA validates DNSSEC, so wrong signatures would be found by the first order"
			f.Cure = addResolvers
			list = append(list, f)
		case p.zone && v.Zone != p.subject: // the zone isn't there, which the views tell
		default:
			by[v.Validity] = append(by[v.Validity], v.Resolver)
		}
	}
	for _, validity := range []zones.Validity{zones.Secure, zones.Insecure, zones.NotValidating} {
		if who := strings.Join(by[validity], ", "); who != "" {
			list = append(list, Finding{Subject: p.subject, Check: "DNSSEC", Status: OK, Text: fmt.Sprintf(wellText(validity), who)})
		}
	}
	return list
}

func wellText(validity zones.Validity) string {
	switch validity {
	case zones.Secure:
		return "signed, and validated by %s"
	case zones.Insecure:
		return "not signed, says %s"
	}
	return "not signed; %s doesn't validate"
}

// cureBogus returns the line that shows which signature is wrong, and the one that shows what the primary makes of its keys.
func cureBogus(v zones.Verdict) string {
	return fmt.Sprintf("see which signature, key or DS record is wrong; then, on the primary, what its keys are:\n"+
		"delv %s +rtrace +vtrace SOA %s\nrndc dnssec -status %s", at(v.Resolver), v.Zone, v.Zone)
}

// at names a resolver as dig and delv want it.
func at(resolver string) string {
	host, port, err := net.SplitHostPort(resolver)
	if err != nil || port == "53" {
		return "@" + cmp.Or(host, resolver)
	}
	return "@" + host + " -p " + port
}
