package main

import (
	"context"
	"fmt"
	"os"
	"slices"
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

// planReport is the output of plan --json.
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

// printPlan writes one row for each certificate, in the order in which they come, and then a summary.
func printPlan(r planReport, scenario *lifecycle.Scenario) error {
	out := term.On(os.Stdout)
	if _, err := r.table().Print(out); err != nil {
		return err
	}
	for _, text := range r.summary() {
		for _, line := range term.Wrap(text, out.Width()) {
			fmt.Println(line)
		}
	}
	if scenario != nil {
		text, c := simulated(r.Simulation, *scenario)
		for _, line := range term.Wrap(text, out.Width()) {
			fmt.Println(out.Paint(c, line))
		}
	}
	return nil
}

// table lays the certificates out. A column for the CA is there when there are several.
func (r planReport) table() term.Table {
	cas := map[string]bool{}
	for _, c := range r.Certificates {
		cas[c.CA] = true
	}
	t := term.Table{Indent: 2, Text: term.ShortTexts("WHY"), Columns: []term.Column{{Head: "NAME", Shrinks: 20},
		{Head: "CA", Hidden: len(cas) < 2}, {Head: "DUE IN"}, {Head: "ORDERED IN"}}}
	for _, c := range r.Certificates {
		t.Rows = append(t.Rows, term.Row{
			Cells: []term.Cell{{Text: c.Name}, {Text: c.CA}, {Text: term.Next(c.Due, r.Now)}, {Text: term.Next(c.At, r.Now)}},
			Text:  whyPlanned(c),
		})
	}
	return t
}

// whyPlanned says why a certificate comes when it comes.
func whyPlanned(c lifecycle.Planned) term.Cell {
	switch {
	case c.Unreadable != "":
		return term.Cell{Text: term.OneLine("can't be looked at: " + c.Unreadable), Colour: term.Red}
	case c.Late():
		return term.Cell{Text: term.OneLine("expires before its turn comes: " + c.Held), Colour: term.Red}
	case c.Held != "":
		return term.Cell{Text: term.OneLine("held: " + c.Held), Colour: term.Yellow}
	case len(c.Last) > 0:
		return term.Cell{Text: term.OneLine(c.Why + "; takes the last: " + strings.Join(c.Last, ", ")), Colour: term.Plain}
	}
	return term.Cell{Text: term.OneLine(c.Why), Colour: term.Plain}
}

// summary sums up the rows.
func (r planReport) summary() (lines []string) {
	if r.Held > 0 {
		lines = append(lines, fmt.Sprintf("%d of %d held until the CA has room", r.Held, len(r.Certificates)))
	}
	switch {
	case len(r.Certificates) == 0:
		lines = append(lines, "no certificate is configured")
	case r.Missing == 0 && slices.ContainsFunc(r.Certificates, func(c lifecycle.Planned) bool { return c.Unreadable != "" }):
		lines = append(lines, "every certificate that can be looked at has been issued once")
	case r.Missing == 0:
		lines = append(lines, "every certificate has been issued once")
	default:
		lines = append(lines, fmt.Sprintf("%d still to be issued for the first time; complete at %s", r.Missing, soonest(r.Complete, r.Now)))
	}
	return lines
}

func soonest(t, now time.Time) string {
	if !t.After(now) {
		return "the next tick"
	}
	return term.Moment(t, now)
}

// simulated says how a scenario ends.
func simulated(s *lifecycle.Simulation, sc lifecycle.Scenario) (string, term.Colour) {
	if s == nil {
		return "no certificate to simulate with: none has been issued yet; add profile=shortlived or lifetime=160h", term.Yellow
	}
	begin := fmt.Sprintf("with an outage of %s from %s to %s, ", term.Span(sc.Outage), clock(s.From), clock(s.To))
	left := s.Expires.Sub(s.Renewed)
	if left >= 0 {
		return begin + fmt.Sprintf("none of %d delayed would expire; %s comes closest: renewed %s before it expires", s.Delayed, s.First, term.Span(left)), term.Green
	}
	return begin + fmt.Sprintf("%d of %d delayed would expire; first %s, at %s, %s before it is renewed", s.Expired, s.Delayed, s.First, clock(s.Expires), term.Span(-left)), term.Red
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") }
