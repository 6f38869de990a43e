package config

import (
	"fmt"
	"path"
	"reflect"
)

// A Table is one [[output]]: the certificates that it is for, and the means to read and judge its other keys, which belong
// to the package that writes files.
type Table struct {
	Match []string // patterns on certificate names, as of path.Match; nil when one of them is wrong
	At    string   // file:line

	// Decode stores the table's keys in dst, a pointer to a struct with toml tags. It reports unknown keys and wrong types.
	Decode func(dst any) error
	// Fail reports a mistake at a key, or at one entry of its list; Warn what works, but hardly as intended. Nothing more is
	// reported of a key whose type is wrong. A key that isn't in the table is missing there, if none is that was meant for it.
	Fail, Warn func(key string, entry int, message, cure string)
}

// checkOutputs lets the caller build the outputs.
func (l *loader) checkOutputs(raw []field[rawOutput]) {
	var tables []Table
	for _, f := range raw {
		match := l.patterns(f.Value.Match)
		if f.ok && l.checks.Outputs != nil {
			tables = append(tables, l.table(match, f.Value.Options))
		}
	}
	if l.checks.Outputs != nil {
		l.checks.Outputs(l.config, tables)
	}
}

// table returns what builds an output of a table.
func (l *loader) table(match []string, options rest) Table {
	wrong := map[string]bool{} // keys of which a mistake was reported by Decode
	report := func(to *Problems) func(key string, entry int, message, cure string) {
		return func(key string, entry int, message, cure string) {
			at := options.at
			if mark, found := options.marks.keys[key]; found {
				at = at.below(key)
				at.line = mark.item(entry).line
			} else if key != "" {
				l.missing(at, key, message, cure)
				return
			}
			if !wrong[at.key] {
				*to = append(*to, at.problem(message, cure))
			}
		}
	}
	return Table{
		Match: match,
		At:    options.at.String(),
		Decode: func(dst any) error {
			problems := options.decode(dst, l.checks.Sources, tags(reflect.TypeFor[rawOutput]()))
			for _, p := range problems {
				wrong[p.Key] = true
			}
			l.problems = append(l.problems, problems...)
			return problems.orNil()
		},
		Fail: report(&l.problems),
		Warn: report(&l.config.Warnings),
	}
}

// patterns returns the patterns of match, which is every certificate by default, and nil when one is wrong.
func (l *loader) patterns(f list) (patterns []string) {
	if !f.set {
		return []string{"*"}
	}
	right := f.ok
	for _, entry := range f.Value {
		if _, err := path.Match(entry.Value, ""); err != nil || entry.ok && entry.Value == "" {
			l.fail(entry.at, fmt.Sprintf("%q is no pattern", shorten(entry.Value)), `such as "*", "*.corp.example.com" or one name`)
			right = false
		}
		right = right && entry.ok
		patterns = append(patterns, entry.Value)
	}
	if f.ok && len(f.Value) == 0 {
		l.fail(f.at, "is empty", `["*"] is every certificate`)
	}
	if !right {
		return nil
	}
	return patterns
}
