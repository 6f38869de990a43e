package main

import (
	"fmt"
	"os"

	"autocertd/internal/store"
)

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
	out := newScreen(os.Stdout)
	width := unlimited
	if out.terminal {
		width, _ = out.size()
	}
	rows := [][]cell{{{"NAME", dim}, {"ZONE", dim}, {"PROVIDER", dim}, {"WHOSE", dim}}}
	for _, r := range report.Records {
		rows = append(rows, []cell{{r.Name, plain}, {r.Zone, plain}, {r.Provider, plain}, r.whose()})
	}
	room := left(rows, width) - 2*columnGap - leastState
	if room < leastValue {
		return out.table(os.Stdout, withValuesBelow(report.Records, width))
	}
	if out.terminal {
		room = min(room, mostValue)
	}
	rows[0] = append(rows[0], cell{"VALUE", dim})
	for i, r := range report.Records {
		rows[i+1] = append(rows[i+1], cell{cut(r.Value, room), plain})
	}
	return out.table(os.Stdout, withStates(rows, report.Records, width))
}

// withStates adds the last column.
func withStates(rows [][]cell, list []listedRecord, width int) [][]cell {
	room := max(left(rows, width)-columnGap, leastState)
	rows[0] = append(rows[0], cell{"STATE", dim})
	for i, r := range list {
		rows[i+1] = append(rows[i+1], r.state(room))
	}
	return rows
}

func withValuesBelow(list []listedRecord, width int) [][]cell {
	rows := [][]cell{{{"NAME", dim}, {"WHOSE", dim}}}
	for _, r := range list {
		rows = append(rows, []cell{{r.Name, plain}, r.whose()})
	}
	rows = withStates(rows, list, width)
	result := rows[:1:1]
	for i, r := range list {
		where := fmt.Sprintf("  (zone %s, provider %s)", r.Zone, r.Provider)
		result = append(result, rows[i+1], []cell{{"  " + cut(r.Value, max(width-2-len(where), leastValue)) + where, dim}})
	}
	return result
}

func printWarnings(warnings []string) {
	out := newScreen(os.Stderr)
	for _, text := range warnings {
		fmt.Fprintf(out.out, "%s %s\n", out.paint(yellow, "warning:"), text)
	}
}

// whose says who removes the record.
func (r listedRecord) whose() cell {
	switch r.Owner {
	case ownerLiving:
		return cell{processText(r.Process), plain}
	case ownerDead:
		return cell{"left by a process that died", yellow}
	}
	return cell{"not ours", dim}
}

func processText(h *store.Holder) string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d (%s)", h.PID, h.Command)
}

// state says whether the zone has the record, or what its servers said.
func (r listedRecord) state(room int) cell {
	switch {
	case r.InZone == nil:
		return cell{short(withCure(r.Error, r.Cure), room), red}
	case *r.InZone:
		return cell{"in the zone", plain}
	}
	return cell{"not there", dim}
}
