package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/deploy"
	"autocertd/internal/lifecycle"
	"autocertd/internal/store/files"
	"autocertd/scheduler"
)

func statusCommand(opts *options) *cobra.Command {
	var how statusMode
	command := &cobra.Command{
		Use:   "status [NAME…]",
		Short: "Show every certificate, the most urgent first",
		Long: "Show every certificate, the most urgent first, with what happens to it now or its last error. Names show all that is known\n" +
			"of these: where the files are, who is reloaded, errors in full. RENEWS IN is when something is done next: the renewal, the\n" +
			"next try, or the turn of one that is held. In the column of hostnames, = stands for the name itself. Nobody is asked and\n" +
			"nothing changes.\n" +
			"With --exit-code the exit status is for monitoring: 0 fine, 1 something needs a person, 2 something has expired." + asRoot,
		Example: `  sudo autocertd status
  sudo autocertd status www.corp.example.com
  sudo autocertd status --exit-code >/dev/null || echo "look at the certificates"`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeNames(opts),
		RunE: func(cmd *cobra.Command, names []string) error {
			return status(cmd.Context(), opts.config, names, how)
		},
	}
	command.Flags().BoolVar(&how.json, "json", false, "everything that is known, for programs")
	command.Flags().BoolVar(&how.exitCode, "exit-code", false, "end with 1 when something needs a person, with 2 when something has expired")
	return command
}

// statusMode holds the flags of status.
type statusMode struct{ json, exitCode bool }

// statusReport is what status --json prints.
type statusReport struct {
	Daemon       *health             `json:"daemon"` // null when none runs
	Certificates []certificateStatus `json:"certificates"`
	Unconfigured []lifecycle.Kept    `json:"unconfigured,omitempty"`   // on disk, and in no configuration
	Mistakes     config.Problems     `json:"mistakes,omitempty"`       // in the files on disk; the certificates are those of the files before
	NotTakenOver []config.Change     `json:"not_taken_over,omitempty"` // files that changed since the daemon took the configuration over

	// StateError is why the state directory can't be written, from the daemon, or as far as it can be seen from here.
	StateError string `json:"state_error,omitempty"`
	StateCure  string `json:"state_cure,omitempty"`

	stateDir string
}

// certificateStatus is the state of a certificate with its settings. The settings are left out while the configuration has
// mistakes.
type certificateStatus struct {
	lifecycle.Status
	Now       *doing         `json:"now,omitempty"` // what the daemon is doing for it
	CAs       []string       `json:"cas,omitempty"` // tried in turn
	Providers []string       `json:"providers,omitempty"`
	KeyType   string         `json:"key_type,omitempty"` // "" with a CSR
	Outputs   []outputStatus `json:"outputs,omitempty"`
	Absent    []string       `json:"missing,omitempty"` // files that should be there and aren't
}

// outputStatus names the files of one output, and the units and programs that run when they change.
type outputStatus struct {
	Path   string   `json:"path"` // the folder, or the one file
	Format string   `json:"format"`
	Files  []string `json:"files"`
	Owner  string   `json:"owner,omitempty"`
	Group  string   `json:"group,omitempty"`
	Mode   string   `json:"mode"` // of files that hold the key, in octal
	Reload []string `json:"reload,omitempty"`
	Run    []string `json:"run,omitempty"` // the programs; arguments may be secret
}

// Exit statuses of status --exit-code.
const (
	exitPerson  = 1
	exitExpired = 2
)

func status(ctx context.Context, path string, names []string, how statusMode) error {
	now := time.Now()
	report, err := findStatus(ctx, path, names, now)
	switch {
	case err != nil && how.exitCode: // what can't be found out needs a person; 2 would mean expired
		if mistakes, ok := errors.AsType[config.Problems](err); ok {
			printProblems(newScreen(os.Stderr), withHint(mistakes, path), nil)
			return &silentError{exitPerson}
		}
		return cure.New(err.Error(), cure.Of(err))
	case err != nil:
		return err
	case how.json:
		err = printJSON(report)
	case len(names) > 0:
		err = printDetails(report.Certificates, now)
	default:
		err = printTable(report.Certificates, now)
	}
	if !how.json {
		printDaemon(newScreen(os.Stderr), report, now)
	}
	if code := report.exitCode(); err == nil && how.exitCode && code != exitDone {
		return &silentError{code}
	}
	return err
}

// exitCode says for monitoring how all is.
func (r *statusReport) exitCode() int {
	code := exitDone
	if r.Daemon == nil || r.StateError != "" || r.Daemon.ConfigError != "" || len(r.Mistakes) > 0 {
		code = exitPerson
	}
	for _, c := range r.Certificates {
		code = max(code, c.exitCode())
	}
	return code
}

// exitCode says it for one certificate. What happens by itself in time needs nobody.
func (c certificateStatus) exitCode() int {
	switch c.Condition {
	case lifecycle.Expired:
		return exitExpired
	case lifecycle.Valid, lifecycle.Due, lifecycle.Missing, lifecycle.AtWork:
		return exitDone
	case lifecycle.OnHold:
		if c.NotAfter.IsZero() || c.Held.Until.Before(c.NotAfter) {
			return exitDone
		}
	}
	return exitPerson
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
	store := files.View(report.stateDir)
	if badConfig != nil {
		roster, err := loadRoster(ctx, store)
		if err != nil {
			return nil, badConfig
		}
		cfg.Certificates = roster
	}
	if badConfig == nil {
		report.Unconfigured, _ = unconfigured(ctx, store, report.stateDir, cfg) // what can't be read is told of its certificate
	}
	certs, err := selected(cfg, names)
	if err != nil {
		return nil, cmp.Or(report.unconfiguredError(names, now), err)
	}
	return report, report.find(ctx, store, certs, badConfig == nil, cfg, now)
}

