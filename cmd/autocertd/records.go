package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/dns01"
	"autocertd/internal/dnschallenge"
	"autocertd/internal/preflight"
	"autocertd/internal/store"
	"autocertd/internal/term"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

func recordsCommand(opts *options) *cobra.Command {
	var asJSON, dryRun bool
	list := &cobra.Command{
		Use:   "list",
		Short: "Show the TXT records that are ours or stand where ours go",
		Long: "Show every TXT record that is noted in the journal, which process removes it and whether the zone has it, and beside them\n" +
			"the values of others at the challenge names of the configured hostnames, which are never touched. Nothing changes.",
		RunE: func(cmd *cobra.Command, _ []string) error { return recordsList(cmd.Context(), opts.config, asJSON) },
	}
	list.Flags().BoolVar(&asJSON, "json", false, "everything that is known, for programs")
	clean := &cobra.Command{
		Use:   "clean",
		Short: "Remove the TXT records that dead processes left, now",
		Long: "Remove now what the daemon removes at its start and at every tick: TXT records that processes left which died. Those of\n" +
			"living processes are left to them. The exit status is 0 when nothing is left behind, and 1 otherwise.",
		RunE: func(cmd *cobra.Command, _ []string) error { return recordsClean(cmd.Context(), opts.config, dryRun) },
	}
	clean.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	command := &cobra.Command{Use: "records", Short: "TXT records: what is published, and what was left behind", RunE: commandMissing}
	command.AddCommand(withoutArguments(list, clean)...)
	return command
}

// owner is the kind of a TXT record's owner.
type owner string

const (
	ownerLiving owner = "living" // a process that lives removes it
	ownerDead   owner = "dead"   // its process died; the daemon or records clean removes it
	ownerOther  owner = "other"  // not ours
)

// listedRecord is a TXT record in the output of records list.
type listedRecord struct {
	Name     string        `json:"name"`
	Zone     string        `json:"zone"`
	Provider string        `json:"provider"`
	Value    string        `json:"value"`
	Owner    owner         `json:"owner"`
	Process  *store.Holder `json:"process,omitempty"` // of ownerLiving
	InZone   *bool         `json:"in_zone"`           // null when that isn't known
	Error    string        `json:"error,omitempty"`   // why it isn't
	Cure     string        `json:"cure,omitempty"`
}

// recordsReport is the output of records list --json.
type recordsReport struct {
	Records  []listedRecord `json:"records"`
	Warnings []string       `json:"warnings,omitempty"` // what could not be looked at
}

func recordsList(ctx context.Context, path string, asJSON bool) error {
	s, err := openSession(path, "autocertd records list", looks)
	if err != nil {
		return err
	}
	journal, err := dns01.ListRecords(ctx, s.store)
	if err != nil {
		return s.hint(err)
	}
	names, unknown := s.challengeNames(ctx, s.settings.Certificates)
	report := findRecords(ctx, s.asker(), journal, names)
	report.Warnings = append(report.Warnings, unknownTexts(unknown)...)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if asJSON {
		return term.JSON(os.Stdout, report)
	}
	return printRecords(report)
}

// challengeNames returns the names at which the CAs of certificates may look for records, each once, sorted; and the CAs of
// which some aren't known.
func (s *session) challengeNames(ctx context.Context, certs []config.Certificate) (names []string, unknown []preflight.Unknown) {
	for _, ca := range s.cas {
		account, err := issuer.AccountURL(ctx, s.store, ca.Name, ca.Directory)
		if err == nil {
			err = cure.New("no account is registered, from which the names of its dns-account-01 challenges follow", "autocertd account register "+ca.Name)
		}
		incomplete := false
		for _, c := range certs {
			for _, hostname := range c.Hostnames {
				if !slices.Contains(c.CAs, ca.Name) {
					continue
				}
				possible, missing := dnschallenge.Possible(ca.Challenges, hostname, account)
				for _, challenge := range possible {
					names = append(names, challenge.Name())
				}
				incomplete = incomplete || missing
			}
		}
		if incomplete {
			unknown = append(unknown, preflight.Unknown{Name: "CA " + ca.Name, Err: err})
		}
	}
	slices.Sort(names)
	return slices.Compact(names), unknown
}

