package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"autocertd/internal/preflight"
)

const (
	mostAlike = 20 // findings of one kind that stand alone, and subjects of one that are named
	mostNamed = 3  // certificates in the last line
)

// printLive writes what was found, what needs a person last, beside the line that sums it up.
func printLive(report liveReport, certs int) error {
	printProblems(newScreen(os.Stderr), nil, report.Warnings)
	out := newScreen(os.Stdout)
	if err := out.table(os.Stdout, page{out, out.width()}.rows(fold(report.Findings))); err != nil {
		return err
	}
	text, c := summary(report, certs)
	_, err := fmt.Println(out.paint(c, text))
	return err
}

// An entry is a finding as it is shown, for one subject or for several.
type entry struct {
	preflight.Finding
	subjects []string
	more     int // that are alike and not shown
}

// fold puts what is in order first and what fails last, and makes one entry of findings that differ in their subject alone.
// Of others of one kind that aren't in order, mostAlike are shown.
func fold(findings []preflight.Finding) (entries []entry) {
	known := map[preflight.Finding]int{}                    // where entries are, by what they have in common
	shown, last := map[[2]string]int{}, map[[2]string]int{} // of each status and check: how many, and where the last is
	for _, status := range []preflight.Status{preflight.OK, preflight.Warning, preflight.Failure} {
		for _, f := range findings {
			if f.Status != status {
				continue
			}
			same := f
			same.Subject = kindOf(f)
			if i, ok := known[same]; ok {
				entries[i].subjects = append(entries[i].subjects, f.Subject)
				continue
			}
			kind := [2]string{string(f.Status), f.Check}
			if shown[kind]++; status != preflight.OK && shown[kind] > mostAlike {
				entries[last[kind]].more++
				continue
			}
			known[same], last[kind] = len(entries), len(entries)
			entries = append(entries, entry{Finding: f, subjects: []string{f.Subject}})
		}
	}
	return entries
}

// kindOf says in one word what the subject of a finding is.
func kindOf(f preflight.Finding) string {
	kinds := map[string]string{"directory": "CA", "terms": "CA", "clock": "CA", "account": "CA", "profile": "certificate",
		"servers": "zone", "views": "zone", "DNSSEC": "zone", "CAA": "name", "files": "output", "run": "program", "reload": "unit"}
	if kind := kinds[f.Check]; kind != "" {
		return kind
	}
	return "hostname"
}

func (e entry) subject() string {
	if n := len(e.subjects); n > 1 {
		return fmt.Sprintf("%d %s", n, plural(n, kindOf(e.Finding)))
	}
	return e.Subject
}

func statusColour(s preflight.Status) colour {
	return map[preflight.Status]colour{preflight.OK: green, preflight.Warning: yellow, preflight.Failure: red}[s]
}

// summary is the last line.
func summary(report liveReport, certs int) (string, colour) {
	count := func(s preflight.Status) (n int) {
		for _, f := range report.Findings {
			if f.Status == s {
				n++
			}
		}
		return n
	}
	failures, warnings := count(preflight.Failure), count(preflight.Warning)
	var parts []string
	if failures > 0 {
		parts = append(parts, fmt.Sprintf("%d %s", failures, plural(failures, "failure")))
	}
	if warnings > 0 {
		parts = append(parts, fmt.Sprintf("%d %s", warnings, plural(warnings, "warning")))
	}
	if failures == 0 {
		text := fmt.Sprintf("ready: issuing would work for %d %s", certs, plural(certs, "certificate"))
		if warnings > 0 {
			return strings.Join(append([]string{text}, parts...), ", with "), yellow
		}
		return text, green
	}
	what := "deploying"
	if slices.ContainsFunc(report.Findings, func(f preflight.Finding) bool { return f.Status == preflight.Failure && !f.Deploys() }) {
		what = "issuing"
	}
	whom := listed(report.Failing, mostNamed)
	if n := len(report.Failing); n == certs && n > 1 {
		whom = fmt.Sprintf("all %d certificates", n)
	}
	return fmt.Sprintf("%s: %s would fail for %s", strings.Join(parts, ", "), what, whom), red
}
