package preflight

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/dnsname"
	"autocertd/internal/zones"
)

// rehearsals is how many records are rehearsed at a time. Together they leave as one update of their zone.
const rehearsals = 100

// proof is a challenge that CAs must find met. An apex and its wildcard share one.
type proof struct {
	subject string // the first hostname that needs it, as the configuration has it
	base    string // the hostname without a star
	name    string // where the record is looked for

	certificates []string // names of those that need it
}

// proofs returns those of all certificates, each once.
func (cfg Config) proofs() (list []proof) {
	known := map[string]int{} // the index of a proof, by its name
	for _, c := range cfg.Certificates {
		for _, hostname := range c.Hostnames {
			b := dnsname.Base(hostname)
			for _, challenge := range cfg.challenges(c, b) {
				at, ok := known[challenge.Name()]
				if !ok {
					at, known[challenge.Name()] = len(list), len(list)
					list = append(list, proof{subject: hostname, base: b, name: challenge.Name()})
				}
				list[at].certificates = append(list[at].certificates, c.Name)
			}
		}
	}
	return list
}

// challenges returns those by which the CAs of a certificate may have a hostname proved.
func (cfg Config) challenges(c Certificate, hostname string) (list []dnschallenge.Challenge) {
	asked := false
	for _, ca := range cfg.CAs {
		if slices.Contains(c.CAs, ca.Issuer.Name()) {
			possible, _ := dnschallenge.Possible(ca.Challenges, hostname, ca.Account)
			list, asked = append(list, possible...), true
		}
	}
	if !asked {
		list, _ = dnschallenge.Possible(nil, hostname, "")
	}
	return list
}

// theZones is the subject of progress when zones are looked at.
const theZones = "zones"

// dnsTasks is how often checkDNS tells the end of something.
func (cfg Config) dnsTasks() int { return len(cfg.proofs()) + 1 }

// place is a zone as a provider writes to it.
type place struct{ provider, zone string }

// checkDNS publishes a record for every challenge, looks who gets it, and compares how the zones look from inside and from
// outside. It returns the CAA records that it found by hostname, without stars; what is wrong there for a reason that was
// told already is left out.
func (cfg Config) checkDNS(ctx context.Context) (list []Finding, sets map[string]relevant) {
	all := cfg.rehearse(ctx)
	sets = map[string]relevant{}
	zones := map[place][]rehearsal{}
	var places []place
	known := knownZones(all)
	for _, r := range all {
		if r.caa != nil {
			sets[r.base] = *r.caa
		}
		list = append(list, forCertificates(r.certificates, r.findings(known)...)...)
		if at := r.place(); at.zone != "" {
			if zones[at] == nil {
				places = append(places, at)
			}
			zones[at] = append(zones[at], r)
		}
	}
	found := make([][]Finding, len(places))
	cfg.Progress(theZones, "views, DNSSEC")
	defer cfg.Progress(theZones, "")
	var lookAt errgroup.Group
	lookAt.SetLimit(lookups)
	for i, at := range places {
		lookAt.Go(func() error {
			found[i] = forCertificates(certificates(zones[at]), slices.Concat(judgeAliases(at, zones[at]), judgeServers(at, zones[at]),
				judgeViews(at, cfg.Solver.Zones().Views(ctx, at.provider, at.zone), glances(zones[at])))...)
			return nil
		})
	}
	_ = lookAt.Wait() // what fails is a finding
	return slices.Concat(list, slices.Concat(found...), cfg.checkDNSSEC(ctx, all)), sets
}

// certificates returns the names of the certificates that need one of the records.
func certificates(names []rehearsal) (list []string) {
	for _, r := range names {
		list = append(list, r.certificates...)
	}
	return list
}

// knownZones are the zones that names were found in.
func knownZones(all []rehearsal) (zones []string) {
	for _, r := range all {
		if r.Target.Zone != "" && !slices.Contains(zones, r.Target.Zone) {
			zones = append(zones, r.Target.Zone)
		}
	}
	return zones
}

// glances are those of the rehearsal of a zone that has some.
func glances(names []rehearsal) []zones.Glance {
	for _, r := range names {
		if len(r.glances) > 0 {
			return r.glances
		}
	}
	return nil
}

// rehearse rehearses all challenges. Once servers of a zone are late, records that haven't been published yet would only wait
// for the same servers as long again.
func (cfg Config) rehearse(ctx context.Context) []rehearsal {
	names := cfg.proofs()
	all := make([]rehearsal, len(names))
	var late sync.Map    // places
	var glanced sync.Map // places whose record others were asked for
	var anyLate atomic.Bool
	var running errgroup.Group
	running.SetLimit(rehearsals)
	for i, c := range names {
		running.Go(func() error {
			defer cfg.Progress(c.subject, "")
			r := rehearsal{proof: c}
			if anyLate.Load() {
				var err error
				r.Target, err = cfg.Solver.Zones().Locate(ctx, c.name)
				_, isLate := late.Load(r.place())
				r.skipped = err == nil && isLate
			}
			if !r.skipped {
				r.Rehearsal = cfg.Solver.Rehearse(ctx, c.name, func(step string) { cfg.Progress(c.subject, step) })
			}
			if r.Step == "wait" {
				late.Store(r.place(), true)
				anyLate.Store(true)
			}
			if r.Step == "" && !r.skipped {
				if _, done := glanced.LoadOrStore(r.place(), true); !done {
					r.glances = r.Glances(ctx)
				}
			}
			r.caa = cfg.lookUpCAA(ctx, r)
			r.End()
			all[i] = r
			return nil
		})
	}
	_ = running.Wait() // each error is kept in its rehearsal
	return all
}
