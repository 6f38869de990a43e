package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one mistake in one file, for a person to repair.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // 0 when unknown
	Key     string `json:"key,omitempty"`  // such as ca.letsencrypt.directory; "" when it is about the whole file
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // the cure, perhaps lines to add; "" when the message says it all
}

// Error returns the problem on one line.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(place{file: p.File, line: p.Line}.String())
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		fmt.Fprintf(&b, " (%s)", strings.ReplaceAll(p.Hint, "\n", "; "))
	}
	return b.String()
}

// Problems are all mistakes that were found, in the order of files and lines.
type Problems []Problem

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sort(files []string) {
	order := make(map[string]int, len(files))
	for i, file := range files {
		order[file] = i
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
}

// A place is where a value stands.
type place struct {
	file string
	line int
	key  string
}

// String returns file:line, for people and editors.
func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// below returns the place of a key in the table at p, until its own line is known.
func (p place) below(key string) place {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return !bareKeyRune(r) }) {
		key = fmt.Sprintf("%q", shorten(key))
	}
	if p.key != "" {
		key = p.key + "." + key
	}
	return place{p.file, p.line, key}
}

func (p place) problem(message, hint string) Problem {
	return Problem{File: p.file, Line: p.line, Key: p.key, Message: message, Hint: hint}
}

func bareKeyRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

// shorten keeps a message readable when a value is absurdly long.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
