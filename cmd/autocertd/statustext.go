package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"autocertd/internal/lifecycle"
)

// Widths of columns.
const (
	leastHostnames = 9 // as wide as the heading
	mostHostnames  = 40
	leastText      = 26 // with less room, texts get lines of their own; what most rows of a plan say fits
	unlimited      = 1 << 10
)

// printTable writes one row for each certificate. Elsewhere than on a terminal every certificate is one line, for grep and
// friends.
func printTable(list []certificateStatus, now time.Time) error {
	out := newScreen(os.Stdout)
	rows, cut := statusRows(list, out.width(), now)
	if err := out.table(os.Stdout, rows); err != nil {
		return err
	}
	if cut {
		fmt.Println(out.paint(dim, "in full: autocertd status NAME"))
	}
	return nil
}

// statusRows lays the table out. It reports whether a text was cut. A column for hostnames is there when one differs from
// the name of its certificate.
func statusRows(list []certificateStatus, width int, now time.Time) (rows [][]cell, cut bool) {
	named := !slices.ContainsFunc(list, func(c certificateStatus) bool { return !c.namesItself() })
	head := []cell{{"NAME", dim}, {"HOSTNAMES", dim}, {"EXPIRES IN", dim}, {"RENEWS IN", dim}, {"STATE", dim}}
	rows = [][]cell{head}
	for _, c := range list {
		word, colour := c.word()
		rows = append(rows, []cell{{c.Name, plain}, {"", plain}, {until(c.NotAfter, now), plain}, {next(renewal(c.Status), now), plain}, {word, colour}})
	}
	if named {
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 1, 2)
		}
	} else {
		rows[0][1].text = ""
		room := min(max(left(rows, width), leastHostnames), mostHostnames)
		rows[0][1].text = "HOSTNAMES"
		for i, c := range list {
			rows[i+1][1].text = hostnames(c.Status, room)
		}
	}
	details := make([]cell, len(list))
	for i, c := range list {
		details[i] = cell{c.detail(now), plain}
	}
	return withTexts(rows, "DETAILS", details, width)
}

// Lines that a text may take in a table, and the number of texts from which on it is fewer.
const (
	mostTextLines = 6
	sideTextLines = 3 // beside its row
	someTextLines = 2 // where there are many
	manyTexts     = 10
)

// withTexts gives each row but the first a text: in a last column where each takes a few lines there, and else below.
// Without a limit of the width a text is one line. It reports whether a text was cut.
func withTexts(rows [][]cell, heading string, texts []cell, width int) (_ [][]cell, cutAny bool) {
	cutAny = shortenNames(rows, width)
	room := left(rows, width) - columnGap
	longest, count, high := 0, 0, false
	for _, t := range texts {
		if t.text != "" {
			count++
			longest = max(longest, utf8.RuneCountInString(t.text))
			_, cut := fill(t.text, max(room, leastText), sideTextLines)
			high = high || cut
		}
	}
	beside := width >= unlimited || room >= longest || room >= leastText && !high
	if beside {
		rows[0] = append(rows[0], cell{heading, dim})
	} else {
		room = width - len(margin)
	}
	most := mostTextLines
	if count > manyTexts {
		most = someTextLines
	}
	result := rows[:1:1]
	for i, t := range texts {
		lines := []string{strings.Join(strings.Fields(t.text), " ")}
		if width < unlimited {
			var cut bool
			lines, cut = fill(t.text, room, most)
			cutAny = cutAny || cut
		}
		row := rows[i+1]
		if beside {
			result = append(result, append(row, cell{lines[0], t.colour}))
			for _, line := range lines[1:] {
				result = append(result, append(make([]cell, len(row)), cell{line, t.colour}))
			}
			continue
		}
		result = append(result, row)
		for _, line := range lines {
			if line != "" {
				result = append(result, []cell{{margin + line, t.colour}})
			}
		}
	}
	return result, cutAny
}

// leastName is to how many characters names are cut at most.
const leastName = 20

// shortenNames cuts long names in the first column where the table would be wider than the screen, and reports whether it did.
func shortenNames(rows [][]cell, width int) (shortened bool) {
	missing := -left(rows, width)
	if missing <= 0 {
		return false
	}
	room := max(columns(rows)[0]-missing, leastName)
	for _, row := range rows {
		whole := row[0].text
		row[0].text = cut(whole, room)
		shortened = shortened || row[0].text != whole
	}
	return shortened
}

