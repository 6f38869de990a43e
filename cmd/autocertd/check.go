package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/term"
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

// checkReport is what check --json prints.
type checkReport struct {
	OK       bool            `json:"ok"`
	Files    []string        `json:"files,omitempty"`
	Mistakes config.Problems `json:"mistakes"`
	Warnings config.Problems `json:"warnings"`
}

func check(path string, asJSON bool) error {
	report := checkReport{Mistakes: config.Problems{}, Warnings: config.Problems{}}
	byRoot := os.Geteuid() == 0 // who is the daemon's user from here on
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

// printUnreadable says to a user who may not read all files that this is no mistake of the configuration.
func printUnreadable() {
	fmt.Fprintf(os.Stderr, "you may not read all of the configuration, so nothing is known of how the daemon finds it; run it as root: %s\n", withSudo())
}

// printProblems writes a line for each mistake and warning, as every command does that meets them.
func printProblems(out term.Screen, mistakes, warnings config.Problems) {
	write := func(list config.Problems, word string, c term.Colour) {
		for _, p := range list {
			lines := p.Lines()
			fmt.Fprintf(out.Out, "%s %s\n", out.Paint(c, word), lines[0])
			for _, line := range lines[1:] {
				fmt.Fprintf(out.Out, "    %s\n", line)
			}
		}
	}
	write(mistakes, "mistake:", term.Red)
	write(warnings, "warning:", term.Yellow)
}

// withHint adds what to do when the configuration file isn't there at all: it may be elsewhere.
func withHint(mistakes config.Problems, path string) config.Problems {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return mistakes
	}
	mistakes = slices.Clone(mistakes)
	for i := range mistakes {
		if mistakes[i].File == path && mistakes[i].Hint == "" {
			mistakes[i].Hint = "name the file by --config or $" + configEnv + ", or write it"
		}
	}
	return mistakes
}