// findRecords asks the zones for the records of the journal, and for what else is at their names and at those given.
func findRecords(ctx context.Context, asker *zones.Asker, journal []dns01.JournalRecord, names []string) recordsReport {
	report := recordsReport{Records: []listedRecord{}}
	var spots []zones.TXTName
	ours := map[zones.TXTName][]string{} // the values in the journal, under whatever provider
	for _, r := range journal {
		if r.Damaged != nil {
			report.Warnings = append(report.Warnings, damagedText(r))
			continue
		}
		at := zones.TXTName{Zone: r.Zone, Name: r.Name}
		ours[at] = append(ours[at], r.Value)
		spots = append(spots, spotOf(r))
	}
	var unknown []preflight.Unknown
	for i, place := range asker.Places(ctx, names) {
		if place.Err == nil {
			spots = append(spots, zones.TXTName{Provider: place.Provider, Zone: place.Zone, Name: place.Name()})
		} else {
			unknown = append(unknown, preflight.Unknown{Name: names[i], Err: place.Err})
		}
	}
	found := asker.Find(ctx, spots)
	for _, r := range journal {
		if r.Damaged == nil {
			report.Records = append(report.Records, ourRecord(r, found[spotOf(r)]))
		}
	}
	for spot, there := range found {
		mine := ours[zones.TXTName{Zone: spot.Zone, Name: spot.Name}]
		if there.Err != nil && len(mine) == 0 { // else the row shows the error
			unknown = append(unknown, preflight.Unknown{Name: spot.Name, Err: there.Err})
		}
		report.Records = append(report.Records, otherRecords(spot, there.Values, mine)...)
	}
	slices.SortFunc(report.Records, func(a, b listedRecord) int {
		return slices.Compare([]string{a.Zone, a.Name, a.Value, a.Provider}, []string{b.Zone, b.Name, b.Value, b.Provider})
	})
	report.Warnings = append(report.Warnings, unknownTexts(unknown)...)
	return report
}

func spotOf(r dns01.JournalRecord) zones.TXTName {
	return zones.TXTName{Provider: r.Provider, Zone: r.Zone, Name: r.Name}
}

func ourRecord(r dns01.JournalRecord, found zones.TXTValues) listedRecord {
	listed := listedRecord{
		Name:     r.Name,
		Zone:     r.Zone,
		Provider: r.Provider,
		Value:    r.Value,
		Owner:    ownerDead,
		Process:  r.Holder,
	}
	if r.Holder != nil {
		listed.Owner = ownerLiving
	}
	if found.Err != nil {
		listed.Error, listed.Cure = found.Err.Error(), cure.Of(found.Err)
		return listed
	}
	there := slices.Contains(found.Values, r.Value)
	listed.InZone = &there
	return listed
}

// otherRecords returns the values at a name that aren't ours.
func otherRecords(spot zones.TXTName, values, ours []string) (list []listedRecord) {
	there := true
	for _, value := range values {
		if !slices.Contains(ours, value) {
			list = append(list, listedRecord{
				Name:     spot.Name,
				Zone:     spot.Zone,
				Provider: spot.Provider,
				Value:    value,
				Owner:    ownerOther,
				InZone:   &there,
			})
		}
	}
	return list
}

// damagedText returns why an object of the journal is of no use, and what to do about it.
func damagedText(r dns01.JournalRecord) string {
	if errors.Is(r.Damaged, fs.ErrPermission) {
		return term.WithCure(fmt.Sprintf("%s can't be read (%v)", r.Object, r.Damaged), "see who owns it: ls -l")
	}
	return fmt.Sprintf("%s is damaged (%v): remove the _acme-challenge records that it names by hand, then the file", r.Object, r.Damaged)
}

// unknownTexts writes an error once that several names have in common.
func unknownTexts(list []preflight.Unknown) (texts []string) {
	slices.SortFunc(list, func(a, b preflight.Unknown) int { return strings.Compare(a.Name, b.Name) })
	for len(list) > 0 {
		var names []string
		var rest []preflight.Unknown
		for _, u := range list {
			if cure.Same(u.Err, list[0].Err) {
				names = append(names, u.Name)
			} else {
				rest = append(rest, u)
			}
		}
		texts = append(texts, term.Listed(names, 1, "name")+": "+term.Text(list[0].Err))
		list = rest
	}
	return texts
}

// Widths of columns.
const (
	leastValue = 8
	mostValue  = 43 // of a CA's, in full
	leastState = 11 // "in the zone"
)

// printRecords writes a row for each record. On a terminal values are cut to what fits, and on a narrow one they follow
// below with zone and provider; elsewhere every record is one whole line, for grep and friends.
func printRecords(report recordsReport) error {
	defer printWarnings(report.Warnings)
	if len(report.Records) == 0 {
		fmt.Fprintln(os.Stderr, "no TXT record is noted in the journal, and nobody's are at the challenge names that were looked at")
		return nil
	}
	out := term.On(os.Stdout)
	value := term.Column{Head: "VALUE", Least: leastValue}
	if out.Terminal {
		value.Most = mostValue
	}
	state := term.Column{Head: "STATE", Least: leastState}
	wide := term.Table{Columns: []term.Column{{Head: "NAME"}, {Head: "ZONE"}, {Head: "PROVIDER"}, {Head: "WHOSE"}, value, state}}
	narrow := term.Table{Columns: []term.Column{{Head: "NAME"}, {Head: "WHOSE"}, state}, Indent: 2}
	for _, r := range report.Records {
		wide.Rows = append(wide.Rows, term.Row{Cells: []term.Cell{{Text: r.Name}, {Text: r.Zone}, {Text: r.Provider}, r.whose(), {Text: r.Value}, r.state()}})
		narrow.Rows = append(narrow.Rows, term.Row{Cells: []term.Cell{{Text: r.Name}, r.whose(), r.state()},
			Below: []term.Note{{Colour: term.Dim, Fit: func(room int) string {
				where := fmt.Sprintf("  (zone %s, provider %s)", r.Zone, r.Provider)
				return term.Cut(r.Value, max(room-len(where), leastValue)) + where
			}}}})
	}
	wide.Narrow = &narrow
	_, err := wide.Print(out)
	return err
}

