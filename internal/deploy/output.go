package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"autocertd/internal/durable"
	"autocertd/internal/suggest"
)

// The formats of an [Output].
const (
	FormatPEM      = "pem"      // cert.pem, chain.pem, fullchain.pem and privkey.pem in a directory
	FormatCombined = "combined" // one file: leaf, chain, key, or the key first
)

// The orders of a combined file.
const (
	keyLast  = "key-last"
	keyFirst = "key-first" // as Postfix wants it
)

// Output is one place where a bundle goes, and what has to happen once it is there.
type Output struct {
	Match []string `json:"-"` // patterns on the names of certificates, as of path.Match; of an output of [Outputs]

	Dir    string // absolute, may hold {name}; created with mode 0755 where absent, otherwise left as it is
	File   string // of format combined, may hold {name}; empty: "{name}.pem"
	Format string // empty: FormatPEM

	KeyFirst bool // of format combined: the key comes before the leaf; else last

	Owner, Group string      // of the files, name or number; empty: those of the daemon, and not looked at
	Mode         fs.FileMode // of files that hold a key, 0: 0600; all others have 0644

	Reload []string   // systemd units
	Run    [][]string // argument lists; {name} is replaced in each
}

// options are the keys of an [[output]], each nil where it isn't there.
type options struct {
	Dir    *string    `toml:"dir"`
	File   *string    `toml:"file"`
	Format *string    `toml:"format"`
	Order  *string    `toml:"order"`
	Owner  *string    `toml:"owner"`
	Group  *string    `toml:"group"`
	Mode   *string    `toml:"mode"`
	Reload []string   `toml:"reload"`
	Run    [][]string `toml:"run"`
}

// Keys returns the keys of an [[output]] that are read here.
func Keys() (keys []string) {
	for field := range reflect.TypeFor[options]().Fields() {
		keys = append(keys, field.Tag.Get("toml"))
	}
	return keys
}

// Table is an [[output]] of the configuration, and the means to read it and to report what is wrong in it.
type Table struct {
	Match []string // patterns on the names of certificates; nil when one is wrong
	At    string   // its place, for messages

	// Decode decodes the keys into a pointer to a struct with toml tags. It reports unknown keys and wrong types itself.
	Decode func(dst any) error
	// Fail reports a mistake at a key, or at one entry of its list; Warn what works, but hardly as intended. Of a key whose
	// type is wrong nothing more is reported.
	Fail, Warn func(key string, entry int, problem, cure string)
}

// Certificate is a certificate of the configuration, for the checks of [NewOutputs].
type Certificate struct {
	Name         string
	KeyElsewhere bool // than in the bundle
}

// Outputs are all outputs of a configuration.
type Outputs struct {
	List []Output // in the order of the configuration
	live Output   // of the certificates that no other is for
}

// Of returns the outputs of the named certificate: when none is for it, <state_dir>/live/NAME.
func (o Outputs) Of(name string) (list []Output) {
	for _, output := range o.List {
		if output.matches(name) {
			list = append(list, output)
		}
	}
	if len(list) == 0 {
		list = []Output{o.live}
	}
	return list
}

// NewOutputs builds the outputs of a configuration from their tables, and reports what is wrong in each and between them.
func NewOutputs(tables []Table, certificates []Certificate, stateDir string) Outputs {
	all := Outputs{live: Output{Dir: filepath.Join(stateDir, "live", "{name}"), Format: FormatPEM, Mode: secretMode}}
	sound := true
	for i := range tables {
		b := builder{table: tables[i], sound: tables[i].Match != nil}
		all.List = append(all.List, b.output(certificates))
		sound = sound && b.sound
	}
	if sound { // targets that are wrong in themselves can't be compared
		all.checkTargets(tables, certificates)
		all.checkStateDir(tables, certificates, stateDir)
	}
	return all
}

// builder makes an output of a table.
type builder struct {
	table Table
	sound bool // no mistake was reported yet
}

func (b *builder) fail(key string, entry int, problem, cure string) {
	b.sound = false
	b.table.Fail(key, entry, problem, cure)
}

