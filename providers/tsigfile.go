package providers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"autocertd/internal/cure"
	"autocertd/internal/dnsname"
)

// maxKeyFile is the most bytes that a key file may have.
const maxKeyFile = 64 << 10

// readTSIGKey reads a key from a file as BIND's tools print it and named reads it. Of several keys name says which one; ""
// takes the only one.
func readTSIGKey(path, name string) (tsigKey, error) {
	// O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return tsigKey{}, cure.With(err, fmt.Sprintf("let the group of the user that runs the daemon read it: chgrp autocertd %s && chmod 0640 %s", path, path))
	case errors.Is(err, fs.ErrNotExist):
		return tsigKey{}, cure.With(err, fmt.Sprintf("copy the server's key to it, or make a new one for both: (umask 027; tsig-keygen -a %s acme-key > %s) && chgrp autocertd %s", tsigAlgorithms()[0], path, path))
	case err != nil:
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
	if form := foreignForm(string(text), path); form != "" {
		return tsigKey{}, fmt.Errorf("%s: %s", path, form)
	}
	key, err := parseTSIGKey(string(text), name)
	if err != nil {
		return tsigKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// byteOrderMark is what some editors put before a text in UTF-8.
const byteOrderMark = "\ufeff"

// bindForm is a key as we read it.
const bindForm = `key "NAME" { algorithm hmac-sha256; secret "SECRET"; };`

// namedStatements begin what may stand before a key in named.conf.
var namedStatements = []string{"acl", "controls", "dnssec-policy", "logging", "masters", "options", "primaries", "server", "tls", "trust-anchors", "view", "zone"}

// Forms of keys that aren't BIND's configuration.
var (
	yamlForm   = regexp.MustCompile(`(?m)^\s*(?:-\s+)?(?:key|id|name|algorithm|secret):(?:\s|$)`)
	colonForm  = regexp.MustCompile(`^\s*(?:[\w.-]+:){1,2}[A-Za-z0-9+/]+=*\s*$`)
	listForm   = regexp.MustCompile(`(?m)^\s*[\w.-]+\s+hmac-[\w.-]+\s+[A-Za-z0-9+/]+=*\s*$`)
	publicForm = regexp.MustCompile(`(?m)^\s*[\w.-]+(?:\s+\d+)?(?:\s+IN)?\s+KEY\s+\d+\s+\d+\s+\d+\s`)
	keyPair    = regexp.MustCompile(`^K(.+?)\.?\+\d+\+\d+\.(?:private|key)$`)
)

// foreignForm says which other form of a key the text has, and how to get at ours; "" for one that it doesn't know. It shows
// nothing of the text.
func foreignForm(text, path string) string {
	name := "NAME"
	if m := keyPair.FindStringSubmatch(filepath.Base(path)); m != nil && isName(m[1]) {
		name = m[1]
	}
	// The number of the algorithm is in the file, with its name behind it for a person.
	awk := func(field string) string {
		return fmt.Sprintf(`awk '%s {print "key \"%s\" { algorithm hmac-sha256; secret \"" $NF "\"; };"}' %s > tsig.key (with the algorithm that the file names)`, field, name, path)
	}
	switch {
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"), strings.Contains(text, "\x00"):
		return fmt.Sprintf("it is written in UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8 %s > tsig.key", path)
	case strings.HasPrefix(strings.TrimSpace(text), "Private-key-format:"):
		return "it is the private half of a key pair by dnssec-keygen; write it as named.conf has it: " + awk("/^Key:/")
	case publicForm.MatchString(text):
		return "it is the public half of a key pair by dnssec-keygen, a KEY record; write it as named.conf has it: " + bindForm
	case yamlForm.MatchString(text):
		return "it is written as NSD and Knot have it; write it as BIND does: " + bindForm
	case colonForm.MatchString(text):
		return "it is a key as the command line of nsupdate and kdig has it; write it as BIND's files do: " + bindForm
	case listForm.MatchString(text):
		return "it is a key as pdnsutil lists it; write it as BIND does: " + bindForm
	}
	return ""
}

// parseTSIGKey parses key statements of named.conf: key "NAME" { algorithm ALG; secret "BASE64"; };
// Errors name lines and never show what stands there: it might be the secret.
func parseTSIGKey(text, name string) (tsigKey, error) {
	tokens, err := tokenize(strings.TrimPrefix(text, byteOrderMark))
	if err != nil {
		return tsigKey{}, err
	}
	p := keyParser{tokens: tokens}
	for len(p.tokens) > 0 || len(p.keys) == 0 {
		if err := p.statement(); err != nil {
			return tsigKey{}, err
		}
	}
	key, err := p.pick(name)
	if err != nil {
		return tsigKey{}, err
	}
	return newTSIGKey(key.name, key.fields["algorithm"], key.fields["secret"])
}

// keyParser goes through the tokens of a key file.
type keyParser struct {
	tokens []token
	keys   []keyStatement
}

// keyStatement is one key as the file has it.
type keyStatement struct {
	name   string
	line   int
	fields map[string]string
}

// pick returns the key of that name, or the only one.
func (p *keyParser) pick(name string) (keyStatement, error) {
	if name == "" {
		if len(p.keys) > 1 {
			return keyStatement{}, fmt.Errorf("line %d: a second key; say which one is ours: key_name = \"NAME\"", p.keys[1].line)
		}
		return p.keys[0], nil
	}
	for _, k := range p.keys {
		if dnsname.Canonical(k.name) == dnsname.Canonical(name) {
			return k, nil
		}
	}
	return keyStatement{}, fmt.Errorf("it has no key that is called %.80q, which key_name asks for", name)
}

func (p *keyParser) statement() error {
	switch word := p.next(); {
	case word.is("") && len(p.keys) == 0:
		return errors.New("there is no key in it; make one: tsig-keygen -a hmac-sha256 KEYNAME")
	case word.is("include") && len(p.keys) == 0:
		return fmt.Errorf("line %d: include isn't followed; name the file that holds the key itself", word.line)
	case word.is("include"):
		return fmt.Errorf("line %d: include isn't followed; keep only keys in this file", word.line)
	case !word.is("key") && len(p.keys) > 0:
		return fmt.Errorf("line %d: something follows the key; keep only keys in this file", word.line)
	case !word.quoted && slices.Contains(namedStatements, strings.ToLower(word.text)):
		return fmt.Errorf("line %d: it begins as named.conf does, and only keys belong into this file; write ours alone into one: %s", word.line, bindForm)
	case !word.is("key"):
		return fmt.Errorf("%w; write it as BIND does: %s", p.unexpected(word, `the word key`), bindForm)
	}
	name := p.next()
	if !name.isValue() {
		return p.unexpected(name, "the key's name")
	}
	if open := p.next(); !open.is("{") {
		return p.unexpected(open, "{")
	}
	key := keyStatement{name: name.text, line: name.line, fields: map[string]string{}}
	if err := p.block(key); err != nil {
		return err
	}
	if end := p.next(); !end.is(";") && !end.is("") {
		return p.unexpected(end, ";")
	}
	p.keys = append(p.keys, key)
	return nil
}

// block reads the fields up to the closing brace.
func (p *keyParser) block(key keyStatement) error {
	for {
		field := p.next()
		word := strings.ToLower(field.text)
		switch {
		case field.is("}"):
			return key.complete(field.line)
		case !field.is("algorithm") && !field.is("secret"):
			return p.unexpected(field, `algorithm, secret or }`)
		}
		if _, twice := key.fields[word]; twice {
			return fmt.Errorf("line %d: a second %s in one key", field.line, word)
		}
		value := p.next()
		if !value.isValue() {
			return p.unexpected(value, "the value of "+word)
		}
		key.fields[word] = value.text
		if end := p.next(); !end.is(";") {
			return p.unexpected(end, "; after the value of "+word)
		}
	}
}

func (k keyStatement) complete(line int) error {
	for _, field := range []string{"algorithm", "secret"} {
		if _, ok := k.fields[field]; !ok {
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

// is reports whether t is the word, in capitals or not, or the sign, and not a string.
func (t token) is(text string) bool { return !t.quoted && strings.EqualFold(t.text, text) }

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
			if quoted {
				word = word[1 : size-1]
			}
			tokens = append(tokens, token{text: word, quoted: quoted, line: line})
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
		for end := 1; end < len(text); end++ { // over the ends of lines, too, as named reads it
			switch text[end] {
			case '\\':
				end++
			case '"':
				return end + 1, true
			}
		}
		return 0, false
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