// margin stands before a text below its row.
const margin = "  "

// fill makes lines of a text, each no longer than width, and at most so many. It reports whether something is left out.
func fill(text string, width, most int) (lines []string, cut bool) {
	for _, line := range wrap(strings.Join(strings.Fields(text), " "), width) {
		for runes := []rune(line); ; runes = runes[width:] {
			if len(runes) <= width {
				lines = append(lines, string(runes))
				break
			}
			lines = append(lines, string(runes[:width]))
		}
	}
	if len(lines) <= most {
		return lines, false
	}
	last := []rune(lines[most-1])
	lines[most-1] = string(last[:min(len(last), width-2)]) + " …"
	return lines[:most], true
}

// left is how much of the width a table leaves.
func left(rows [][]cell, width int) int {
	for i, w := range columns(rows) {
		width -= w
		if i > 0 {
			width -= columnGap
		}
	}
	return width
}

// detail returns the text beside the times of a certificate: the step that it is in, else its last error.
func (c certificateStatus) detail(now time.Time) string {
	switch {
	case c.Now != nil:
		return c.Now.text(now)
	case len(c.Absent) > 0:
		return c.absentText()
	}
	return withCure(c.LastError(), c.LastCure())
}

// text says a step and since when it is waited for what comes next.
func (d doing) text(now time.Time) string {
	return fmt.Sprintf("%s, since %s", d.Step, span(max(now.Sub(d.Since), 0)))
}

// word is the state of a certificate, in a table.
func (c certificateStatus) word() (string, colour) {
	if c.Now != nil && c.Condition != lifecycle.Expired {
		return "in progress", yellow
	}
	return string(c.Condition), stateColour(c.Condition)
}

// namesItself reports whether the hostnames say no more than the name.
func (c certificateStatus) namesItself() bool {
	return len(c.Hostnames) == 1 && c.Hostnames[0] == c.Name
}

// printDetails writes all that a person may want to know about each certificate.
func printDetails(list []certificateStatus, now time.Time) error {
	out := newScreen(os.Stdout)
	for i, c := range list {
		if i > 0 {
			fmt.Println()
		}
		if err := out.table(os.Stdout, inWidth(detailRows(c, now), out.width())); err != nil {
			return err
		}
	}
	return nil
}

// inWidth wraps the second of two columns between words. A word that is too long stays whole: it may be there to be pasted.
func inWidth(rows [][]cell, width int) (wrapped [][]cell) {
	room := width - columns(rows)[0] - columnGap
	for _, row := range rows {
		lines := []string{row[1].text}
		if width < unlimited {
			lines = wrap(row[1].text, room)
		}
		for i, line := range lines {
			if i > 0 {
				row[0].text = ""
			}
			wrapped = append(wrapped, []cell{row[0], {line, row[1].colour}})
		}
	}
	return wrapped
}

