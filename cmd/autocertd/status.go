package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"autocertd/internal/lifecycle"
	"autocertd/internal/storage"
)

func statusCommand(opts *options) *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:               "status [NAME…]",
		Short:             "Show every certificate, the most urgent first",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeNames(opts),
		RunE: func(cmd *cobra.Command, names []string) error {
			return status(cmd.Context(), opts.config, names, asJSON)
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "everything that is known, for programs")
	return command
}

// statusReport is what status --json prints.
type statusReport struct {
	Daemon       *health            `json:"daemon"` // null when none runs
	Certificates []lifecycle.Status `json:"certificates"`
}

func status(ctx context.Context, path string, names []string, asJSON bool) error {
	s, err := load(path)
	if err != nil {
		return err
	}
	certs, err := selected(s.Config, names)
	if err != nil {
		return err
	}
	if err := becomeOwner(s.StateDir); err != nil {
		return err
	}
	store, err := storage.OpenFiles(s.StateDir, "autocertd status")
	if err != nil {
		return stateDirHint(s.StateDir, err)
	}
	now := time.Now()
	list, err := lifecycle.Statuses(ctx, store, certs, now)
	if err != nil {
		return stateDirHint(s.StateDir, err)
	}
	report := statusReport{Daemon: daemonHealth(ctx, store), Certificates: list}
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(&report)
	}
	return printStatus(report, now, len(names) > 0)
}

func printStatus(report statusReport, now time.Time, details bool) error {
	out := newScreen(os.Stdout)
	width, _ := out.size()
	if !out.terminal {
		width = 1 << 10
	}
	rows := [][]cell{{{"NAME", dim}, {"HOSTNAMES", dim}, {"EXPIRES IN", dim}, {"RENEWS IN", dim}, {"STATE", dim}, {"LAST ERROR", dim}}}
	for _, c := range report.Certificates {
		rows = append(rows, []cell{
			{c.Name, plain}, {short(hostnames(c), 40), plain}, {until(c.NotAfter, now), plain}, {renewal(c, now), plain},
			{string(c.Condition), stateColour(c.Condition)}, {short(c.LastError(), max(width/2, 40)), plain},
		})
	}
	if len(report.Certificates) == 0 {
		fmt.Println("no certificate is configured: add hostnames = [\"host.corp.example.com\"] to the configuration")
	} else if err := out.table(os.Stdout, rows); err != nil {
		return err
	}
	if details {
		printTroubles(report.Certificates, now)
	}
	switch {
	case report.Daemon == nil:
		fmt.Fprintln(os.Stderr, "the daemon isn't running on this state directory")
	case report.Daemon.ConfigError != "":
		fmt.Fprintf(os.Stderr, "the daemon runs with an earlier configuration; since %s the files have mistakes:\n%s\n",
			report.Daemon.ConfigErrorAt.Local().Format(time.DateTime), report.Daemon.ConfigError)
	}
	return nil
}

// printTroubles says in full what the table cuts short.
func printTroubles(list []lifecycle.Status, now time.Time) {
	for _, c := range list {
		for _, t := range []struct {
			what string
			lifecycle.Trouble
		}{{"not issued", c.Issue}, {"not deployed", c.Deploy}} {
			if t.Failures > 0 {
				fmt.Printf("\n%s: %s, %d times in a row, last at %s, next try in %s:\n  %s\n", c.Name, t.what, t.Failures,
					t.At.Local().Format(time.DateTime), until(t.RetryAt, now), t.Error)
			}
		}
		for _, p := range c.Pending {
			fmt.Printf("%s: still to do: %s\n", c.Name, p)
		}
	}
}

func hostnames(c lifecycle.Status) string {
	if len(c.Hostnames) == 1 && c.Hostnames[0] == c.Name {
		return "="
	}
	text := ""
	for i, h := range c.Hostnames {
		if i > 0 {
			text += ","
		}
		text += h
	}
	return text
}

func until(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(t.Sub(now))
}

// renewal is when something is tried next: the renewal, or the next try after a failure.
func renewal(c lifecycle.Status, now time.Time) string {
	at := c.RenewAt
	if c.Issue.Failures > 0 {
		at = c.Issue.RetryAt
	}
	if !at.IsZero() && at.Before(now) {
		return "now"
	}
	return until(at, now)
}

func stateColour(c lifecycle.Condition) colour {
	switch {
	case c == lifecycle.Valid:
		return green
	case slices.Contains([]lifecycle.Condition{lifecycle.Expired, lifecycle.Failing, lifecycle.NotDeployed}, c):
		return red
	}
	return yellow
}
