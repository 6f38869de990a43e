package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"autocertd/internal/preflight"
)

const indent = "    "

// A page lays findings out on a terminal of that many columns, or for a file.
type page struct {
	screen
	width int
}

// rows are those of a table.
func (p page) rows(entries []entry) [][]cell {
	rows := [][]cell{{{"STATUS", dim}, {"SUBJECT", dim}, {"CHECK", dim}, {}}}
	heads := slices.Clone(rows)
	for _, e := range entries {
		if !p.wide(e) {
			heads = append(heads, e.head())
		}
	}
	room := left(heads, p.width)
	if room >= leastText {
		rows[0][3] = cell{"FOUND", dim}
	}
	for _, e := range entries {
		rows = append(append(rows, p.found(e, room)...), e.details(p.width-len(indent+label("")))...)
	}
	return rows
}

// wide reports whether a subject would take the room of all others away. It has a line for itself.
func (p page) wide(e entry) bool { return utf8.RuneCountInString(e.subject()) > p.width/3 }

// found says what was found: in a column of its own on all of the page, or below where that column would be narrow.
func (p page) found(e entry, room int) (rows [][]cell) {
	head := e.head()
	if p.wide(e) {
		status := p.paint(head[0].colour, fmt.Sprintf("%-*s", widest, e.Status))
		rows = append(rows, []cell{{fmt.Sprintf("%s  %s  %s", status, e.subject(), e.Check), plain}})
		head = []cell{{}, {}, {}}
	}
	if room < leastText {
		if !p.wide(e) {
			rows = append(rows, head)
		}
		return append(rows, below("", wrap(e.Text, p.width-len(indent)))...)
	}
	for paragraph := range strings.SplitSeq(e.Text, "\n") {
		lines, _ := fill(paragraph, room, unlimited)
		for _, line := range lines {
			rows = append(rows, append(head, cell{line, plain}))
			head = []cell{{}, {}, {}}
		}
	}
	return rows
}

// widest is how wide the longest status is.
const widest = len(preflight.Failure)

// head is what stands before that which was found.
func (e entry) head() []cell {
	return []cell{{string(e.Status), statusColour(e.Status)}, {e.subject(), plain}, {e.Check, plain}}
}

// details are the lines below: whom it is about, why it matters, and the cure, which is there to be pasted.
func (e entry) details(width int) (rows [][]cell) {
	if len(e.subjects) > 1 && e.Status != preflight.OK {
		rows = append(rows, below(label("for"), wrap(listed(e.subjects, mostAlike), width))...)
	}
	if e.Why != "" {
		rows = append(rows, below(label("why"), wrap(e.Why, width))...)
	}
	if e.Cure != "" {
		rows = append(rows, below(label("cure"), cureLines(e.Cure, width))...)
	}
	if e.more > 0 {
		rows = append(rows, below("", []string{fmt.Sprintf("and %d more like this; --json shows all", e.more)})...)
	}
	return rows
}

func label(word string) string { return fmt.Sprintf("%-6s", word) }

// cureLines breaks no line but one that is too long, where what is to be pasted begins.
func cureLines(cure string, width int) (lines []string) {
	for line := range strings.SplitSeq(cure, "\n") {
		if words, paste, ok := strings.Cut(line, ": "); ok && utf8.RuneCountInString(line) > width {
			lines = append(append(lines, wrap(words+":", width)...), paste)
		} else {
			lines = append(lines, line)
		}
	}
	return lines
}

// below are lines of their own, the first after a label.
func below(label string, lines []string) (rows [][]cell) {
	for i, line := range lines {
		if i > 0 {
			label = strings.Repeat(" ", len(label))
		}
		rows = append(rows, []cell{{indent + label + line, plain}})
	}
	return rows
}

// listed joins names, the first of many.
func listed(names []string, most int) string {
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// wrap breaks text into lines between words. Lines of its own stay; a word that is too long stays whole.
func wrap(text string, width int) (lines []string) {
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := ""
		for word := range strings.FieldsSeq(paragraph) {
			if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
				lines, line = append(lines, line), ""
			}
			if line != "" {
				line += " "
			}
			line += word
		}
		lines = append(lines, line)
	}
	return lines
}