// detailRows returns the lines of status NAME, each with its key.
func detailRows(c certificateStatus, now time.Time) [][]cell {
	rows := [][]cell{{{"name", dim}, {c.Name, plain}}, {{"hostnames", dim}, {strings.Join(c.Hostnames, ", "), plain}},
		{{"state", dim}, {string(c.Condition), stateColour(c.Condition)}}}
	add := func(key, text string) { rows = append(rows, []cell{{key, dim}, {text, plain}}) }
	if c.Now != nil {
		add("now", c.Now.text(now))
	}
	if !c.NotAfter.IsZero() {
		add("issued by", fmt.Sprintf("%s (%s), serial %s", c.Leaf.CA, c.Leaf.Issuer, c.Leaf.Serial))
		add("expires", moment(c.NotAfter, now))
	}
	if r := c.Leaf.Revoked; !r.At.IsZero() {
		add("revoked", moment(r.At, now)+": "+cmp.Or(r.Reason, "found out then"))
	}
	if !c.RenewAt.IsZero() {
		add("renews", moment(c.RenewAt, now)+": "+c.RenewWhy)
	}
	for _, line := range c.ByHand {
		add("add to zone", line)
	}
	if !c.Held.Until.IsZero() {
		add("held until", moment(c.Held.Until, now)+": "+c.Held.Reason)
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
	return rows
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
func addTrouble(add func(key, text string), what string, t lifecycle.Trouble, now time.Time) {
	if t.Failures == 0 {
		return
	}
	add(what, fmt.Sprintf("tried %s, last %s", times(t.Failures), moment(t.At, now)))
	add("next try", moment(t.RetryAt, now))
	add("last error", t.Error)
	if t.Cure != "" {
		add("cure", t.Cure)
	}
}

// printDaemon says whether anybody looks after all this, with which configuration, and what nobody looks after.
func printDaemon(out screen, r *statusReport, now time.Time) {
	say := func(c colour, begin, format string, args ...any) {
		text := begin + fmt.Sprintf(format, args...)
		if width := out.width(); width < unlimited {
			text = strings.Join(wrap(text, width), "\n")
		}
		fmt.Fprintln(out.out, out.paint(c, begin)+strings.TrimPrefix(text, begin))
	}
	if n := min(len(r.Unconfigured), mostUnconfigured); n > 0 {
		names := make([]string, n)
		for i, k := range r.Unconfigured[:n] {
			names[i] = k.Name
		}
		say(plain, "", "no longer configured, but on disk: %s%s; to remove: autocertd forget %s",
			describeKept(r.Unconfigured[:n], now), more(len(r.Unconfigured)-n), strings.Join(names, " "))
	}
	if r.Daemon == nil {
		say(yellow, "no daemon runs", " on %s; to start it: systemctl start autocertd", r.stateDir)
	}
	if r.StateError != "" {
		say(red, "the state directory can't be written", ", so that nothing is issued: %s; to see why: df -h %s; df -i %s; findmnt -T %s; it is tried again every %s",
			withCure(r.StateError, r.StateCure), r.stateDir, r.stateDir, r.stateDir, diskLook)
	}
	switch {
	case len(r.Mistakes) > 0:
		printProblems(out, r.Mistakes, nil)
		say(plain, "", "the configuration has mistakes; the certificates are those that the daemon last took over")
	case r.Daemon != nil && r.Daemon.ConfigError != "":
		say(red, "the daemon runs with an earlier configuration", "; since %s it refuses the files:\n%s",
			r.Daemon.ConfigErrorAt.Local().Format(time.DateTime), withCure(r.Daemon.ConfigError, r.Daemon.ConfigCure))
	case len(r.Certificates) == 0:
		say(plain, "", `no certificate is configured; to get one: hostnames = ["host.corp.example.com"]`)
	}
	printNotTakenOver(out, r)
}

// printNotTakenOver says which files of the configuration the daemon hasn't taken over as they are now, and since when.
func printNotTakenOver(out screen, r *statusReport) {
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
	fmt.Fprintf(out.out, "%s: %s%s\n", out.paint(yellow, "not taken over by the daemon"), some(files, "file"), hint)
}

// mostUnconfigured is the number of certificates without configuration that are named before the rest is counted.
const mostUnconfigured = 10

// more says how many are left out, if any.
func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// hostnames are those of a certificate as far as there is room, = when they say no more than its name.
func hostnames(c lifecycle.Status, room int) string {
	if len(c.Hostnames) == 1 && c.Hostnames[0] == c.Name {
		return "="
	}
	text := strings.Join(c.Hostnames, ",")
	for n := len(c.Hostnames) - 1; n > 0 && len(text) > room; n-- {
		text = fmt.Sprintf("%s +%d", strings.Join(c.Hostnames[:n], ","), len(c.Hostnames)-n)
	}
	return cut(text, room)
}

// until says how long it is to a moment, or that it has passed.
func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return span(now.Sub(t)) + " ago"
	}
	return span(t.Sub(now))
}

// next is until for what happens at the next occasion once its moment has passed.
func next(t, now time.Time) string {
	if !t.IsZero() && !t.After(now) {
		return "now"
	}
	return until(t, now)
}

// moment names a moment by the clock, and how far away it is.
func moment(t, now time.Time) string {
	distance := until(t, now)
	if t.After(now) {
		distance = "in " + distance
	}
	return fmt.Sprintf("%s (%s)", t.Local().Format("2006-01-02 15:04:05 MST"), distance)
}

func stateColour(c lifecycle.Condition) colour {
	switch {
	case c == lifecycle.Valid:
		return green
	case slices.Contains([]lifecycle.Condition{lifecycle.Expired, lifecycle.Revoked, lifecycle.Unreadable, lifecycle.Failing, lifecycle.NotDeployed}, c):
		return red
	}
	return yellow
}
