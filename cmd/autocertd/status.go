package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/lifecycle"
	"autocertd/internal/storage"
)

func statusCommand(opts *options) *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status [NAME…]",
		Short: "Show every certificate, the most urgent first",
		Long: "Show every certificate, the most urgent first, with its last error in one line. Names show all that is known of these.\n" +
			"In the column of hostnames, = stands for the name itself. Nobody is asked and nothing changes.",
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
	Mistakes     config.Problems    `json:"mistakes,omitempty"` // in the files on disk; the certificates are those of the files before

	stateDir string
}

func status(ctx context.Context, path string, names []string, asJSON bool) error {
	now := time.Now()
	report, err := findStatus(ctx, path, names, now)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	if len(names) > 0 {
		err = printDetails(report.Certificates, now)
	} else {
		err = printTable(report.Certificates, now)
	}
	printDaemon(newScreen(os.Stderr), report)
	return err
}

// findStatus finds out how all is. When the files have mistakes, it tells of the certificates that the daemon took over
// last, since those are the ones that it works for.
func findStatus(ctx context.Context, path string, names []string, now time.Time) (*statusReport, error) {
	report := &statusReport{}
	cfg := &config.Config{}
	s, badConfig := loadAsDaemon(path, looks)
	switch {
	case badConfig == nil:
		cfg, report.stateDir = s.Config, s.StateDir
	case errors.As(badConfig, &report.Mistakes):
		report.stateDir = config.StateDir(path)
		if _, err := os.Stat(report.stateDir); err != nil {
			return nil, badConfig // no daemon ever ran, so the mistakes are all that there is to tell
		}
	default:
		return nil, badConfig
	}
	if err := mayLook(report.stateDir); err != nil {
		return nil, err
	}
	store := storage.ViewFiles(report.stateDir)
	if badConfig != nil {
		roster, err := loadRoster(ctx, store)
		if err != nil {
			return nil, badConfig
		}
		cfg.Certificates = roster
	}
	certs, err := selected(cfg, names)
	if err != nil {
		return nil, err
	}
	report.Certificates, err = lifecycle.Statuses(ctx, store, certs, now)
	if err != nil {
		return nil, stateDirHint(report.stateDir, err)
	}
	report.Daemon = daemonHealth(ctx, store)
	return report, nil
}

// renewal is when something is tried next: the renewal, the turn of one that is held, or the next try after a failure.
func renewal(c lifecycle.Status) time.Time {
	if c.Condition == lifecycle.OnHold {
		return c.Held.Until
	}
	if c.Issue.Failures > 0 {
		return c.Issue.RetryAt
	}
	return c.RenewAt
}
