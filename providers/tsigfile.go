package providers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxKeyFile is the most bytes that a key file may have.
const maxKeyFile = 64 << 10

// readTSIGKey reads a key from a file as tsig-keygen prints it.
func readTSIGKey(path string) (tsigKey, error) {
	// O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		return tsigKey{}, fmt.Errorf("%w; let the group of the user that runs the daemon read it: chgrp autocertd %s && chmod 0640 %s", err, path, path)
	}
	if err != nil {
		return tsigKey{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return tsigKey{}, err
	}
	if !info.Mode().IsRegular() {
		return tsigKey{}, fmt.Errorf("%s isn't a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return tsigKey{}, fmt.Errorf("%s may be used by everybody (mode %04o) and holds a secret: chmod o= %s", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return tsigKey{}, err
	}
	if len(text) > maxKeyFile {
		return tsigKey{}, fmt.Errorf("%s is longer than %d bytes, which is no key file", path, maxKeyFile)
	}
	key, err := parseTSIGKey(string(text))
	if err != nil {
		return tsigKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// parseTSIGKey parses one key statement of named.conf: key "NAME" { algorithm ALG; secret "BASE64"; };
// Errors name lines and never show what stands there: it might be the secret.
func parseTSIGKey(text string) (tsigKey, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return tsigKey{}, err
	}
	p := keyParser{tokens: tokens}
	if err := p.statement(); err != nil {
		return tsigKey{}, err
	}
	return newTSIGKey(p.name, p.fields["algorithm"], p.fields["secret"])
}

// keyParser goes through the tokens of a key file.
type keyParser struct {
	tokens []token
	name   string
	fields map[string]string
}

func (p *keyParser) statement() error {
	switch word := p.next(); {
	case word.is(""):
		return errors.New("there is no key in it; make one: tsig-keygen -a hmac-sha256 KEYNAME")
	case word.is("include"):
		return fmt.Errorf("line %d: include isn't followed; name the file that holds the key itself", word.line)
	case !word.is("key"):
		return p.unexpected(word, `the word key`)
	}
	name := p.next()
	if !name.isValue() {
		return p.unexpected(name, "the key's name")
	}
	p.name = name.text
	if open := p.next(); !open.is("{") {
		return p.unexpected(open, "{")
	}
	if err := p.block(); err != nil {
		return err
	}
	if end := p.next(); !end.is(";") && !end.is("") {
		return p.unexpected(end, ";")
	}
	switch rest := p.next(); {
	case rest.is(""):
		return nil
	case rest.is("key"):
		return fmt.Errorf("line %d: a second key; keep each key in a file of its own", rest.line)
	case rest.is("include"):
		return fmt.Errorf("line %d: include isn't followed; keep only the key in this file", rest.line)
	default:
		return fmt.Errorf("line %d: something follows the key; keep only the key in this file", rest.line)
	}
}

// block reads the fields up to the closing brace.
func (p *keyParser) block() error {
	p.fields = map[string]string{}
	for {
		field := p.next()
		switch {
		case field.is("}"):
			return p.complete(field.line)
		case !field.is("algorithm") && !field.is("secret"):
			return p.unexpected(field, `algorithm, secret or }`)
		}
		if _, twice := p.fields[field.text]; twice {
			return fmt.Errorf("line %d: a second %s in one key", field.line, field.text)
		}
		value := p.next()
		if !value.isValue() {
			return p.unexpected(value, "the value of "+field.text)
		}
		p.fields[field.text] = value.text
		if end := p.next(); !end.is(";") {
			return p.unexpected(end, "; after the value of "+field.text)
		}
	}
}

func (p *keyParser) complete(line int) error {
	for _, field := range []string{"algorithm", "secret"} {
		if _, ok := p.fields[field]; !ok {
			return fmt.Errorf("line %d: the key has no %s", line, field)
		}
	}
	return nil
}

// next returns the next token; at the end of the file one without text.
func (p *keyParser) next() token {
	if len(p.tokens) == 0 {
		return token{}
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

func (p *keyParser) unexpected(t token, want string) error {
	if t.is("") {
		return fmt.Errorf("the file ends where %s is expected", want)
	}
	return fmt.Errorf("line %d: %s is expected", t.line, want)
}

// token is a word, a quoted string, or one of { } ; and the line that it stands in.
type token struct {
	text   string
	quoted bool
	line   int
}

// is reports whether t is the word or sign, not a string.
func (t token) is(text string) bool { return !t.quoted && t.text == text }

func (t token) isValue() bool {
	return t.quoted || t.text != "" && !strings.Contains("{};", t.text)
}

// tokenize splits the text of a configuration file of named and drops the comments.
func tokenize(text string) ([]token, error) {
	var tokens []token
	line := 1
	for text != "" {
		size, isToken := lexeme(text)
		if size == 0 {
			return nil, fmt.Errorf("line %d: a string or comment doesn't end", line)
		}
		if isToken {
			word := text[:size]
			quoted := word[0] == '"'
			tokens = append(tokens, token{text: strings.Trim(word, `"`), quoted: quoted, line: line})
		}
		line += strings.Count(text[:size], "\n")
		text = text[size:]
	}
	return tokens, nil
}

// lexeme returns the length of what text starts with, and whether that is a token: white space and comments aren't.
// The length is 0 if a string or comment doesn't end.
func lexeme(text string) (size int, isToken bool) {
	switch {
	case strings.IndexByte(" \t\r\n", text[0]) >= 0:
		return 1, false
	case text[0] == '#', strings.HasPrefix(text, "//"):
		return wordLen(text, "\n"), false
	case strings.HasPrefix(text, "/*"):
		if end := strings.Index(text[2:], "*/"); end >= 0 {
			return end + 4, false
		}
		return 0, false
	case text[0] == '"':
		end := 1 + wordLen(text[1:], "\"\n")
		if end == len(text) || text[end] == '\n' {
			return 0, false
		}
		return end + 1, true
	case strings.IndexByte("{};", text[0]) >= 0:
		return 1, true
	}
	end := wordLen(text, " \t\r\n{};\"#")
	for _, comment := range []string{"//", "/*"} {
		if i := strings.Index(text[:end], comment); i > 0 {
			end = i
		}
	}
	return end, true
}

// wordLen returns how much of text comes before the first of the given characters.
func wordLen(text, until string) int {
	if end := strings.IndexAny(text, until); end >= 0 {
		return end
	}
	return len(text)
}
