// Package term owns the terminal's manners: screens with colour and redrawing only where there is a terminal, tables that
// fit its width, progress, words for times and numbers, and errors with their cures. What is said it leaves to those who
// call it.
package term

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Colour is an SGR sequence.
type Colour string

// The colours that words may have.
const (
	Plain  Colour = ""
	Red    Colour = "\x1b[31m"
	Green  Colour = "\x1b[32m"
	Yellow Colour = "\x1b[33m"
	Dim    Colour = "\x1b[2m"

	reset = "\x1b[0m"
)

// Unlimited is the width of a file or a pipe.
const Unlimited = 1 << 10 // columns

// Screen is where words go: a terminal, a file or a pipe.
type Screen struct {
	Out      *os.File
	Terminal bool // it can be redrawn
	coloured bool
}

// On returns the screen behind a file. $NO_COLOR and TERM=dumb are honoured.
func On(out *os.File) Screen {
	terminal := term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb"
	return Screen{Out: out, Terminal: terminal, coloured: terminal && os.Getenv("NO_COLOR") == ""}
}

// Paint colours text where colour is wanted.
func (s Screen) Paint(c Colour, text string) string {
	if !s.coloured || c == Plain || text == "" {
		return text
	}
	return string(c) + text + reset
}

// Size returns columns and lines, 80 and 24 when they can't be found out.
func (s Screen) Size() (width, height int) {
	width, height, err := term.GetSize(int(s.Out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// Width returns the columns that a table may take; [Unlimited] where there is no terminal.
func (s Screen) Width() int {
	if !s.Terminal {
		return Unlimited
	}
	width, _ := s.Size()
	return width
}

// Say writes a line that begins with a coloured word.
func (s Screen) Say(c Colour, word, text string) {
	fmt.Fprintf(s.Out, "%s %s\n", s.Paint(c, word), text)
}

// Warn writes a warning.
func (s Screen) Warn(text string) { s.Say(Yellow, "warning:", text) }

// JSON writes a value for programs.
func JSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// CanAsk reports whether a person sits at the standard input.
func CanAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// Tell writes a paragraph that begins with coloured words, broken between words where there is a terminal.
func (s Screen) Tell(c Colour, begin, format string, args ...any) {
	text := begin + fmt.Sprintf(format, args...)
	if width := s.Width(); width < Unlimited {
		text = strings.Join(Wrap(text, width), "\n")
	}
	fmt.Fprintln(s.Out, s.Paint(c, begin)+strings.TrimPrefix(text, begin))
}
