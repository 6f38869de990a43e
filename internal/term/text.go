package term

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"autocertd/internal/cure"
)

// mostErrors is the number of errors side by side that are written before the rest is counted.
const mostErrors = 10

// Text returns an error as a person reads it: the problem and its cure, and errors that occurred side by side on a line
// each. No other package puts the two together, and none takes a text apart.
func Text(err error) string {
	parts := cure.Parts(err)
	var lines []string
	for i, part := range parts {
		if i == mostErrors {
			lines = append(lines, fmt.Sprintf("and %d more", len(parts)-i))
			break
		}
		lines = append(lines, WithCure(part.Error(), cure.Of(part)))
	}
	return strings.Join(lines, "\n")
}

// WithCure puts together a problem and its cure that were kept apart in JSON.
func WithCure(problem, cure string) string {
	if problem == "" || cure == "" {
		return problem + cure
	}
	return problem + "; " + cure
}

// WithHint puts together a mistake of the configuration and its cure, whose lines are to be copied as they stand.
func WithHint(problem, cure string) string {
	switch {
	case cure == "":
		return problem
	case strings.Contains(cure, "\n"):
		return WithCure(problem, strings.ReplaceAll(cure, "\n", "\n    "))
	}
	return problem + " (" + cure + ")"
}

// Listed joins names, the first of many, and counts the rest, of a kind unless that is "".
func Listed(names []string, most int, kind string) string {
	more := len(names) - most
	if more <= 0 {
		return strings.Join(names, ", ")
	}
	if kind != "" {
		kind = " " + Plural(more, kind)
	}
	return fmt.Sprintf("%s and %d more%s", strings.Join(names[:most], ", "), more, kind)
}

// Times returns how often something happened.
func Times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// Plural returns the word for one or for several.
func Plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// Count returns a number with its word.
func Count(n int, word string) string { return fmt.Sprintf("%d %s", n, Plural(n, word)) }

// Span writes a duration as a person would: the two largest units, one when the smaller is nothing.
func Span(d time.Duration) string {
	if d < 0 {
		return "-" + Span(-d)
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

// Until returns how long it is to a moment, or how long ago that was; "-" for the zero time.
func Until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return Span(now.Sub(t)) + " ago"
	}
	return Span(t.Sub(now))
}

// Next is Until for an event that happens at the next occasion once its moment has passed.
func Next(t, now time.Time) string {
	if !t.IsZero() && !t.After(now) {
		return "now"
	}
	return Until(t, now)
}

// Moment names a moment by the clock, and how far away it is.
func Moment(t, now time.Time) string {
	distance := Until(t, now)
	if t.After(now) {
		distance = "in " + distance
	}
	return fmt.Sprintf("%s (%s)", t.Local().Format("2006-01-02 15:04:05 MST"), distance)
}

// OneLine makes one line of text.
func OneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Cut shortens a line to width characters.
func Cut(line string, width int) string {
	if runes(line) <= width {
		return line
	}
	return string([]rune(line)[:max(width-1, 0)]) + "…"
}

// Wrap breaks text into lines between words. Lines of its own stay; a word that is too long stays whole.
func Wrap(text string, width int) (lines []string) {
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := ""
		for word := range strings.FieldsSeq(paragraph) {
			if line != "" && runes(line)+1+runes(word) > width {
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

// fill is Wrap with words broken that are too long, and with at most so many lines. It reports whether something is left out.
func fill(text string, width, most int) (lines []string, cut bool) {
	for _, line := range Wrap(text, width) {
		for rest := []rune(line); ; rest = rest[width:] {
			if len(rest) <= width {
				lines = append(lines, string(rest))
				break
			}
			lines = append(lines, string(rest[:width]))
		}
	}
	if len(lines) <= most {
		return lines, false
	}
	last := []rune(lines[most-1])
	lines[most-1] = string(last[:min(len(last), width-2)]) + " …"
	return lines[:most], true
}

func runes(text string) int { return utf8.RuneCountInString(text) }