// find finds out how certificates are.
func (r *statusReport) find(ctx context.Context, store *files.Store, certs []config.Certificate, configured bool, cfg *config.Config, now time.Time) error {
	list, err := lifecycle.Statuses(ctx, store, certs, now)
	if err != nil {
		return stateDirHint(r.stateDir, err)
	}
	var doings map[string]doing
	if r.Daemon = daemonHealth(ctx, store); r.Daemon != nil {
		doings, r.StateError, r.StateCure = loadDoings(ctx, store), r.Daemon.StateError, r.Daemon.StateCure
		if r.StateError == "" { // else the daemon couldn't note what it took over
			r.NotTakenOver = notTakenOver(ctx, store)
		}
	}
	if err := diskOf(r.stateDir); err != nil && r.StateError == "" {
		r.StateError, r.StateCure = err.Error(), cure.Of(err)
	}
	r.Certificates = make([]certificateStatus, len(list))
	for i, c := range list {
		r.Certificates[i] = certificateStatus{Status: c}
		if now, ok := doings[c.Name]; ok {
			r.Certificates[i].Now = &now
		}
	}
	if configured {
		r.addConfigured(cfg)
	}
	return nil
}

// unconfiguredError says what a name is that was configured once; nil when it is none of those.
func (r *statusReport) unconfiguredError(names []string, now time.Time) error {
	for _, k := range r.Unconfigured {
		if slices.Contains(names, k.Name) {
			return &usageError{fmt.Errorf("%s is no longer configured, but on disk; to remove it: autocertd forget %s", describeKept([]lifecycle.Kept{k}, now), k.Name)}
		}
	}
	return nil
}

// addConfigured adds to each certificate what the configuration says of it.
func (r *statusReport) addConfigured(cfg *config.Config) {
	snapshot := lifecycle.NewSnapshot(cfg, nil, scheduler.Window{})
	for i := range r.Certificates {
		c := &r.Certificates[i]
		wish := snapshot.Certificates[c.Name]
		c.CAs, c.KeyType, c.Providers = wish.CAs, wish.KeyType, servedBy(cfg.Providers, wish.Hostnames)
		for _, o := range snapshot.OutputsOf(c.Name) {
			c.Outputs = append(c.Outputs, outputOf(o, c.Name, wish.CSR != nil))
		}
		c.lookForFiles()
	}
	slices.SortStableFunc(r.Certificates, func(a, b certificateStatus) int { return cmp.Compare(a.calm(), b.calm()) })
}

// calm is 1 for a certificate that needs nobody, and 0 for others, which come first.
func (c certificateStatus) calm() int {
	if c.Condition == lifecycle.Valid || c.Condition == lifecycle.Due {
		return 1
	}
	return 0
}

// lookForFiles notes which files of a certificate that is in order are missing. The daemon looks once an hour and writes them.
func (c *certificateStatus) lookForFiles() {
	if c.calm() == 0 || c.Now != nil {
		return
	}
	for _, o := range c.Outputs {
		for _, file := range o.Files {
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
				c.Absent = append(c.Absent, file)
			}
		}
	}
	if len(c.Absent) > 0 {
		c.Condition = lifecycle.NotDeployed
	}
}

// absentText says which files are missing, and how to have them at once.
func (c certificateStatus) absentText() string {
	text := c.Absent[0]
	if more := len(c.Absent) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("missing: %s; to write them: sudo autocertd renew %s", text, c.Name)
}

// outputOf says what an output makes of the certificate of that name, which has no key of ours when it is from a CSR.
func outputOf(o deploy.Output, name string, csr bool) outputStatus {
	s := outputStatus{Path: o.ID(name), Format: cmp.Or(o.Format, deploy.FormatPEM), Owner: o.Owner, Group: o.Group,
		Mode: fmt.Sprintf("%04o", cmp.Or(o.Mode, 0o600)), Reload: o.Reload}
	s.Files = []string{s.Path}
	if s.Format == deploy.FormatPEM {
		s.Files = nil
		for _, file := range []string{"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"} {
			if file != "privkey.pem" || !csr {
				s.Files = append(s.Files, filepath.Join(s.Path, file))
			}
		}
	}
	for _, args := range o.Run {
		s.Run = append(s.Run, o.Program(name, args))
	}
	return s
}

// servedBy returns the providers that write the records of hostnames, as far as the configuration says: a CNAME at a
// challenge's name may lead to the zone of another.
func servedBy(providers []*config.Provider, hostnames []string) (names []string) {
	for _, hostname := range hostnames {
		best, longest := "", -1
		for _, p := range providers {
			if len(p.Zones) == 0 && longest < 0 {
				best, longest = p.Name, 0
			}
			for _, zone := range p.Zones {
				if len(zone) > longest && strings.HasSuffix("."+hostname, "."+zone) {
					best, longest = p.Name, len(zone)
				}
			}
		}
		if best != "" && !slices.Contains(names, best) {
			names = append(names, best)
		}
	}
	return names
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
