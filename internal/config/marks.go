package config

import (
	"fmt"
	"strconv"
	"strings"
)

// maxDepth is how deep tables and arrays may nest, and how many parts a key may have. The TOML library recurses for
// each level, so a file of nothing but brackets would exhaust the stack.
const maxDepth = 32

// A mark is the line where a value begins, with the marks of what is inside it. The TOML library gives no lines for
// keys, so the text is scanned once more for them.
type mark struct {
	line  int
	keys  map[string]*mark
	items []*mark
}

// key returns the mark of a key in a table, or the table's own line when it isn't known.
func (m *mark) key(name string) *mark {
	if child, ok := m.keys[name]; ok {
		return child
	}
	return &mark{line: m.line}
}

// item returns the mark of an entry of an array, or the array's own line when it isn't known.
func (m *mark) item(i int) *mark {
	if i < len(m.items) {
		return m.items[i]
	}
	return &mark{line: m.line}
}

// child returns the table or value of that name in m, creating it. In an array of tables it is the last table that
// later headers speak of.
func (m *mark) child(name string, line int) *mark {
	if n := len(m.items); n > 0 {
		m = m.items[n-1]
	}
	if c, ok := m.keys[name]; ok {
		return c
	}
	if m.keys == nil {
		m.keys = make(map[string]*mark)
	}
	c := &mark{line: line}
	m.keys[name] = c
	return c
}

// A scanner walks over TOML text and notes lines. It judges nothing: at text that it doesn't understand it stops, and
// the library reports what is wrong there.
type scanner struct {
	rest    string
	line    int
	depth   int
	tooDeep bool
}

// scan returns the marks of all values in the text. The error is a nesting that is too deep to be parsed safely.
func scan(text string) (*mark, *Problem) {
	s := &scanner{rest: strings.TrimPrefix(text, "\uFEFF"), line: 1}
	root := &mark{line: 1}
	table := root
	for s.skip() {
		if s.rest[0] == '[' {
			table = s.header(root)
		} else {
			s.pair(table)
		}
	}
	if s.tooDeep {
		return nil, &Problem{Line: s.line, Message: fmt.Sprintf("nested more than %d levels deep", maxDepth)}
	}
	return root, nil
}

func (s *scanner) stop() { s.rest = "" }

func (s *scanner) advance(n int) {
	s.line += strings.Count(s.rest[:n], "\n")
	s.rest = s.rest[n:]
}

func (s *scanner) take(token string) bool {
	if !strings.HasPrefix(s.rest, token) {
		return false
	}
	s.advance(len(token))
	return true
}

func (s *scanner) blanks() { s.rest = strings.TrimLeft(s.rest, " \t") }

// skip goes on to the next token over blanks, newlines and comments, and reports whether there is one.
func (s *scanner) skip() bool {
	for s.rest != "" {
		switch s.rest[0] {
		case ' ', '\t', '\r', '\n':
			s.advance(1)
		case '#':
			s.advance(lengthUntil(s.rest, "\n"))
		default:
			return true
		}
	}
	return false
}

func (s *scanner) header(root *mark) *mark {
	line := s.line
	array := s.take("[[")
	if !array {
		s.take("[")
	}
	m := root
	for _, name := range s.path() {
		m = m.child(name, line)
	}
	if array {
		m.items = append(m.items, &mark{line: line})
	} else if len(m.items) == 0 {
		m.line = line
	}
	s.blanks()
	if closing := "]"; !s.take(closing) || array && !s.take(closing) {
		s.stop()
	}
	return m
}

func (s *scanner) pair(table *mark) {
	line := s.line
	m := table
	for _, name := range s.path() {
		m = m.child(name, line)
	}
	if m == table || !s.take("=") {
		s.stop()
		return
	}
	s.blanks()
	s.value(m)
}

// path reads a dotted key with the blanks around it.
func (s *scanner) path() []string {
	var path []string
	for {
		s.blanks()
		n := s.keyLength()
		if n == 0 {
			s.stop()
			return nil
		}
		path = append(path, unquoteKey(s.rest[:n]))
		s.advance(n)
		s.blanks()
		if !s.take(".") {
			return path
		}
		if len(path) == maxDepth {
			s.tooDeep = true
			s.stop()
			return nil
		}
	}
}

func (s *scanner) keyLength() int {
	if s.rest != "" && (s.rest[0] == '"' || s.rest[0] == '\'') {
		return stringLength(s.rest)
	}
	return lengthUntil(s.rest, " \t\r\n.=[]{}#\"',")
}

func unquoteKey(key string) string {
	switch key[0] {
	case '\'':
		return strings.Trim(key, "'")
	case '"':
		if plain, err := strconv.Unquote(strings.ReplaceAll(key, `\e`, `\x1b`)); err == nil {
			return plain
		}
	}
	return key
}

func (s *scanner) value(m *mark) {
	if s.depth++; s.depth > maxDepth {
		s.tooDeep = true
		s.stop()
	}
	switch {
	case s.rest == "":
	case s.rest[0] == '"' || s.rest[0] == '\'':
		s.advance(stringLength(s.rest))
	case s.take("["):
		for s.skip() && !s.take("]") {
			item := &mark{line: s.line}
			m.items = append(m.items, item)
			s.value(item)
			s.comma("]")
		}
	case s.take("{"):
		for s.skip() && !s.take("}") {
			s.pair(m)
			s.comma("}")
		}
	default:
		s.advance(lengthUntil(s.rest, ",]}#\n"))
	}
	s.depth--
}

func (s *scanner) comma(end string) {
	if s.skip() && !s.take(",") && !strings.HasPrefix(s.rest, end) {
		s.stop()
	}
}

// lengthUntil returns how much of the text comes before the first of the characters.
func lengthUntil(text, characters string) int {
	if i := strings.IndexAny(text, characters); i >= 0 {
		return i
	}
	return len(text)
}

// stringLength returns the length of the string that the text begins with, its quotes included. A string without an
// end takes all that is left.
func stringLength(text string) int {
	quote := text[:1]
	if long := strings.Repeat(quote, 3); strings.HasPrefix(text, long) {
		quote = long
	}
	for i := len(quote); i < len(text); i++ {
		if text[i] == '\\' && quote[0] == '"' {
			i++
		} else if strings.HasPrefix(text[i:], quote) {
			i += len(quote)
			// Up to two quotes may stand directly before the closing three.
			for extra := 0; len(quote) == 3 && extra < 2 && i < len(text) && text[i] == quote[0]; extra++ {
				i++
			}
			return i
		}
	}
	return len(text)
}
