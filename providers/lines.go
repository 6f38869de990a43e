package providers

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"autocertd/internal/printable"
	"autocertd/internal/secret"
)

const (
	maxLines  = 100     // of one run that are passed on
	maxReason = 200     // characters of a foreign text that are passed on
	maxLine   = 8 << 10 // bytes of a line that are looked at
)

// lineWriter passes on what a program writes, line by line, printable and within bounds.
type lineWriter struct {
	line   func(string)        // gets each line
	redact func(string) string // hides secrets; nil when there are none

	rest []byte
	n    int
	last string // the last line that isn't blank
}

// Write never fails, so that a talkative program isn't disturbed.
func (w *lineWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, found := bytes.Cut(rest, []byte("\n"))
		w.rest = append(w.rest, part[:min(len(part), maxLine-len(w.rest))]...)
		if found {
			w.flush()
		}
		rest = after
	}
	return len(p), nil
}

// flush passes on a line that has no end yet.
func (w *lineWriter) flush() {
	text := string(w.rest)
	w.rest = w.rest[:0]
	if w.redact != nil {
		text = w.redact(text) // before it is cut: half a secret is too much
	}
	text = printable.Short(text, maxReason)
	if text == "" {
		return
	}
	w.last = text
	w.n++
	switch {
	case w.n > maxLines+1:
	case w.n > maxLines:
		w.line("(and more, which is left out)")
	default:
		w.line(text)
	}
}

// redactor hides the values of secrets in texts of others.
type redactor struct{ replacer *strings.Replacer }

// newRedactor returns a redactor for secrets by name. Values of less than four bytes aren't secrets, and would be found
// everywhere.
func newRedactor(secrets map[string]secret.Secret) redactor {
	type hidden struct{ text, name string }
	var all []hidden
	for name, s := range secrets {
		value := s.Reveal()
		quoted, _ := json.Marshal(value)
		texts := []string{value, url.QueryEscape(value), url.PathEscape(value), strings.Trim(string(quoted), `"`)}
		if strings.Contains(value, "\n") {
			texts = append(texts, strings.Split(value, "\n")...) // a line of it alone
		}
		for _, text := range texts {
			if text = strings.TrimSpace(text); len(text) >= 4 {
				all = append(all, hidden{text, name})
			}
		}
	}
	slices.SortFunc(all, func(a, b hidden) int { return len(b.text) - len(a.text) }) // one may hold another
	var pairs []string
	for _, h := range all {
		pairs = append(pairs, h.text, "["+h.name+"]")
	}
	return redactor{strings.NewReplacer(pairs...)}
}

func (r redactor) redact(text string) string { return r.replacer.Replace(text) }
