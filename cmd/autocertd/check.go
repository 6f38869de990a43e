package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/preflight"
	"autocertd/internal/term"
	"autocertd/issuer"
)

func checkCommand(opts *options) *cobra.Command {
	var asJSON, live bool
	var zone, product string
	command := &cobra.Command{
		Use:   "check [NAME…]",
		Short: "Check the configuration",
		Long: "Check the configuration as the daemon would read it: all files, keys and secrets. Nobody is asked and nothing changes.\n" +
			"With --live everything is tried that issuing needs, short of ordering: the CA, a record in DNS, the outputs.\n" +
			"With --policy or --delegation DNS is asked, and what its servers need is printed, for all certificates or those named." + asRoot,
		Example: `  sudo autocertd check
  sudo autocertd check --live www.corp.example.com
  sudo autocertd check --policy
  sudo autocertd check --delegation acme.example.net`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeNames(opts),
		RunE: func(cmd *cobra.Command, names []string) error {
			delegation, policy := cmd.Flags().Changed("delegation"), cmd.Flags().Changed("policy")
			switch {
			case policy && delegation:
				return wrongUsage(cmd, "--policy and --delegation don't go together")
			case live && (policy || delegation):
				return wrongUsage(cmd, "--live doesn't go together with --policy or --delegation")
			case live:
				return checkLive(cmd.Context(), opts.config, names, asJSON)
			case policy:
				return checkPolicy(cmd.Context(), opts.config, names, product, asJSON)
			case delegation:
				return checkDelegation(cmd.Context(), opts.config, zone, names, asJSON)
			}
			if len(names) > 0 {
				return wrongUsage(cmd, fmt.Sprintf("the whole configuration is checked, so check takes %q only with --live, --policy or --delegation", names[0]))
			}
			return check(opts.config, asJSON)
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "the mistakes and warnings, for programs")
	command.Flags().BoolVar(&live, "live", false, "try all that issuing needs, short of ordering, and clean up")
	command.Flags().StringVar(&product, "policy", "", "print the least that servers must allow, for `SERVER`: bind, knot, powerdns, ad;\nwithout it they are asked what they are")
	command.Flags().Lookup("policy").NoOptDefVal = detectProduct
	command.Flags().StringVar(&zone, "delegation", "", "print the CNAMEs that move all challenges into `ZONE`")
	return command
}

// checkReport is the output of check --json.
type checkReport struct {
	OK       bool            `json:"ok"`
	Files    []string        `json:"files,omitempty"`
	Mistakes config.Problems `json:"mistakes"`
	Warnings config.Problems `json:"warnings"`
}

func check(path string, asJSON bool) error {
	report := checkReport{Mistakes: config.Problems{}, Warnings: config.Problems{}}
	byRoot := os.Geteuid() == 0 // before acting as the daemon's user
	s, err := loadAsDaemon(path, looks)
	var list config.Problems
	switch {
	case err == nil:
		report.OK, report.Files = true, s.Files
		report.Warnings = append(report.Warnings, s.Warnings...)
	case errors.As(err, &list):
		report.Mistakes = withHint(list, path)
	default:
		return err
	}
	if asJSON {
		if err := term.JSON(os.Stdout, report); err != nil {
			return err
		}
	} else {
		printCheck(path, report, s, byRoot)
	}
	if !report.OK {
		return &silentError{exitUsage}
	}
	return nil
}

func printCheck(path string, report checkReport, s *settings, byRoot bool) {
	printProblems(term.On(os.Stderr), report.Mistakes, report.Warnings)
	if !report.OK {
		n := report.Mistakes.Count()
		if report.Mistakes.Unreadable() && !byRoot && ordinary(path) {
			printUnreadable()
			return
		}
		fmt.Fprintf(os.Stderr, "%d %s; the daemon wouldn't take this configuration over\n", n, term.Plural(n, "mistake"))
		return
	}
	fmt.Printf("ok: %d %s, %d %s, %d %s, %d %s\n",
		len(s.Certificates), term.Plural(len(s.Certificates), "certificate"), len(s.CAs), term.Plural(len(s.CAs), "CA"),
		len(s.Providers), term.Plural(len(s.Providers), "provider"), len(s.outputs.List), term.Plural(len(s.outputs.List), "output"))
}

// liveReport is the output of check --live --json. OK is false when something would fail.
type liveReport struct {
	checkReport
	Findings []preflight.Finding `json:"findings"`
	Failing  []string            `json:"failing"` // certificates that would fail
}

// checkLive tries all that issuing needs, short of ordering. A configuration with mistakes is reported as without --live.
func checkLive(ctx context.Context, path string, names []string, asJSON bool) error {
	s, err := openSession(path, "autocertd check", writes)
	if _, mistakes := errors.AsType[config.Problems](err); mistakes {
		return check(path, asJSON)
	}
	if err != nil {
		return err
	}
	certs, err := selected(s.settings.Config, names)
	if err != nil {
		return err
	}
	p, err := s.program(programConfig{logger: slog.New(slog.DiscardHandler)}) // the findings say all
	if err != nil {
		return err
	}
	cfg := p.rehearsal(ctx, certs)
	show := term.NewProgress(term.On(os.Stderr), cfg.Tasks())
	show.Fold = mostTried
	cfg.Progress = func(subject, step string) {
		if step == "" {
			show.Done(subject, "")
		} else {
			show.Step(subject, step)
		}
	}
	findings := preflight.Run(ctx, cfg)
	show.Step("records", "removing what was published")
	err = p.close()
	show.End("")
	switch {
	case ctx.Err() != nil && err != nil:
		return fmt.Errorf("interrupted; nothing was ordered, but: %w", err)
	case ctx.Err() != nil:
		return errors.New("interrupted; nothing was ordered, and what was published is removed")
	case err != nil:
		findings = append(findings, preflight.LeftBehind(err))
	}
	report := liveReport{checkReport: checkReport{Files: s.settings.Files, Mistakes: config.Problems{}, Warnings: config.Problems{}},
		Findings: findings, Failing: slices.Concat([]string{}, preflight.Affected(cfg.Certificates, findings))}
	report.Warnings = append(report.Warnings, s.settings.Warnings...)
	report.OK = !slices.ContainsFunc(findings, func(f preflight.Finding) bool { return f.Status == preflight.Failure })
	if asJSON {
		err = term.JSON(os.Stdout, report)
	} else {
		err = printLive(report, len(certs))
	}
	if err == nil && !report.OK {
		return &silentError{exitFailed}
	}
	return err
}

// rehearsal returns the configuration of a live check of certificates.
func (p *program) rehearsal(ctx context.Context, certs []config.Certificate) preflight.Config {
	b := p.current.Load()
	cfg := preflight.Config{Solver: p.solver, Deployer: deploy.New(deploy.Config{})}
	if abs, err := filepath.Abs(p.session.path); err == nil && abs == defaultConfig {
		cfg.Unit = serviceUnit
	}
	wanted := map[string]bool{}
	for _, c := range certs {
		cfg.Certificates = append(cfg.Certificates, preflight.Certificate{
			Name:      c.Name,
			Hostnames: c.Hostnames,
			CAs:       c.CAs,
			Profile:   c.Profile,
			Outputs:   b.snapshot.Outputs.Of(c.Name),
		})
		for _, name := range c.CAs {
			wanted[name] = true
		}
	}
	for _, ca := range b.settings.CAs {
		if wanted[ca.Name] {
			account, _ := issuer.AccountURL(ctx, p.session.store, ca.Name, ca.Directory) // an error shows up again when the CA is asked
			cfg.CAs = append(cfg.CAs, preflight.CA{
				Issuer:     b.issuers[ca.Name],
				EAB:        ca.EAB != nil,
				Profile:    ca.Profile,
				Private:    len(ca.Roots) > 0,
				Challenges: ca.Challenges,
				Account:    account,
			})
		}
	}
	return cfg
}

// Bounds of a page of findings.
const (
	mostTried = 10 // things that are being tried with a line each; of more, each step has one
	mostAlike = 20 // findings of one kind that stand alone, and subjects of one that are named
	mostNamed = 3  // certificates in the last line
)

// printLive writes the findings and a summary. The findings that a person must act on come last, next to the summary.
func printLive(report liveReport, certs int) error {
	printProblems(term.On(os.Stderr), nil, report.Warnings)
	out := term.On(os.Stdout)
	if _, err := liveTable(report.Findings).Print(out); err != nil {
		return err
	}
	text, c := summary(report, certs)
	_, err := fmt.Println(out.Paint(c, text))
	return err
}

// liveTable lays findings out. Their texts have a column, or lines below where that column would be narrow.
func liveTable(findings []preflight.Finding) term.Table {
	t := term.Table{Indent: 4, Text: term.TextColumn{Head: "FOUND", Least: term.LeastText},
		Columns: []term.Column{{Head: "STATUS"}, {Head: "SUBJECT", Lone: true}, {Head: "CHECK"}}}
	for _, e := range fold(findings) {
		t.Rows = append(t.Rows, term.Row{
			Cells: []term.Cell{{Text: string(e.Status), Colour: statusColour(e.Status)}, {Text: e.subject()}, {Text: e.Check}},
			Text:  term.Cell{Text: e.Text},
			Below: e.details(),
		})
	}
	return t
}

// entry is a finding as the page shows it, for one subject or for several.
type entry struct {
	preflight.Finding
	subjects []string
	more     int // findings of this kind that aren't shown
}

// fold sorts findings from ok to failure, and makes one entry of those that differ in their subject alone. Of other
// warnings and failures of one kind it shows mostAlike.
func fold(findings []preflight.Finding) (entries []entry) {
	known := map[[6]string]int{}                            // the index of an entry, by the finding without its subject
	shown, last := map[[2]string]int{}, map[[2]string]int{} // of each status and check: how many, and where the last is
	for _, status := range []preflight.Status{preflight.OK, preflight.Warning, preflight.Failure} {
		for _, f := range findings {
			if f.Status != status {
				continue
			}
			same := f
			same.Subject = kindOf(f)
			said := same.Said()
			if i, ok := known[said]; ok {
				entries[i].subjects = append(entries[i].subjects, f.Subject)
				continue
			}
			kind := [2]string{string(f.Status), f.Check}
			if shown[kind]++; status != preflight.OK && shown[kind] > mostAlike {
				entries[last[kind]].more++
				continue
			}
			known[said], last[kind] = len(entries), len(entries)
			entries = append(entries, entry{Finding: f, subjects: []string{f.Subject}})
		}
	}
	return entries
}

// kindOf returns the word for the subject of a finding.
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
		return term.Count(n, kindOf(e.Finding))
	}
	return e.Subject
}

