package issuer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/printable"
)

// Replies of a CA are read here before the library sees them. Of an object only the fields that are used are kept, and only if
// they have the right type: a wrong field that isn't used must not fail a call. Texts for people become printable. Names,
// tokens, URLs and statuses stay as the CA sent them, and are checked where they are used.

// Bounds for replies.
const (
	maxText  = 1500 // bytes of a text for people; quoted in a log it takes at most twice that
	maxURL   = 2000 // bytes
	maxItems = 1000 // of a list

	longestToken = 512 // more than any CA needs; they must have 22 characters (RFC 8555 section 11.3)
)

// field reads a JSON value as a type. It reports false when the value has another.
type field func(v any) (any, bool)

// shape says which fields of an object are used.
type shape map[string]field

// read keeps the known fields of an object.
func (s shape) read(v any) (any, bool) {
	object, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	out := map[string]any{}
	for name, f := range s {
		if value, ok := f(object[name]); ok {
			out[name] = value
		}
	}
	return out, true
}

// The kinds of replies (RFC 8555 section 7.1).
func directoryShape() shape {
	return shape{"newNonce": text, "newAccount": text, "newOrder": text, "revokeCert": text, "keyChange": text, "renewalInfo": text, "meta": metaShape().read}
}

func metaShape() shape {
	return shape{"termsOfService": words, "website": words, "caaIdentities": oneOrMany(domain), "externalAccountRequired": boolean, "profiles": described}
}

func accountShape() shape {
	return shape{"status": words, "contact": list(words), "termsOfServiceAgreed": boolean, "orders": words}
}

func orderShape() shape {
	return shape{"status": words, "expires": moment, "identifiers": list(identifierShape().read), "notBefore": moment, "notAfter": moment,
		"error": problemShape().read, "authorizations": list(text), "finalize": text, "certificate": text}
}

func authorizationShape() shape {
	return shape{"identifier": identifierShape().read, "status": words, "expires": moment, "challenges": list(challengeShape().read), "wildcard": boolean}
}

// A challenge never says the key authorization: that is made here.
func challengeShape() shape {
	return shape{"type": words, "url": text, "status": words, "error": problemShape().read, "token": text}
}

func identifierShape() shape { return shape{"type": words, "value": text} }

func renewalShape() shape {
	return shape{"suggestedWindow": shape{"start": moment, "end": moment}.read, "explanationURL": text}
}

// A problem document (RFC 8555 section 6.7, RFC 7807).
func problemShape() shape {
	s := shape{"type": words, "title": words, "status": status, "detail": words, "instance": words}
	s["subproblems"] = list(shape{"type": words, "detail": words, "identifier": identifierShape().read}.read)
	return s
}

func text(v any) (any, bool) { s, ok := v.(string); return s, ok }

// words is a text that people read.
func words(v any) (any, bool) { s, ok := v.(string); return shown(s), ok }

// domain is a name that a CA goes by in CAA records, which people paste into zones.
func domain(v any) (any, bool) {
	s, ok := v.(string)
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}
	return s, ok && s != "" && len(s) <= 253 && !strings.ContainsFunc(s, odd)
}

func boolean(v any) (any, bool) {
	switch v {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	b, ok := v.(bool)
	return b, ok
}

// status is an HTTP status, which some write as a string.
func status(v any) (any, bool) {
	n, err := strconv.Atoi(fmt.Sprint(v)) // a json.Number, or a string
	return n, err == nil && n >= 100 && n < 600
}

// moment is a time, in the format of RFC 3339 or nearly.
func moment(v any) (any, bool) {
	s, _ := v.(string)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", time.DateTime, time.RFC1123, time.RFC1123Z} {
		if t, err := time.Parse(layout, s); err == nil && !t.IsZero() {
			return t.UTC().Format(time.RFC3339Nano), true
		}
	}
	return nil, false
}

// list keeps the items of a list that have the right type.
func list(item field) field {
	return func(v any) (any, bool) {
		items, ok := v.([]any)
		out := []any{}
		for _, i := range items[:min(len(items), maxItems)] {
			if value, ok := item(i); ok {
				out = append(out, value)
			}
		}
		return out, ok
	}
}

// oneOrMany is a list that may have been forgotten around its only item.
func oneOrMany(item field) field {
	return func(v any) (any, bool) {
		if one, ok := item(v); ok {
			return []any{one}, true
		}
		return list(item)(v)
	}
}

// described is an object of names with a description each.
func described(v any) (any, bool) {
	object, ok := v.(map[string]any)
	out := map[string]any{}
	for name, about := range object {
		if len(out) == maxItems {
			break
		}
		about, _ := words(about)
		out[shown(name)] = about
	}
	return out, ok
}

// shown makes a foreign text printable and bounds it.
func shown(s string) string {
	s = printable.Line(s)
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.TrimSpace(s[:end]) + " …"
}

// readObject reads a JSON object by its shape, and returns it in a form that holds nothing else.
func readObject(body []byte, s shape) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("it isn't JSON, but %s", start(body))
	}
	object, ok := s.read(v)
	if !ok {
		return nil, fmt.Errorf("it isn't a JSON object, but %s", start(body))
	}
	return json.Marshal(object)
}

// readProblem reads the body of an error (RFC 8555 section 6.7). It reports false when that isn't a problem document, and
// returns a text for people then.
func readProblem(code int, body []byte) (p acme.Problem, text string, ok bool) {
	clean, err := readObject(body, problemShape())
	if err == nil {
		err = json.Unmarshal(clean, &p)
	}
	if p.Status < http.StatusBadRequest {
		p.Status = code
	}
	if err == nil && (p.Type != "" || p.Detail != "" || p.Title != "") {
		return p, "", true
	}
	return p, shown(string(body)), false
}

// problemError is a problem document (RFC 8555 section 6.7) in one line.
type problemError struct{ acme.Problem }

func (e *problemError) Unwrap() error { return e.Problem }

func (e *problemError) Error() string {
	kind := strings.TrimPrefix(e.Type, acme.ProblemTypeNamespace)
	if kind == "about:blank" { // says nothing (RFC 9457 section 4.2.1)
		kind = ""
	}
	text := cmp.Or(e.Detail, e.Title)
	switch {
	case text == "" && kind == "":
		text = fmt.Sprintf("HTTP %d", e.Status)
	case text == "":
		text = fmt.Sprintf("%s (HTTP %d)", kind, e.Status)
	case kind != "":
		text += " (" + kind + ")"
	}
	var same []string // names of which the CA says no more than it has said of the whole
	for _, sub := range e.Subproblems {
		switch name := sub.Identifier.Value; {
		case !strings.Contains(e.Detail, sub.Detail):
			text += "; " + strings.TrimPrefix(name+": "+sub.Detail, ": ")
		case !strings.Contains(e.Detail, name) && !slices.Contains(same, name):
			same = append(same, name)
		}
	}
	if len(same) > 0 {
		text += ", for " + strings.Join(same, ", ")
	}
	return shown(text)
}

// namesAccount reports whether a CA says that a limit is the account's. Limits have no types of their own (RFC 8555
// section 6.6), so only the text shows it; where it doesn't, a second order has to find out.
func namesAccount(p acme.Problem) bool { return strings.Contains(strings.ToLower(p.Detail), "account") }

// start quotes the beginning of an unexpected body.
func start(body []byte) string { return cmp.Or(printable.Short(string(body), 200), "nothing") }
