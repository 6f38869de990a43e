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
	"autocertd/internal/state"
	"autocertd/internal/term"
	"autocertd/internal/zones"
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
	Daemon       *state.Daemon       `json:"daemon"` // null when none runs
	Certificates []certificateStatus `json:"certificates"`
	Unconfigured []state.Kept        `json:"unconfigured,omitempty"`   // on disk, and in no configuration
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
	Now       *state.Doing   `json:"now,omitempty"` // what the daemon is doing for it
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
			printProblems(term.On(os.Stderr), withHint(mistakes, path), nil)
			return &silentError{exitPerson}
		}
		return cure.New(err.Error(), cure.Of(err))
	case err != nil:
		return err
	case how.json:
		err = term.JSON(os.Stdout, report)
	case len(names) > 0:
		err = printDetails(report.Certificates, now)
	default:
		err = printTable(report.Certificates, now)
	}
	if !how.json {
		printDaemon(term.On(os.Stderr), report, now)
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
	var err error
	s, badConfig := openSession(path, "autocertd status", looks)
	switch {
	case badConfig == nil:
		cfg = s.settings.Config
	case errors.As(badConfig, &report.Mistakes):
		if s = viewSession(path); s == nil {
			return nil, badConfig // no daemon ever ran, so the mistakes are all that there is to tell
		}
	default:
		return nil, badConfig
	}
	report.stateDir = s.stateDir
	if badConfig == nil {
		report.Unconfigured, _ = unconfigured(ctx, s.store, s.stateDir, cfg) // what can't be read is said of its certificate
	} else if cfg.Certificates, err = worksFor(ctx, s.store); err != nil {
		return nil, badConfig
	}
	certs, err := selected(cfg, names)
	if err != nil {
		return nil, cmp.Or(report.unconfiguredError(names, now), err)
	}
	return report, report.find(ctx, s, certs, now)
}

