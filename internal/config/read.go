package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"autocertd/internal/durable"
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

// read reads the main file and the drop-ins, and returns all of them as one.
func (l *loader) read(path string) *rawConfig {
	all := &rawConfig{}
	for _, file := range append([]string{path}, l.dropIns(filepath.Join(filepath.Dir(path), "conf.d"))...) {
		l.config.Files = append(l.config.Files, file)
		raw, problems := readFile(file)
		l.problems = append(l.problems, problems...)
		if raw == nil {
			l.incomplete = true
			continue
		}
		l.merge(all, raw)
	}
	return all
}

func (l *loader) dropIns(dir string) []string {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		l.incomplete = true
		l.fail(place{file: dir}, "can't be read: "+cause(err).Error(), "")
		return nil
	}
	var files []string
	for _, entry := range entries {
		// Editors keep their temporary files under names that begin with a dot.
		if name := entry.Name(); strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".") {
			files = append(files, filepath.Join(dir, name))
		}
	}
	if len(files) > maxDropIns {
		l.incomplete = true
		l.fail(place{file: dir}, fmt.Sprintf("holds %d files, and at most %d are read", len(files), maxDropIns), "put more hostnames into one file")
		return nil
	}
	return files
}

// readFile reads one file. It returns nil when nothing of it can be used.
func readFile(file string) (*rawConfig, Problems) {
	whole := place{file: file}
	data, err := readBounded(file, maxFileSize)
	if err != nil {
		return nil, Problems{whole.problem(err.Error(), "")}
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
			d := &decoder{file: file}
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
	return nil, &Problem{Line: parseErr.Position.Line, Message: "isn't valid TOML: " + syntaxMessage(parseErr.Message)}
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
