package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const defaultMode fs.FileMode = 0o600

func (l *loader) buildOutputs(raw []field[rawOutput]) {
	before := len(l.problems)
	var places, dirs []place
	for _, f := range raw {
		if f.ok {
			l.config.Outputs = append(l.config.Outputs, l.buildOutput(f))
			places, dirs = append(places, f.at), append(dirs, f.Value.Dir.at)
		}
	}
	if len(l.problems) == before { // targets that are wrong in themselves can't be compared
		l.checkTargets(places)
		l.checkStateDir(dirs)
	}
}

func (l *loader) buildOutput(f field[rawOutput]) Output {
	raw := f.Value
	o := Output{
		Match:  l.patterns(raw.Match),
		Dir:    l.absolute(raw.Dir),
		File:   raw.File.Value,
		Format: l.oneOf(raw.Format, "pem", "combined"),
		Owner:  l.account(raw.Owner, "user"),
		Group:  l.account(raw.Group, "group"),
		Mode:   l.mode(raw.Mode),
		Reload: l.units(raw.Reload),
		Run:    l.commands(raw.Run),
	}
	l.placeholders(raw.Dir)
	l.placeholders(raw.File)
	if !raw.Dir.set {
		l.missing(f.at, "dir", "has no dir", `dir = "/etc/ssl/autocertd/{name}"`)
	}
	l.outputFile(&o, raw)
	l.outputOrder(&o, raw.Order)
	literal := len(o.Match) == 1 && !strings.ContainsAny(o.Match[0], `*?[\`)
	if raw.Dir.ok && !literal && !strings.Contains(o.Dir+o.File, "{name}") {
		l.fail(raw.Dir.at, "several certificates would be written to the same files", "put {name} into it, or one name into match")
	}
	for _, c := range l.config.Certificates {
		if o.Format == "combined" && c.CSR != nil && o.Matches(c.Name) {
			l.fail(raw.Format.at, fmt.Sprintf("the files hold the key, and that of certificate %q is elsewhere", c.Name),
				`write other names into match, or format = "pem"`)
		}
	}
	return o
}

// outputFile checks the name of a combined file.
func (l *loader) outputFile(o *Output, raw rawOutput) {
	f := raw.File
	switch {
	case o.Format != "combined" && f.set:
		l.fail(f.at, `is for format = "combined"`, "the format pem has fixed file names")
	case o.Format != "combined":
	case !f.set:
		o.File = "{name}.pem"
	case f.ok && (f.Value == "" || f.Value == "." || f.Value == ".." || strings.ContainsAny(f.Value, "/\x00")):
		l.fail(f.at, fmt.Sprintf("%q must be a file name without a folder", shorten(f.Value)), "the folder is dir")
	}
}

// outputOrder takes the place of the key in a combined file.
func (l *loader) outputOrder(o *Output, f field[string]) {
	switch {
	case o.Format == "combined":
		o.Order = l.oneOf(f, "key-last", "key-first")
	case f.set:
		l.fail(f.at, `is for format = "combined"`, "the format pem has the key in a file of its own")
	}
}

// patterns returns the patterns of match, which is every certificate by default.
func (l *loader) patterns(f list) []string {
	if !f.set {
		return []string{"*"}
	}
	var patterns []string
	for _, entry := range f.Value {
		if _, err := path.Match(entry.Value, ""); err != nil || entry.ok && entry.Value == "" {
			l.fail(entry.at, fmt.Sprintf("%q is no pattern", shorten(entry.Value)), `such as "*", "*.corp.example.com" or one name`)
		}
		patterns = append(patterns, entry.Value)
	}
	if f.ok && len(f.Value) == 0 {
		l.fail(f.at, "is empty", `["*"] is every certificate`)
	}
	return patterns
}

// account returns the name or number of a user or group. One that this machine doesn't know is no mistake: it may come
// with a package, and other certificates need not wait for that.
func (l *loader) account(f field[string], kind string) string {
	if !f.ok {
		return f.Value
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?$`).MatchString(f.Value) {
		l.fail(f.at, fmt.Sprintf("%q is no name of a user or group", shorten(f.Value)), "")
		return f.Value
	}
	if _, err := strconv.ParseUint(f.Value, 10, 32); err == nil {
		return f.Value
	}
	database, create, err := "/etc/passwd", "useradd --system ", error(nil)
	if kind == "group" {
		database, create = "/etc/group", "groupadd --system "
		_, err = user.LookupGroup(f.Value)
	} else {
		_, err = user.Lookup(f.Value)
	}
	_, noUser := errors.AsType[user.UnknownUserError](err)
	_, noGroup := errors.AsType[user.UnknownGroupError](err)
	if noUser || noGroup {
		hint := didYouMean(f.Value, accountsIn(database))
		l.warn(f.at, fmt.Sprintf("this machine has no %s %q, so the files can't be written", kind, shorten(f.Value)), cmp.Or(hint, create+f.Value))
	}
	return f.Value
}

// accountsIn returns the names of a file such as /etc/group, none when it can't be read.
func accountsIn(database string) (names []string) {
	data, err := readBounded(database, maxFileSize)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if name, _, found := strings.Cut(line, ":"); found {
			names = append(names, name)
		}
	}
	return names
}

