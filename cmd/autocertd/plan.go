package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"autocertd/internal/knownca"
	"autocertd/internal/lifecycle"
	"autocertd/internal/term"
	"autocertd/issuer"
)

func planCommand(opts *options) *cobra.Command {
	var asJSON bool
	var simulate string
	command := &cobra.Command{
		Use:   "plan",
		Short: "Show what is due when, against the CA's limits",
		Long: "Show what is due when, what is held until the CA has room for it and why, and when the first roll-out is complete.\n" +
			"With --simulate: if nothing could be issued for a while, which certificate would expire first? Nobody is asked and\n" +
			"nothing changes.",
		Example: "  autocertd plan --simulate profile=shortlived,outage=48h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			scenario, err := parseScenario(simulate, time.Now())
			if err != nil {
				return wrongUsage(cmd, err.Error())
			}
			return plan(cmd.Context(), opts.config, scenario, asJSON)
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "everything, for programs")
	command.Flags().StringVar(&simulate, "simulate", "", "`WHAT`: outage=48h, with profile=shortlived or lifetime=160h for all certificates")
	return command
}

// planReport is what plan --json prints.
type planReport struct {
	Now          time.Time             `json:"now"`
	Complete     time.Time             `json:"complete,omitzero"` // when every certificate is there for the first time
	Missing      int                   `json:"missing"`           // certificates that aren't there yet
	Held         int                   `json:"held"`
	Certificates []lifecycle.Planned   `json:"certificates"`
	Simulation   *lifecycle.Simulation `json:"simulation,omitempty"`
}

func plan(ctx context.Context, path string, scenario *lifecycle.Scenario, asJSON bool) error {
	session, err := openSession(path, "autocertd plan", looks)
	if err != nil {
		return err
	}
	s := session.settings
	issuers := map[string]*issuer.Issuer{}
	for _, ca := range s.CAs {
		if issuers[ca.Name], err = issuer.New(issuerConfig(ca)); err != nil {
			return err
		}
	}
	report := planReport{Now: time.Now().UTC().Truncate(time.Second)}
	snapshot := lifecycle.NewSnapshot(s.Config, s.outputs, issuers, s.window)
	snapshot.Schedule = s.schedule
	report.Certificates, report.Simulation, err = lifecycle.Plan(ctx, session.store, snapshot, scenario, report.Now)
	if err != nil {
		return session.hint(err)
	}
	report.count()
	if asJSON {
		return term.JSON(os.Stdout, report)
	}
	return printPlan(report, scenario)
}

// count sums the certificates up.
func (r *planReport) count() {
	for _, c := range r.Certificates {
		if c.First {
			r.Missing++
			r.Complete = c.At // the last one in the end, since they come in this order
		}
		if c.Held != "" {
			r.Held++
		}
	}
}

// parseScenario reads KEY=VALUE,KEY=VALUE; nil for nothing.
func parseScenario(text string, now time.Time) (*lifecycle.Scenario, error) {
	if text == "" {
		return nil, nil
	}
	sc := &lifecycle.Scenario{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		var err error
		switch key {
		case "outage":
			sc.Outage, err = positive(value)
		case "lifetime":
			sc.Lifetime, err = positive(value)
		case "profile":
			if sc.Lifetime = knownca.At(knownca.Directory(knownca.LetsEncrypt)).Profile(value).Lifetime(now); sc.Lifetime == 0 || value == "" {
				err = fmt.Errorf("the lifetime of profile %q isn't known; write lifetime=160h", value)
			}
		default:
			err = fmt.Errorf("--simulate knows outage=48h, profile=shortlived and lifetime=160h, not %q", part)
		}
		if err != nil {
			return nil, err
		}
	}
	if sc.Outage == 0 {
		return nil, fmt.Errorf("--simulate %s has no outage, as in outage=48h", text)
	}
	return sc, nil
}

func positive(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d <= 0 || err != nil {
		return 0, fmt.Errorf("%q is no duration such as 48h", text)
	}
	return d, nil
}