func statusColour(s preflight.Status) term.Colour {
	return map[preflight.Status]term.Colour{preflight.OK: term.Green, preflight.Warning: term.Yellow, preflight.Failure: term.Red}[s]
}

// details returns the lines below an entry: its subjects, the reason why it matters, and the cure, to be pasted.
func (e entry) details() (notes []term.Note) {
	if len(e.subjects) > 1 && e.Status != preflight.OK {
		notes = append(notes, term.Note{Label: "for   ", Text: term.Listed(e.subjects, mostAlike, "")})
	}
	if e.Why != "" {
		notes = append(notes, term.Note{Label: "why   ", Text: e.Why})
	}
	if e.Cure != "" {
		notes = append(notes, term.Note{Label: "cure  ", Text: e.Cure, Paste: true})
	}
	if e.more > 0 {
		notes = append(notes, term.Note{Text: fmt.Sprintf("and %d more like this; --json shows all", e.more)})
	}
	return notes
}

// summary returns the last line.
func summary(report liveReport, certs int) (string, term.Colour) {
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
		parts = append(parts, term.Count(failures, "failure"))
	}
	if warnings > 0 {
		parts = append(parts, term.Count(warnings, "warning"))
	}
	if failures == 0 {
		text := "ready: issuing would work for " + term.Count(certs, "certificate")
		if warnings > 0 {
			return strings.Join(append([]string{text}, parts...), ", with "), term.Yellow
		}
		return text, term.Green
	}
	what := "deploying"
	if slices.ContainsFunc(report.Findings, func(f preflight.Finding) bool { return f.Status == preflight.Failure && !f.Deploys() }) {
		what = "issuing"
	}
	whom := term.Listed(report.Failing, mostNamed, "")
	if n := len(report.Failing); n == certs && n > 1 {
		whom = fmt.Sprintf("all %d certificates", n)
	}
	return fmt.Sprintf("%s: %s would fail for %s", strings.Join(parts, ", "), what, whom), term.Red
}
