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
	More    int    `json:"more,omitempty"` // this entry stands for so many others, which aren't listed

	unreadable bool
	meant      string // for an unknown key, the one that it probably is, as Key would have it
}

// Unreadable reports whether this process may not read a file, which says little about what stands there.
func (p Problem) Unreadable() bool { return p.unreadable }

// Error returns the problem on one line, without its cure.
func (p Problem) Error() string {
	if p.More > 0 {
		return p.Message
	}
	text := place{file: p.File, line: p.Line}.String() + ": "
	if p.Key != "" {
		text += p.Key + ": "
	}
	return text + p.Message
}

// Cure returns the hint.
func (p Problem) Cure() string { return p.Hint }

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

// Unwrap returns the problems as errors.
func (ps Problems) Unwrap() []error {
	list := make([]error, len(ps))
	for i, p := range ps {
		list[i] = p
	}
	return list
}

// orNil returns nil for no problems, so that they make a nil error.
func (ps Problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// maxProblems bounds the mistakes that are listed; the rest is counted. More of them are one mistake made many times.
const maxProblems = 100

// Count returns the number of problems, those included that aren't listed.
func (ps Problems) Count() int {
	n := len(ps)
	for _, p := range ps {
		if p.More > 0 {
			n += p.More - 1
		}
	}
	return n
}

// Unreadable reports whether there are files among them that this process may not read, so that others may find no mistake.
func (ps Problems) Unreadable() bool { return slices.ContainsFunc(ps, Problem.Unreadable) }

// first returns the problems in the order of files and lines, and the number of those that are too many to be listed.
func (ps Problems) first(files []string) Problems {
	ps.sort(files)
	more := len(ps) - maxProblems
	if more <= 0 {
		return ps
	}
	rest := Problem{File: ps[maxProblems].File, Message: fmt.Sprintf("and %d more", more), More: more}
	return append(ps[:maxProblems:maxProblems], rest)
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
	return Problem{
		File:    p.file,
		Line:    p.line,
		Key:     p.key,
		Message: message,
		Hint:    hint,
	}
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
