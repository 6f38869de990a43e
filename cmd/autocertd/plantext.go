package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"autocertd/internal/lifecycle"
	"autocertd/internal/term"
)

// printPlan writes one row for each certificate, in the order in which they come, and then what that amounts to.
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
	t := term.Table{Indent: 2, Text: besideOrBelow("WHY"), Columns: []term.Column{{Head: "NAME", Shrinks: 20},
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

// summary is what the rows amount to.
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