// find finds out how certificates are. The session has no settings when the configuration has mistakes.
func (r *statusReport) find(ctx context.Context, s *session, certs []config.Certificate, now time.Time) error {
	list, err := lifecycle.Statuses(ctx, s.store, state.LocalNode, certs, now)
	if err != nil {
		return s.hint(err)
	}
	var doings map[string]state.Doing
	if r.Daemon = state.RunningDaemon(ctx, s.store); r.Daemon != nil {
		doings, r.StateError, r.StateCure = state.LoadDoings(ctx, s.store), r.Daemon.StateError, r.Daemon.StateCure
		if r.StateError == "" { // else the daemon couldn't note what it took over
			r.NotTakenOver = notTakenOver(ctx, s.store)
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
	if s.settings != nil {
		r.addConfigured(s.settings)
	}
	return nil
}

// unconfiguredError says what a name is that was configured once; nil when it is none of those.
func (r *statusReport) unconfiguredError(names []string, now time.Time) error {
	for _, k := range r.Unconfigured {
		if slices.Contains(names, k.Name) {
			return wrong(describeKept([]state.Kept{k}, now)+" is no longer configured, but on disk", "to remove it: autocertd forget "+k.Name)
		}
	}
	return nil
}

// addConfigured adds to each certificate what the configuration says of it.
func (r *statusReport) addConfigured(s *settings) {
	snapshot := lifecycle.NewSnapshot(s.Config, s.outputs, nil, scheduler.Window{})
	for i := range r.Certificates {
		c := &r.Certificates[i]
		wish := snapshot.Certificates[c.Name]
		c.CAs, c.KeyType, c.Providers = wish.CAs, wish.KeyType, servedBy(s.Providers, wish.Hostnames)
		for _, o := range snapshot.Outputs.Of(c.Name) {
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

// lookForFiles notes which files of a certificate that is in order are missing. The daemon writes them within a minute.
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
	return fmt.Sprintf("missing: %s; to write them: sudo autocertd renew %s", term.Listed(c.Absent, 1, ""), c.Name)
}

// outputOf says what an output makes of the certificate of that name, which has no key of ours when it is from a CSR.
func outputOf(o deploy.Output, name string, csr bool) outputStatus {
	s := outputStatus{
		Path:   o.ID(name),
		Format: cmp.Or(o.Format, deploy.FormatPEM),
		Owner:  o.Owner,
		Group:  o.Group,
		Mode:   fmt.Sprintf("%04o", cmp.Or(o.Mode, 0o600)),
		Reload: o.Reload,
	}
	s.Files = o.Files(name, csr)
	for _, args := range o.Run {
		s.Run = append(s.Run, o.Program(name, args))
	}
	return s
}

// servedBy returns the providers that write the records of hostnames, as far as the configuration says: a CNAME at a
// challenge's name may lead to the zone of another.
func servedBy(providers []*config.Provider, hostnames []string) (names []string) {
	list := make([]zones.Provider, len(providers))
	for i, p := range providers {
		list[i] = zones.Provider{Name: p.Name, Zones: p.Zones}
	}
	for _, hostname := range hostnames {
		if p, _, ok := zones.Serving(list, hostname); ok && !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
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

// printTable writes one row for each certificate. Elsewhere than on a terminal every certificate is one line, for grep and
// friends.
func printTable(list []certificateStatus, now time.Time) error {
	out := term.On(os.Stdout)
	cut, err := statusTable(list, now).Print(out)
	if err == nil && cut {
		fmt.Println(out.Paint(term.Dim, "in full: autocertd status NAME"))
	}
	return err
}

// statusTable lays the certificates out. A column for hostnames is there when one differs from the name of its certificate.
func statusTable(list []certificateStatus, now time.Time) term.Table {
	named := !slices.ContainsFunc(list, func(c certificateStatus) bool { return !c.namesItself() })
	t := term.Table{Indent: 2, Text: term.ShortTexts("DETAILS"), Columns: []term.Column{{Head: "NAME", Shrinks: 20},
		{Head: "HOSTNAMES", Hidden: named, Least: len("HOSTNAMES"), Most: 40}, {Head: "EXPIRES IN"}, {Head: "RENEWS IN"}, {Head: "STATE"}}}
	for _, c := range list {
		word, colour := c.word()
		t.Rows = append(t.Rows, term.Row{
			Cells: []term.Cell{{Text: c.Name}, {Fit: func(room int) string { return hostnames(c.Status, room) }},
				{Text: term.Until(c.NotAfter, now)}, {Text: term.Next(renewal(c.Status), now)}, {Text: word, Colour: colour}},
			Text: term.Cell{Text: term.OneLine(c.detail(now))},
		})
	}
	return t
}

// detail returns the text beside the times of a certificate: the step that it is in, else its last error.
func (c certificateStatus) detail(now time.Time) string {
	switch {
	case c.Now != nil:
		return doingText(c.Now, now)
	case len(c.Absent) > 0:
		return c.absentText()
	}
	return term.WithCure(c.LastError(), c.LastCure())
}

// doingText says a step and since when it is waited for what comes next.
func doingText(d *state.Doing, now time.Time) string {
	return fmt.Sprintf("%s, since %s", d.Step, term.Span(max(now.Sub(d.Since), 0)))
}

// word is the state of a certificate, in a table.
func (c certificateStatus) word() (string, term.Colour) {
	if c.Now != nil && c.Condition != lifecycle.Expired {
		return "in progress", term.Yellow
	}
	return string(c.Condition), stateColour(c.Condition)
}

// namesItself reports whether the hostnames say no more than the name.
func (c certificateStatus) namesItself() bool {
	return len(c.Hostnames) == 1 && c.Hostnames[0] == c.Name
}

// printDetails writes all that a person may want to know about each certificate.
func printDetails(list []certificateStatus, now time.Time) error {
	for i, c := range list {
		if i > 0 {
			fmt.Println()
		}
		if _, err := c.details(now).Print(term.On(os.Stdout)); err != nil {
			return err
		}
	}
	return nil
}

// details returns the lines of status NAME, each with its key.
func (c certificateStatus) details(now time.Time) term.Table {
	var rows [][2]term.Cell
	paint := func(key, text string, colour term.Colour) {
		rows = append(rows, [2]term.Cell{{Text: key, Colour: term.Dim}, {Text: text, Colour: colour}})
	}
	add := func(key, text string) { paint(key, text, term.Plain) }
	add("name", c.Name)
	add("hostnames", strings.Join(c.Hostnames, ", "))
	paint("state", string(c.Condition), stateColour(c.Condition))
	if c.Now != nil {
		add("now", doingText(c.Now, now))
	}
	if !c.NotAfter.IsZero() {
		add("issued by", fmt.Sprintf("%s (%s), serial %s", c.Leaf.CA, c.Leaf.Issuer, c.Leaf.Serial))
		add("expires", term.Moment(c.NotAfter, now))
	}
	if r := c.Leaf.Revoked; !r.At.IsZero() {
		add("revoked", term.Moment(r.At, now)+": "+cmp.Or(r.Reason, "found out then"))
	}
	if !c.RenewAt.IsZero() {
		add("renews", term.Moment(c.RenewAt, now)+": "+c.RenewWhy)
	}
	for _, line := range c.ByHand {
		add("add to zone", line)
	}
	if !c.Held.Until.IsZero() {
		add("held until", term.Moment(c.Held.Until, now)+": "+c.Held.Reason)
	}
	if c.Unreadable != "" {
		add("unreadable", c.Unreadable)
	}
	if c.Working.CA != "" {
		add("waits for CA", c.Working.CA+": "+c.Working.What)
	}
	if c.Held.Until.IsZero() { // else what comes next is that there is room
		addTrouble(add, "not issued", c.Issue, now)
	}
	addTrouble(add, "not deployed", c.Deploy, now)
	if len(c.Absent) > 0 {
		add("not deployed", c.absentText())
	}
	for _, p := range c.Pending {
		add("still to do", p)
	}
	if len(c.CAs) > 0 {
		add("CA", strings.Join(c.CAs, ", then "))
		add("provider", cmp.Or(strings.Join(c.Providers, ", "), "none names a zone of these hostnames"))
		add("key type", cmp.Or(c.KeyType, "that of the CSR"))
	}
	for _, o := range c.Outputs {
		add("files", o.text())
		for _, unit := range o.Reload {
			add("reloads", unit)
		}
		for _, program := range o.Run {
			add("runs", program)
		}
	}
	return term.Pairs(rows)
}

// text says where the files of an output are and who may read the key.
func (o outputStatus) text() string {
	text := o.Path
	if len(o.Files) > 1 {
		names := make([]string, len(o.Files))
		for i, file := range o.Files {
			names[i] = filepath.Base(file)
		}
		text += "/: " + strings.Join(names, ", ")
	}
	text += "; key: mode " + o.Mode
	if o.Owner != "" {
		text += ", owner " + o.Owner
	}
	if o.Group != "" {
		text += ", group " + o.Group
	}
	return text
}

// addTrouble says in full what the table cuts short.
func addTrouble(add func(key, text string), what string, t state.Trouble, now time.Time) {
	if t.Failures == 0 {
		return
	}
	add(what, fmt.Sprintf("tried %s, last %s", term.Times(t.Failures), term.Moment(t.At, now)))
	add("next try", term.Moment(t.RetryAt, now))
	add("last error", t.Error)
	if t.Cure != "" {
		add("cure", t.Cure)
	}
}

// printDaemon says whether a daemon looks after all this, with which configuration, and what none looks after.
func printDaemon(out term.Screen, r *statusReport, now time.Time) {
	if n := min(len(r.Unconfigured), mostUnconfigured); n > 0 {
		names := make([]string, n)
		for i, k := range r.Unconfigured[:n] {
			names[i] = k.Name
		}
		more := ""
		if rest := len(r.Unconfigured) - n; rest > 0 {
			more = fmt.Sprintf(" and %d more", rest)
		}
		out.Tell(term.Plain, "", "no longer configured, but on disk: %s%s; to remove: autocertd forget %s",
			describeKept(r.Unconfigured[:n], now), more, strings.Join(names, " "))
	}
	if r.Daemon == nil {
		out.Tell(term.Yellow, "no daemon runs", " on %s; to start it: systemctl start autocertd", r.stateDir)
	}
	if r.StateError != "" {
		out.Tell(term.Red, "the state directory can't be written", ", so that nothing is issued: %s; to see why: df -h %s; df -i %s; findmnt -T %s; it is tried again every %s",
			term.WithCure(r.StateError, r.StateCure), r.stateDir, r.stateDir, r.stateDir, diskLook)
	}
	switch {
	case len(r.Mistakes) > 0:
		printProblems(out, r.Mistakes, nil)
		out.Tell(term.Plain, "", "the configuration has mistakes; the certificates are those that the daemon last took over")
	case r.Daemon != nil && r.Daemon.ConfigError != "":
		out.Tell(term.Red, "the daemon runs with an earlier configuration", "; since %s it refuses the files:\n%s",
			r.Daemon.ConfigErrorAt.Local().Format(time.DateTime), term.WithCure(r.Daemon.ConfigError, r.Daemon.ConfigCure))
	case len(r.Certificates) == 0:
		out.Tell(term.Plain, "", `no certificate is configured; to get one: hostnames = ["host.corp.example.com"]`)
	}
	if len(r.NotTakenOver) == 0 {
		return
	}
	files := make([]string, len(r.NotTakenOver))
	for i, c := range r.NotTakenOver {
		files[i] = c.File + " (gone)"
		if !c.At.IsZero() {
			files[i] = fmt.Sprintf("%s (changed %s)", c.File, c.At.Local().Format(time.DateTime))
		}
	}
	hint := "; to make it look now: systemctl reload autocertd"
	if len(r.Mistakes) > 0 || r.Daemon.ConfigError != "" {
		hint = ""
	}
	fmt.Fprintf(out.Out, "%s: %s%s\n", out.Paint(term.Yellow, "not taken over by the daemon"), some(files, "file"), hint)
}

// mostUnconfigured is the number of certificates without configuration that are named before the rest is counted.
const mostUnconfigured = 10

// hostnames are those of a certificate as far as there is room, = when they say no more than its name.
func hostnames(c lifecycle.Status, room int) string {
	if len(c.Hostnames) == 1 && c.Hostnames[0] == c.Name {
		return "="
	}
	text := strings.Join(c.Hostnames, ",")
	for n := len(c.Hostnames) - 1; n > 0 && len(text) > room; n-- {
		text = fmt.Sprintf("%s +%d", strings.Join(c.Hostnames[:n], ","), len(c.Hostnames)-n)
	}
	return term.Cut(text, room)
}

func stateColour(c lifecycle.Condition) term.Colour {
	switch {
	case c == lifecycle.Valid:
		return term.Green
	case slices.Contains([]lifecycle.Condition{lifecycle.Expired, lifecycle.Revoked, lifecycle.Unreadable, lifecycle.Failing, lifecycle.NotDeployed}, c):
		return term.Red
	}
	return term.Yellow
}
