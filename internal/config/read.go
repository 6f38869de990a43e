package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"autocertd/internal/durable"
	"autocertd/internal/secret"
)

// Bounds of what is read.
const (
	maxFileSize = 4 << 20
	maxDropIns  = 10_000
)

// A loader collects what one Load reads and finds.
type loader struct {
	checks     Checks
	config     *Config
	problems   Problems
	incomplete bool // a file couldn't be read or parsed, so what seems to be missing may stand there
	resolvers  bool // some are listed, right or wrong
}

func (l *loader) fail(at place, message, hint string) {
	l.problems = append(l.problems, at.problem(message, hint))
}

func (l *loader) warn(at place, message, hint string) {
	l.config.Warnings = append(l.config.Warnings, at.problem(message, hint))
}

// missing tells that a table lacks a key, unless one that is misspelt there was told.
func (l *loader) missing(table place, key, message, hint string) {
	meant := table.below(key).key
	if !slices.ContainsFunc(l.problems, func(p Problem) bool { return p.File == table.file && p.meant == meant }) {
		l.fail(table, message, hint)
	}
}

// read reads the main file and the drop-ins, and returns all of them as one.
func (l *loader) read(path string) *rawConfig {
	all := &rawConfig{}
	for _, file := range append([]string{path}, l.dropIns(filepath.Join(filepath.Dir(path), "conf.d"))...) {
		l.config.Files = append(l.config.Files, file)
		raw, problems := l.readFile(file)
		l.problems = append(l.problems, problems...)
		// What stands below a key that is misspelt is as good as in a file that can't be read.
		top := tags(reflect.TypeFor[rawConfig]())
		misspelt := slices.ContainsFunc(problems, func(p Problem) bool { return slices.Contains(top, p.meant) })
		l.incomplete = l.incomplete || misspelt || raw == nil
		if raw == nil {
			continue
		}
		l.merge(all, raw)
	}
	return all
}

func (l *loader) dropIns(dir string) []string {
	l.checks.Sources.note(dir, true)
	names, err := dropInNames(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		l.incomplete = true
		l.problems = append(l.problems, unread(place{file: dir}, dir, fmt.Errorf("can't be read: %w", cause(err))))
		return nil
	}
	files := make([]string, len(names))
	for i, name := range names {
		files[i] = filepath.Join(dir, name)
	}
	if len(files) > maxDropIns {
		l.incomplete = true
		l.fail(place{file: dir}, fmt.Sprintf("holds %d files, and at most %d are read", len(files), maxDropIns), "put more hostnames into one file")
		return nil
	}
	return files
}

// readFile reads one file. It returns nil when nothing of it can be used.
func (l *loader) readFile(file string) (*rawConfig, Problems) {
	whole := place{file: file}
	l.checks.Sources.note(file, false)
	data, err := readBounded(file, maxFileSize)
	if err != nil {
		return nil, Problems{unread(whole, file, err)}
	}
	text := string(data)
	if !utf8.ValidString(text) {
		whole.line = 1 + strings.Count(text[:len(validPrefix(text))], "\n")
		return nil, Problems{whole.problem("isn't UTF-8", "save the file in UTF-8")}
	}
	marks, problem := scan(text)
	if problem == nil {
		var values map[string]any
		if values, problem = parse(text); problem == nil {
			raw := &rawConfig{}
			d := &decoder{file: file, sources: l.checks.Sources, outputs: l.checks.OutputKeys}
			d.table(values, marks, whole, reflect.ValueOf(raw).Elem())
			return raw, d.problems
		}
	}
	problem.File = file
	return nil, Problems{*problem}
}

// parse turns TOML into values.
func parse(text string) (values map[string]any, problem *Problem) {
	defer func() {
		// The library panics where it finds a mistake of its own.
		if r := recover(); r != nil {
			values, problem = nil, &Problem{Message: "isn't valid TOML"}
		}
	}()
	_, err := toml.Decode(text, &values)
	if err == nil {
		return values, nil
	}
	parseErr, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return nil, &Problem{Message: "isn't valid TOML"}
	}
	problem = &Problem{Line: parseErr.Position.Line, Message: "isn't valid TOML: " + syntaxMessage(parseErr.Message)}
	if slices.Contains(tags(reflect.TypeFor[rawConfig]()), parseErr.LastKey[strings.LastIndexByte(parseErr.LastKey, '.')+1:]) &&
		strings.Contains(parseErr.Message, "already been defined") && strings.Contains(parseErr.LastKey, ".") {
		problem.Hint = "a key below a [table] is one of that table; keys of the whole file stand above the first [table]"
	}
	return nil, problem
}

// syntaxMessage withholds what the library quotes from the file, since that may be a secret whose quotation marks were
// forgotten. Names of keys may be shown, and a few characters.
func syntaxMessage(message string) string {
	if strings.HasPrefix(message, "Key '") {
		return message
	}
	if strings.Contains(message, "out of range") {
		return "a number is out of range"
	}
	const longest = 4
	for _, quoted := range regexp.MustCompile(`"[^"]*"|'[^']*'`).FindAllString(message, -1) {
		if len(quoted)-2 > longest {
			return "expected a value; strings need quotation marks"
		}
	}
	return message
}

// readBounded reads a regular file of limited size. Its errors go on from the file's name.
func readBounded(file string, limit int) ([]byte, error) {
	data, err := durable.Read(file, limit)
	_, large := errors.AsType[*durable.TooLargeError](err)
	switch {
	case err == nil:
		return data, nil
	case large, errors.Is(err, durable.ErrIrregular):
		return nil, cause(err)
	}
	return nil, fmt.Errorf("can't be read: %w", cause(err))
}

// readText is readBounded without the byte order mark that some editors put in front.
func (l *loader) readText(file string, limit int) ([]byte, error) {
	l.checks.Sources.note(file, false)
	data, err := readBounded(file, limit)
	return bytes.TrimPrefix(data, []byte("\uFEFF")), err
}

// failFile tells of a file that a key names and that can't be used. The hint is for what is wrong inside it.
func (l *loader) failFile(at place, file string, err error, hint string) {
	p := unread(at, file, err)
	p.Message = fmt.Sprintf("%q %s", shorten(file), err)
	if !p.unreadable {
		p.Hint = hint
	}
	l.problems = append(l.problems, p)
}

// unread is the mistake that a file can't be read, with its cure where that is known.
func unread(at place, file string, err error) Problem {
	p := at.problem(err.Error(), "")
	if p.unreadable = errors.Is(err, fs.ErrPermission); p.unreadable {
		p.Hint = "let the user that runs the daemon read it: " + secret.PermissionCure(file)
	}
	if target, linkErr := os.Readlink(file); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
		p.Hint = fmt.Sprintf("it is a link to %q, and nothing is there: put the file there, or remove the link", shorten(target))
	}
	switch {
	case errors.Is(err, durable.ErrIrregular):
		p.Hint = "a folder, a pipe or a device stands there; move it away, or name a file"
	case errors.Is(err, syscall.ENOTDIR):
		p.Hint = "a file stands where a folder should be; move it away"
	}
	return p
}

// cause drops the path from a file error, since a problem names the file already.
func cause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// validPrefix returns the text up to the first byte that isn't UTF-8.
func validPrefix(text string) string {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD") {
			return text[:i]
		}
	}
	return text
}
