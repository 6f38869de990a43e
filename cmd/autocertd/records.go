package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/dns01"
	"autocertd/internal/dnschallenge"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
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

// owner is whose a TXT record is.
type owner string

const (
	ownerLiving owner = "living" // a process that lives removes it
	ownerDead   owner = "dead"   // its process died; the daemon or records clean removes it
	ownerOther  owner = "other"  // not ours
)

// listedRecord is one TXT record as records list shows it.
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

// recordsReport is what records list --json prints.
type recordsReport struct {
	Records  []listedRecord `json:"records"`
	Warnings []string       `json:"warnings,omitempty"` // what could not be looked at
}

func recordsList(ctx context.Context, path string, asJSON bool) error {
	s, err := loadAsDaemon(path, looks)
	if err != nil {
		return err
	}
	store := files.View(s.StateDir)
	journal, err := dns01.ListRecords(ctx, store)
	if err != nil {
		return stateDirHint(s.StateDir, err)
	}
	solver, err := onlySolver(s, store)
	if err != nil {
		return err
	}
	report := findRecords(ctx, solver, journal, challengeNames(s.Certificates))
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if asJSON {
		return printJSON(report)
	}
	return printRecords(report)
}

// onlySolver makes the part of the program that knows DNS, for commands that need nothing else. Without a logger what it
// does is said by the command.
func onlySolver(s *settings, store dns01.Storage) (*dns01.Solver, error) {
	solver := dns01.New(dns01.Config{Storage: store, Resolvers: s.Resolvers})
	solver.Configure(newProviders(s, slog.New(slog.DiscardHandler)))
	return solver, nil
}

// challengeNames are those of all hostnames, each once, sorted.
func challengeNames(certs []config.Certificate) (names []string) {
	for _, c := range certs {
		for _, hostname := range c.Hostnames {
			names = append(names, dnschallenge.Challenge{Hostname: hostname}.Name())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// findRecords asks the zones for the records of the journal, and for what else is at their names and at those given.
func findRecords(ctx context.Context, solver *dns01.Solver, journal []dns01.JournalRecord, names []string) recordsReport {
	report := recordsReport{Records: []listedRecord{}}
	var spots []dns01.Spot
	ours := map[dns01.Spot][]string{} // the values in the journal, under whatever provider
	for _, r := range journal {
		if r.Damaged != nil {
			report.Warnings = append(report.Warnings, damagedText(r))
			continue
		}
		at := dns01.Spot{Zone: r.Zone, Name: r.Name}
		ours[at] = append(ours[at], r.Value)
		spots = append(spots, spotOf(r))
	}
	var unknown []unplaced
	for i, place := range solver.Places(ctx, names) {
		if place.Err == nil {
			spots = append(spots, dns01.Spot{Provider: place.Provider, Zone: place.Zone, Name: place.Name()})
		} else {
			unknown = append(unknown, unplaced{names[i], place.Err})
		}
	}
	found := solver.Find(ctx, spots)
	for _, r := range journal {
		if r.Damaged == nil {
			report.Records = append(report.Records, ourRecord(r, found[spotOf(r)]))
		}
	}
	for spot, there := range found {
		mine := ours[dns01.Spot{Zone: spot.Zone, Name: spot.Name}]
		if there.Err != nil && len(mine) == 0 { // else the row says it
			unknown = append(unknown, unplaced{spot.Name, there.Err})
		}
		report.Records = append(report.Records, otherRecords(spot, there.Values, mine)...)
	}
	slices.SortFunc(report.Records, func(a, b listedRecord) int {
		return slices.Compare([]string{a.Zone, a.Name, a.Value, a.Provider}, []string{b.Zone, b.Name, b.Value, b.Provider})
	})
	report.Warnings = append(report.Warnings, unplacedTexts(unknown)...)
	return report
}

func spotOf(r dns01.JournalRecord) dns01.Spot {
	return dns01.Spot{Provider: r.Provider, Zone: r.Zone, Name: r.Name}
}

func ourRecord(r dns01.JournalRecord, found dns01.Found) listedRecord {
	listed := listedRecord{Name: r.Name, Zone: r.Zone, Provider: r.Provider, Value: r.Value, Owner: ownerDead, Process: r.Holder}
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

// otherRecords are the values at a spot that aren't ours.
func otherRecords(spot dns01.Spot, values, ours []string) (list []listedRecord) {
	there := true
	for _, value := range values {
		if !slices.Contains(ours, value) {
			list = append(list, listedRecord{Name: spot.Name, Zone: spot.Zone, Provider: spot.Provider, Value: value,
				Owner: ownerOther, InZone: &there})
		}
	}
	return list
}

func damagedText(r dns01.JournalRecord) string {
	if errors.Is(r.Damaged, fs.ErrPermission) {
		return fmt.Sprintf("%s can't be read (%v); see who owns it: ls -l", r.Object, r.Damaged)
	}
	return fmt.Sprintf("%s is damaged (%v): remove the _acme-challenge records that it names by hand, then the file", r.Object, r.Damaged)
}

// unplaced is a name that could not be looked at, and why.
type unplaced struct {
	name string
	err  error
}

// unplacedTexts says once what several names have in common.
func unplacedTexts(list []unplaced) (texts []string) {
	slices.SortFunc(list, func(a, b unplaced) int { return strings.Compare(a.name, b.name) })
	for len(list) > 0 {
		first := list[0]
		rest := slices.DeleteFunc(slices.Clone(list), func(u unplaced) bool { return cure.Same(u.err, first.err) })
		text := first.name
		if more := len(list) - len(rest) - 1; more > 0 {
			text += fmt.Sprintf(" and %d more %s", more, plural(more, "name"))
		}
		texts = append(texts, text+": "+errorText(first.err))
		list = rest
	}
	return texts
}

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