func (b *builder) output(certificates []Certificate) Output {
	var raw options
	if b.table.Decode(&raw) != nil {
		b.sound = false
	}
	o := Output{
		Match:  b.table.Match,
		Dir:    b.absolute("dir", raw.Dir),
		Format: b.oneOf("format", raw.Format, FormatPEM, FormatCombined),
		Owner:  b.account("owner", raw.Owner),
		Group:  b.account("group", raw.Group),
		Mode:   b.mode("mode", raw.Mode),
		Reload: b.units("reload", raw.Reload),
		Run:    b.commands("run", raw.Run),
	}
	if raw.Dir == nil {
		b.fail("dir", 0, "has no dir", `dir = "/etc/ssl/autocertd/{name}"`)
	}
	b.combined(&o, raw)
	literal := len(o.Match) == 1 && !strings.ContainsAny(o.Match[0], `*?[\`)
	if raw.Dir != nil && !literal && !strings.Contains(o.Dir+o.File, "{name}") {
		b.fail("dir", 0, "several certificates would be written to the same files", "put {name} into it, or one name into match")
	}
	for _, c := range certificates {
		if o.Format == FormatCombined && c.KeyElsewhere && o.matches(c.Name) {
			b.fail("format", 0, fmt.Sprintf("the files hold the key, and that of certificate %q is elsewhere", c.Name),
				`write other names into match, or format = "pem"`)
		}
	}
	return o
}

// combined takes the keys that only a combined file has.
func (b *builder) combined(o *Output, raw options) {
	if o.Format != FormatCombined {
		if raw.File != nil {
			b.fail("file", 0, `is for format = "combined"`, "the format pem has fixed file names")
		}
		if raw.Order != nil {
			b.fail("order", 0, `is for format = "combined"`, "the format pem has the key in a file of its own")
		}
		return
	}
	o.KeyFirst = b.oneOf("order", raw.Order, keyLast, keyFirst) == keyFirst
	o.File = "{name}.pem"
	if raw.File == nil {
		return
	}
	o.File = *raw.File
	b.placeholders("file", 0, o.File)
	if o.File == "" || o.File == "." || o.File == ".." || strings.ContainsAny(o.File, "/\x00") {
		b.fail("file", 0, fmt.Sprintf("%q must be a file name without a folder", shorten(o.File)), "the folder is dir")
	}
}

// absolute returns a path in its shortest spelling.
func (b *builder) absolute(key string, value *string) string {
	if value == nil {
		return ""
	}
	if !filepath.IsAbs(*value) || strings.Contains(*value, "\x00") {
		b.fail(key, 0, fmt.Sprintf("%q must be an absolute path", shorten(*value)), "")
	} else if strings.ContainsFunc(*value, unicode.IsControl) {
		b.fail(key, 0, fmt.Sprintf("%q holds a control character", shorten(*value)), "such as a line break; write the path without it")
	}
	b.placeholders(key, 0, *value)
	return filepath.Clean(*value)
}

// oneOf returns the value of a key that knows a few words, the first of which is the default.
func (b *builder) oneOf(key string, value *string, words ...string) string {
	if value == nil {
		return words[0]
	}
	if !slices.Contains(words, *value) {
		b.fail(key, 0, fmt.Sprintf("%q must be one of %s", shorten(*value), strings.Join(words, ", ")), suggest.DidYouMean(*value, words))
		return words[0]
	}
	return *value
}

var accountName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?$`)

// account returns the name or number of an owner or a group. One that this machine doesn't know is no mistake: it may come
// with a package, and other certificates need not wait for that.
func (b *builder) account(key string, value *string) string {
	if value == nil {
		return ""
	}
	if !accountName.MatchString(*value) {
		b.fail(key, 0, fmt.Sprintf("%q is no name of a user or group", shorten(*value)), "")
		return *value
	}
	kind, database, create, lookup := "user", "/etc/passwd", "useradd --system ", lookupUser
	if key == "group" {
		kind, database, create, lookup = "group", "/etc/group", "groupadd --system ", lookupGroup
	}
	_, err := lookup(*value)
	_, noUser := errors.AsType[user.UnknownUserError](err)
	_, noGroup := errors.AsType[user.UnknownGroupError](err)
	if noUser || noGroup {
		b.table.Warn(key, 0, fmt.Sprintf("this machine has no %s %q, so the files can't be written", kind, shorten(*value)),
			cmp.Or(suggest.DidYouMean(*value, accountsIn(database)), create+*value))
	}
	return *value
}

// accountsIn returns the names of a file such as /etc/group, none when it can't be read.
func accountsIn(database string) (names []string) {
	data, err := durable.Read(database, 4<<20)
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

func (b *builder) mode(key string, value *string) fs.FileMode {
	if value == nil {
		return secretMode
	}
	bits, err := strconv.ParseUint(*value, 8, 32)
	mode := fs.FileMode(bits)
	switch {
	case err != nil || mode > fs.ModePerm:
		b.fail(key, 0, fmt.Sprintf("%q is no mode", shorten(*value)), `an octal number in quotation marks, such as "0640"`)
	case mode&0o111 != 0:
		b.fail(key, 0, "a key isn't executable", `such as "0600" or "0640"`)
	case mode&0o002 != 0:
		b.fail(key, 0, "a key that everyone may write is nobody's", `such as "0600" or "0640"`)
	case mode&0o400 == 0:
		b.fail(key, 0, "the owner must be able to read the key", `such as "0600" or "0640"`)
	case mode&0o004 != 0:
		b.table.Warn(key, 0, "everyone on this machine may read the keys", `"0640" with group lets one group read them`)
	}
	return mode
}

var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(service|socket|target|path|timer)$`)

func (b *builder) units(key string, units []string) []string {
	for i, unit := range units {
		if len(unit) > 255 || !unitName.MatchString(unit) {
			b.fail(key, i, fmt.Sprintf("%q is no name of a systemd unit", shorten(unit)), `such as "nginx.service"`)
		}
	}
	return units
}

// commands returns the commands of run. No shell is between, so the first word is the program itself.
func (b *builder) commands(key string, commands [][]string) [][]string {
	for i, args := range commands {
		if !filepath.IsAbs(program(args)) {
			b.fail(key, i, "a command begins with the absolute path of a program", `run = [["/usr/local/bin/push-cert", "{name}"]]`)
		}
		for _, word := range args {
			if strings.Contains(word, "\x00") {
				b.fail(key, i, "a command can't hold a zero byte", "")
			}
			b.placeholders(key, i, word)
		}
	}
	return commands
}

var placeholder = regexp.MustCompile(`\{[A-Za-z_]+\}`)

// placeholders refuses what looks like a placeholder and isn't one.
func (b *builder) placeholders(key string, entry int, text string) {
	for _, found := range placeholder.FindAllString(text, -1) {
		if found != "{name}" {
			b.fail(key, entry, fmt.Sprintf("unknown placeholder %s", shorten(found)), "{name} is the certificate's name")
		}
	}
}

// shorten keeps a message readable when a value is absurdly long.
func shorten(text string) string {
	const most = 80
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// checkTargets refuses two writers of one file, and warns of outputs that nothing is written to.
func (o Outputs) checkTargets(tables []Table, certificates []Certificate) {
	writers := map[string]int{}
	reported := map[[2]int]bool{}
	for i, output := range o.List {
		used := false
		for _, c := range certificates {
			if !output.matches(c.Name) {
				continue
			}
			used = true
			if len(o.List) == 1 {
				break
			}
			for _, file := range output.Files(c.Name, c.KeyElsewhere) {
				other, taken := writers[file]
				if taken && !reported[[2]int{other, i}] {
					reported[[2]int{other, i}] = true
					tables[i].Fail("", 0, fmt.Sprintf("%q is written by the output at %s too", file, tables[other].At), "give each output a dir of its own")
				}
				writers[file] = i
			}
		}
		if !used {
			tables[i].Warn("", 0, "matches no certificate", "")
		}
	}
}

// checkStateDir refuses outputs in the state directory, however the way there is written: what the program keeps there must
// not be written over.
func (o Outputs) checkStateDir(tables []Table, certificates []Certificate, state string) {
	ways := links{}
	real := ways.resolve(state, 0)
	for i, output := range o.List {
		for _, c := range certificates {
			if !output.matches(c.Name) {
				continue
			}
			dir := output.dir(c.Name)
			inside, led := below(dir, state), below(ways.resolve(dir, 0), real)
			if !inside && !led {
				continue
			}
			verb := "is in"
			if !inside {
				verb = "leads into"
			}
			tables[i].Fail("dir", 0, fmt.Sprintf("%q %s the state directory, %s, where only autocertd itself writes", shorten(dir), verb, state),
				"choose another folder; without any output the files are in "+filepath.Join(state, "live", "NAME"))
			break
		}
	}
}

// links remembers where folders lead.
type links map[string]way

// way is a folder after all symbolic links on its path.
type way struct {
	real   string
	absent bool
}

// resolve follows the symbolic links in an absolute path, of which the end need not exist. It remembers the folders on the
// way, and not the end: there may be many thousands.
func (k links) resolve(path string, depth int) string { return k.follow(path, depth).real }

func (k links) follow(path string, depth int) way {
	const deepest = 40 // as for the kernel
	if path == "/" || path == "." || depth > deepest {
		return way{real: path}
	}
	dir := filepath.Dir(path)
	above, known := k[dir]
	if !known {
		above = k.follow(dir, depth)
		k[dir] = above
	}
	end := way{filepath.Join(above.real, filepath.Base(path)), above.absent}
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

// below reports whether a cleaned path is a folder, or in it.
func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// matches reports whether the output is for the named certificate.
func (o Output) matches(name string) bool {
	return slices.ContainsFunc(o.Match, func(pattern string) bool {
		ok, _ := path.Match(pattern, name) // the configuration has refused patterns that are malformed
		return ok
	})
}

// ID returns where the output writes for the named certificate. It stays the same as long as that does.
func (o Output) ID(name string) string {
	if o.Format == FormatCombined {
		return filepath.Join(o.dir(name), o.file(name))
	}
	return o.dir(name)
}

// Files returns the files that the output writes for the named certificate, as services know them. That of the key is
// missing where the key is elsewhere than in the bundle.
func (o Output) Files(name string, keyElsewhere bool) (files []string) {
	if o.Format == FormatCombined {
		return []string{o.ID(name)}
	}
	for _, file := range []string{"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"} {
		if file != "privkey.pem" || !keyElsewhere {
			files = append(files, filepath.Join(o.dir(name), file))
		}
	}
	return files
}

func (o Output) dir(name string) string { return filepath.Clean(expand(o.Dir, name)) }

// fixedDir is the part of Dir that is the same for every certificate.
func (o Output) fixedDir() string {
	before, _, named := strings.Cut(o.Dir, "{name}")
	if !named {
		return filepath.Clean(o.Dir)
	}
	return filepath.Dir(before + "x")
}

func (o Output) file(name string) string {
	if o.File == "" {
		return name + ".pem"
	}
	return expand(o.File, name)
}

func expand(s, name string) string { return strings.ReplaceAll(s, "{name}", name) }
