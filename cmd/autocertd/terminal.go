package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"autocertd/internal/cure"
)

// The terminal's manners: colour and redrawing only on a terminal, NO_COLOR honoured, and one way of saying things.

// colour is an SGR sequence.
type colour string

const (
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
	dim    colour = "\x1b[2m"
	plain  colour = ""
	reset         = "\x1b[0m"
)

// screen is where words go.
type screen struct {
	out      *os.File
	terminal bool // it can redraw
	coloured bool
}

func newScreen(out *os.File) screen {
	terminal := term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb"
	return screen{out: out, terminal: terminal, coloured: terminal && os.Getenv("NO_COLOR") == ""}
}

// paint colours text where colour is wanted.
func (s screen) paint(c colour, text string) string {
	if !s.coloured || c == plain || text == "" {
		return text
	}
	return string(c) + text + reset
}

// size returns columns and lines, something usual when it can't be found out.
func (s screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// width returns the columns that a table may take; there is no limit for a file or a pipe.
func (s screen) width() int {
	if !s.terminal {
		return unlimited
	}
	width, _ := s.size()
	return width
}

// cell is a field of a table.
type cell struct {
	text   string
	colour colour
}

// table writes rows in aligned columns. What is last in its row isn't padded.
func (s screen) table(w io.Writer, rows [][]cell) error {
	widths := columns(rows)
	var b strings.Builder
	for _, row := range rows {
		last := len(row) - 1
		for last >= 0 && row[last].text == "" {
			last--
		}
		for i, c := range row[:last+1] {
			b.WriteString(s.paint(c.colour, c.text))
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+columnGap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// errorText returns what a person reads of an error: each of the problems that stand side by side on a line, with its cure.
func errorText(err error) string {
	var lines []string
	for _, part := range cure.Parts(err) {
		lines = append(lines, withCure(part.Error(), cure.Of(part)))
	}
	return strings.Join(lines, "\n")
}

// withCure puts a problem and its cure together, for a person to read.
func withCure(problem, cure string) string {
	if cure == "" {
		return problem
	}
	return problem + "; " + cure
}

// columnGap is the space between two columns.
const columnGap = 2

// columns returns how wide each column of a table is. A row of one cell is a line of its own and widens nothing.
func columns(rows [][]cell) (widths []int) {
	for _, row := range rows {
		if len(row) == 1 {
			continue
		}
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	return widths
}

// short makes one line of text, of at most width characters.
func short(text string, width int) string {
	return cut(strings.Join(strings.Fields(text), " "), width)
}

// cut shortens a line to width characters.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:max(width-1, 0)]) + "…"
}

// times says how often something happened.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// plural returns the word for one or for several.
func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// span writes a duration as a person would: the two largest units, one when the smaller is nothing.
func span(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.size {
			continue
		}
		text := fmt.Sprintf("%d%s", d/u.size, u.name)
		if i+1 < len(units) && d/u.size < 10 {
			if rest := d % u.size / units[i+1].size; rest > 0 {
				text += fmt.Sprintf(" %d%s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "0s"
}
