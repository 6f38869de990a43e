package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"autocertd/internal/lifecycle"
)

// printPlan writes one row for each certificate, in the order in which they come, and then what that amounts to.
func printPlan(r planReport, scenario *lifecycle.Scenario) error {
	out := newScreen(os.Stdout)
	if err := out.table(os.Stdout, r.rows(out.width())); err != nil {
		return err
	}
	for _, text := range r.summary() {
		for _, line := range wrap(text, out.width()) {
			fmt.Println(line)
		}
	}
	if scenario != nil {
		text, c := simulated(r.Simulation, *scenario)
		for _, line := range wrap(text, out.width()) {
			fmt.Println(out.paint(c, line))
		}
	}
	return nil
}

// rows lays the table out. A column for the CA is there when there are several.
func (r planReport) rows(width int) [][]cell {
	rows := [][]cell{{{"NAME", dim}, {"CA", dim}, {"DUE IN", dim}, {"ORDERED IN", dim}}}
	cas := map[string]bool{}
	var why []cell
	for _, c := range r.Certificates {
		rows = append(rows, []cell{{c.Name, plain}, {c.CA, plain}, {next(c.Due, r.Now), plain}, {next(c.At, r.Now), plain}})
		why = append(why, whyPlanned(c))
		cas[c.CA] = true
	}
	if len(cas) < 2 {
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 1, 2)
		}
	}
	rows, _ = withTexts(rows, "WHY", why, width)
	return rows
}

// whyPlanned says why a certificate comes when it comes.
func whyPlanned(c lifecycle.Planned) cell {
	switch {
	case c.Unreadable != "":
		return cell{"can't be looked at: " + c.Unreadable, red}
	case c.Late():
		return cell{"expires before its turn comes: " + c.Held, red}
	case c.Held != "":
		return cell{"held: " + c.Held, yellow}
	case len(c.Last) > 0:
		return cell{c.Why + "; takes the last: " + strings.Join(c.Last, ", "), plain}
	}
	return cell{c.Why, plain}
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
	return moment(t, now)
}

// simulated says how a scenario ends.
func simulated(s *lifecycle.Simulation, sc lifecycle.Scenario) (string, colour) {
	if s == nil {
		return "no certificate to simulate with: none has been issued yet; add profile=shortlived or lifetime=160h", yellow
	}
	begin := fmt.Sprintf("with an outage of %s from %s to %s, ", span(sc.Outage), clock(s.From), clock(s.To))
	left := s.Expires.Sub(s.Renewed)
	if left >= 0 {
		return begin + fmt.Sprintf("none of %d delayed would expire; %s comes closest: renewed %s before it expires", s.Delayed, s.First, span(left)), green
	}
	return begin + fmt.Sprintf("%d of %d delayed would expire; first %s, at %s, %s before it is renewed", s.Expired, s.Delayed, s.First, clock(s.Expires), span(-left)), red
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") }
