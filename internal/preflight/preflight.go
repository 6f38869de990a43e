// Package preflight does what issuing would do, short of ordering, and says of each thing whether it is in order, why that
// matters and what cures it. It publishes nothing but values that no CA asked for, and leaves to its caller what is read
// from files, who removes what is published when all is over, and how findings are shown.
package preflight

import (
	"context"
	"slices"
	"sync"

	"autocertd/internal/deploy"
	"autocertd/internal/dns01"
)

// Certificate is one certificate that is wanted.
type Certificate struct {
	Name      string
	Hostnames []string
	CAs       []string // tried in turn
	Profile   string   // "" leaves the choice to the CA's
	Outputs   []deploy.Output
}

// Config says what to look at.
type Config struct {
	Certificates []Certificate
	CAs          []CA
	Solver       *dns01.Solver
	Deployer     *deploy.Deployer
	// Unit is the systemd unit that runs the daemon with this configuration, "" where that isn't known: what it is locked
	// out of counts, too.
	Unit string
	// Progress is told what is being done for whom, and with an empty step that it is done. It is called from several
	// goroutines at once. Nil is fine.
	Progress func(subject, step string)
}

// Run looks at the CAs, the DNS side and the outputs, all at the same time as far as one doesn't need the other. What it
// publishes is removed by the solver, at the latest when that is closed. The findings have a fixed order, whatever was
// faster.
func Run(ctx context.Context, cfg Config) []Finding {
	if cfg.Progress == nil {
		cfg.Progress = func(string, string) {}
	}
	var cas, zones, caa, outputs []Finding
	var all sync.WaitGroup
	all.Go(func() { outputs = cfg.checkOutputs(ctx) })
	var known []authority
	all.Go(func() { known, cas = cfg.checkCAs(ctx) })
	var sets map[string]relevant
	all.Go(func() { zones, sets = cfg.checkDNS(ctx) })
	all.Wait()
	caa = cfg.judgeAllCAA(known, sets) // wants the CAs' identities and our accounts
	return slices.Concat(spare(cfg.Certificates, cas), zones, caa, outputs)
}

// Tasks is how many things Progress is told the end of.
func (cfg Config) Tasks() int { return len(cfg.CAs) + cfg.dnsTasks() + 1 }

// LeftBehind is what it means that the solver couldn't remove all that was published.
func LeftBehind(err error) Finding {
	return Finding{
		Subject: "records",
		Check:   "removal",
		Status:  Warning,
		Text:    err.Error(),
		Why:     "values of no use stay in the zone until they are removed; the daemon tries again at every tick",
		Cure:    "autocertd records clean",
	}
}
