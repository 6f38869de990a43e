// Package printable makes texts of others fit to be shown: what a CA, a DNS server, a program or a file's owner wrote.
// Such a text passes through here once, where it enters; a terminal, a log, JSON and a page need nothing more then.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Max is how many characters of a foreign text are kept.
const Max = 2000

// Line returns text as one line of at most [Max] characters. Line ends and other blanks become single blanks; control
// characters, characters that change the direction or the order of others, and broken UTF-8 are left out.
func Line(text string) string { return Short(text, Max) }

// Short is Line with at most limit characters.
func Short(text string, limit int) string {
	return clean(text, limit, false)
}

// Lines is Line for texts whose line ends mean something, as the output of a program: they stay, and tabs become blanks.
func Lines(text string) string {
	return clean(text, Max, true)
}

// End is Lines for a text whose end says most.
func End(text []byte) string {
	text = text[max(0, len(text)-Max):]
	for len(text) > 0 && !utf8.RuneStart(text[0]) {
		text = text[1:]
	}
	return Lines(string(text))
}

// clean looks at no more of text than it keeps, however long it is.
func clean(text string, limit int, lines bool) string {
	var out strings.Builder
	n, blank := 0, false
	for _, r := range text {
		switch {
		case lines && r == '\n':
		case unicode.IsSpace(r):
			r = ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			continue
		}
		if r == ' ' && !lines {
			blank = out.Len() > 0
			continue
		}
		if blank {
			out.WriteByte(' ')
			n++
			blank = false
		}
		if n >= limit {
			return strings.TrimSpace(out.String()) + " …"
		}
		out.WriteRune(r)
		n++
	}
	return strings.TrimSpace(out.String())
}