// whose returns the cell that names the owner.
func (r listedRecord) whose() term.Cell {
	switch r.Owner {
	case ownerLiving:
		return term.Cell{Text: processText(r.Process)}
	case ownerDead:
		return term.Cell{Text: "left by a process that died", Colour: term.Yellow}
	}
	return term.Cell{Text: "not ours", Colour: term.Dim}
}

func processText(h *store.Holder) string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d (%s)", h.PID, h.Command)
}

// state returns the cell that tells whether the zone has the record, or the error of its servers.
func (r listedRecord) state() term.Cell {
	switch {
	case r.InZone == nil:
		return term.Cell{Text: term.OneLine(term.WithCure(r.Error, r.Cure)), Colour: term.Red}
	case *r.InZone:
		return term.Cell{Text: "in the zone"}
	}
	return term.Cell{Text: "not there", Colour: term.Dim}
}

// recordsClean removes the records that dead processes left, and writes a line for each.
func recordsClean(ctx context.Context, path string, dryRun bool) error {
	s, err := openSession(path, "autocertd records clean", looks)
	if err != nil {
		return err
	}
	journal, err := dns01.ListRecords(ctx, s.store)
	if err != nil {
		return s.hint(err)
	}
	c := cleaning{screen: term.On(os.Stdout)}
	var dead []dns01.JournalRecord
	for _, r := range journal {
		switch {
		case r.Damaged != nil:
			c.damaged(r)
		case r.Holder == nil:
			dead = append(dead, r)
		default:
			c.say(term.Plain, "left alone", r, processText(r.Holder)+" removes it")
		}
	}
	switch {
	case len(dead) == 0 && c.left == 0:
		fmt.Fprintln(os.Stderr, "nothing was left behind")
	case dryRun:
		for _, r := range dead {
			c.say(term.Yellow, "would remove", r, "left by a process that died")
			c.left++
		}
	case len(dead) > 0:
		if err := c.remove(ctx, s, dead); err != nil {
			return err
		}
	}
	if c.left > 0 {
		return &silentError{exitFailed}
	}
	return nil
}

// cleaning is a run of records clean.
type cleaning struct {
	screen term.Screen
	left   int // records and entries that are left behind
}

// remove takes over the records of dead processes and removes them, through the same code as the daemon.
func (c *cleaning) remove(ctx context.Context, s *session, dead []dns01.JournalRecord) error {
	if err := s.openStore(writes); err != nil {
		return err
	}
	solver := s.solver()
	err := solver.Sweep(ctx)
	took := map[dns01.JournalRecord]bool{}
	for _, r := range dead {
		took[r] = solver.Took(r)
	}
	closed := solver.Close(ctx) // waits until all was tried; its error is reported for each record below
	if err != nil {
		return s.hint(err)
	}
	after, err := dns01.ListRecords(context.WithoutCancel(ctx), s.store)
	if err != nil {
		return s.hint(err)
	}
	for _, r := range dead {
		at := slices.IndexFunc(after, func(o dns01.JournalRecord) bool { return o.Value == r.Value && spotOf(o) == spotOf(r) })
		still, why := solver.Unremoved(r)
		switch {
		case at < 0 || took[r] && !still:
			c.say(term.Green, "removed", r, "")
		case after[at].Holder != nil:
			c.say(term.Plain, "left alone", r, processText(after[at].Holder)+" has taken it over")
		default:
			c.left++
			c.say(term.Red, "not removed", r, term.Text(whyNot(s.settings, r, cmp.Or(why, closed))))
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; the daemon, or the next records clean, removes the rest")
	}
	return nil
}

// whyNot returns the reason why a record could not be removed.
func whyNot(s *settings, r dns01.JournalRecord, failure error) error {
	switch {
	case !slices.ContainsFunc(s.Providers, func(p *config.Provider) bool { return p.Name == r.Provider }):
		return cure.New("its provider isn't in the configuration any more", fmt.Sprintf("put [provider.%s] back until it is removed", r.Provider))
	case failure != nil:
		return failure
	}
	return cure.New("another process looked at it in that moment", "try once more")
}

func (c *cleaning) damaged(r dns01.JournalRecord) {
	if r.Holder == nil {
		c.left++
	}
	printWarnings([]string{damagedText(r)})
}

// say writes a line for a record.
func (c *cleaning) say(colour term.Colour, what string, r dns01.JournalRecord, why string) {
	line := fmt.Sprintf("%s %q (zone %s, provider %s)", r.Name, r.Value, r.Zone, r.Provider)
	if why != "" {
		line += ": " + why
	}
	c.screen.Say(colour, what, line)
}