func (l *loader) mode(f field[string]) fs.FileMode {
	if !f.ok {
		return defaultMode
	}
	bits, err := strconv.ParseUint(f.Value, 8, 32)
	mode := fs.FileMode(bits)
	switch {
	case err != nil || mode > fs.ModePerm:
		l.fail(f.at, fmt.Sprintf("%q is no mode", shorten(f.Value)), `an octal number in quotation marks, such as "0640"`)
	case mode&0o111 != 0:
		l.fail(f.at, "a key isn't executable", `such as "0600" or "0640"`)
	case mode&0o002 != 0:
		l.fail(f.at, "a key that everyone may write is nobody's", `such as "0600" or "0640"`)
	case mode&0o400 == 0:
		l.fail(f.at, "the owner must be able to read the key", `such as "0600" or "0640"`)
	case mode&0o004 != 0:
		l.warn(f.at, "everyone on this machine may read the keys", `"0640" with group lets one group read them`)
	}
	return mode
}

// units returns the names of systemd units.
func (l *loader) units(f list) []string {
	pattern := regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(service|socket|target|path|timer)$`)
	var units []string
	for _, entry := range f.Value {
		if entry.ok && (len(entry.Value) > 255 || !pattern.MatchString(entry.Value)) {
			l.fail(entry.at, fmt.Sprintf("%q is no name of a systemd unit", shorten(entry.Value)), `such as "nginx.service"`)
		}
		units = append(units, entry.Value)
	}
	return units
}

// commands returns the commands of run. No shell is between, so the first word is the program itself.
func (l *loader) commands(f field[[]field[[]string]]) [][]string {
	var commands [][]string
	for _, entry := range f.Value {
		commands = append(commands, entry.Value)
		if !entry.ok {
			continue
		}
		if len(entry.Value) == 0 || !filepath.IsAbs(entry.Value[0]) {
			l.fail(entry.at, "a command begins with the absolute path of a program", `run = [["/usr/local/bin/push-cert", "{name}"]]`)
		}
		for _, word := range entry.Value {
			if strings.Contains(word, "\x00") {
				l.fail(entry.at, "a command can't hold a zero byte", "")
			}
			l.placeholders(field[string]{Value: word, at: entry.at, ok: true})
		}
	}
	return commands
}

// placeholders refuses what looks like a placeholder and isn't one.
func (l *loader) placeholders(f field[string]) {
	for _, found := range regexp.MustCompile(`\{[A-Za-z_]+\}`).FindAllString(f.Value, -1) {
		if found != "{name}" {
			l.fail(f.at, fmt.Sprintf("unknown placeholder %s", shorten(found)), "{name} is the certificate's name")
		}
	}
}

// checkTargets refuses two writers of one file, and warns of outputs that nothing is written to.
func (l *loader) checkTargets(places []place) {
	writers := map[string]int{}
	told := map[[2]int]bool{}
	for i, o := range l.config.Outputs {
		used := false
		for _, cert := range l.config.Certificates {
			if !o.Matches(cert.Name) {
				continue
			}
			used = true
			if len(places) == 1 {
				break
			}
			for _, file := range o.files(cert.Name) {
				other, taken := writers[file]
				if taken && !told[[2]int{other, i}] {
					told[[2]int{other, i}] = true
					l.fail(places[i], fmt.Sprintf("%q is written by the output at %s too", file, places[other]), "give each output a dir of its own")
				}
				writers[file] = i
			}
		}
		if !used {
			l.warn(places[i], "matches no certificate", "")
		}
	}
}

// checkStateDir refuses outputs in the state directory, however the way there is written: what the program keeps there must
// not be written over.
func (l *loader) checkStateDir(dirs []place) {
	state := l.config.StateDir
	ways := links{}
	real := ways.resolve(state, 0)
	for i, o := range l.config.Outputs {
		for _, cert := range l.config.Certificates {
			if !o.Matches(cert.Name) {
				continue
			}
			dir := strings.ReplaceAll(o.Dir, "{name}", cert.Name)
			led := ways.resolve(dir, 0)
			if !inside(dir, state) && !inside(led, real) {
				continue
			}
			verb := "is in"
			if !inside(dir, state) {
				verb = "leads into"
			}
			l.fail(dirs[i], fmt.Sprintf("%q %s the state directory, %s, where only autocertd itself writes", shorten(dir), verb, state), "choose another folder; without any output the files are in "+filepath.Join(state, "live", "NAME"))
			break
		}
	}
}

// inside reports whether a cleaned path is a folder or something below it.
func inside(path, folder string) bool {
	rest, found := strings.CutPrefix(path, folder)
	return found && (rest == "" || rest[0] == '/' || folder == "/")
}

// links remembers where folders lead.
type links map[string]folder

// folder is a folder after all symbolic links on its path.
type folder struct {
	real   string
	absent bool
}

// resolve follows the symbolic links in an absolute path, of which the end need not exist. It remembers the folders on the
// way, and not the end: there may be many thousands.
func (k links) resolve(path string, depth int) string { return k.follow(path, depth).real }

func (k links) follow(path string, depth int) folder {
	const deepest = 40 // as for the kernel
	if path == "/" || path == "." || depth > deepest {
		return folder{real: path}
	}
	dir := filepath.Dir(path)
	above, known := k[dir]
	if !known {
		above = k.follow(dir, depth)
		k[dir] = above
	}
	end := folder{filepath.Join(above.real, filepath.Base(path)), above.absent}
	if end.absent {
		return end
	}
	target, err := os.Readlink(end.real)
	if err != nil {
		end.absent = errors.Is(err, fs.ErrNotExist)
		return end
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(above.real, target)
	}
	return k.follow(filepath.Clean(target), depth+1)
}

// files returns what the output writes for a certificate.
func (o Output) files(name string) []string {
	dir := strings.ReplaceAll(o.Dir, "{name}", name)
	if o.Format == "combined" {
		return []string{filepath.Join(dir, strings.ReplaceAll(o.File, "{name}", name))}
	}
	var files []string
	for _, file := range []string{"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"} {
		files = append(files, filepath.Join(dir, file))
	}
	return files
}
