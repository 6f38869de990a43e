package migrate

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"autocertd/internal/printable"
)

// A Hook is one way by which a client had something done after a renewal, or before it.
type Hook struct {
	Kind    string   // what sets it up: "renew_hook"
	In      []string // where that stands: "renewal/www.conf"
	Command string   // as it stands there, without what may be a secret; a description, where there is none
	Units   []string // what of it is reload = […] here
	Whole   bool     // Units is all that it did
	For     []string // certificates, by the client's names; nil: all
	notes   string   // what to think of
}

// A Copy is a file that a client wrote for a service, beside its own.
type Copy struct {
	For  string // the certificate
	What string // "privkey.pem", as it is called here
	Path string
}

// hook notes a command that ran after a renewal of the certificates, and what of it is a reload.
func (r *reader) hook(kind, in, command string, certificates ...string) {
	command = strings.TrimSpace(command)
	if command == "" || command == "None" {
		return
	}
	h := Hook{Kind: kind, In: []string{in}, Command: withoutSecrets(command), For: certificates}
	h.Units, h.Whole, h.notes = reloads(command)
	if file := onlyProgram(command); len(h.Units) == 0 && file != "" {
		r.lookInto(&h, file)
	}
	r.addHook(h)
}

// onlyProgram is the file that a command line runs, with whatever arguments, if that is all that it does.
func onlyProgram(text string) string {
	list := commands(text)
	if len(list) != 1 || list[0].complex {
		return ""
	}
	words := bare(list[0].words)
	if len(words) > 1 && shells.MatchString(path.Base(words[0])) && !strings.HasPrefix(words[1], "-") {
		words = words[1:]
	}
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// script notes a program in a folder of hooks.
func (r *reader) script(kind, file string) {
	h := Hook{Kind: kind, In: []string{filepath.Base(file)}}
	r.lookInto(&h, file)
	r.addHook(h)
}

// lookInto finds reloads in a script, if it is one and lies in the client's own folder.
func (r *reader) lookInto(h *Hook, file string) {
	const most = 64 << 10
	rel, err := filepath.Rel(r.Dir, file)
	if err != nil || !filepath.IsLocal(rel) {
		return
	}
	text, err := readFile(file)
	if err != nil || len(text) > most || !strings.HasPrefix(string(text), "#!") {
		return
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	if !shells.MatchString(first) {
		return
	}
	h.Units, h.Whole, h.notes = reloads(rest)
}

// addHook takes a hook, once for all certificates that have the same one.
func (r *reader) addHook(h Hook) {
	for i, known := range r.Hooks {
		if known.Kind == h.Kind && known.Command == h.Command && h.Command != "" && len(known.For) > 0 && len(h.For) > 0 {
			r.Hooks[i].In, r.Hooks[i].For = append(known.In, h.In...), append(known.For, h.For...)
			return
		}
	}
	r.Hooks = append(r.Hooks, h)
}

// copied notes a file that the client wrote for a service.
func (r *reader) copied(certificate, what, file string) {
	if file != "" {
		r.Copies = append(r.Copies, Copy{For: certificate, What: what, Path: file})
	}
}

// LeftOut is what was done by hooks and isn't taken over, a sentence each.
func (t *Tree) LeftOut() (list []string) {
	for _, h := range t.Hooks {
		if !h.Whole {
			list = append(list, h.describe())
		}
	}
	for _, c := range t.Copies {
		list = append(list, fmt.Sprintf("%s at %s, for %s: nobody renews that file any more; an output does", c.What, oneLine(c.Path), oneLine(c.For)))
	}
	return list
}

// describe is a hook in a line.
func (h Hook) describe() string {
	text := oneLine(h.Kind)
	if len(h.In) > 0 {
		text += " in " + oneLine(h.In[0])
	}
	if n := len(h.In) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	if h.Command != "" {
		text += ": " + oneLine(h.Command)
	}
	return text
}

// unitName is what systemd and the configuration take for the name of a service, with or without its kind.
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*$`)

// units gives names of units their kind.
func units(names []string) (list []string, ok bool) {
	for _, name := range names {
		if !unitName.MatchString(name) || len(name) > 200 {
			return nil, false
		}
		switch path.Ext(name) {
		case ".service", ".socket", ".target", ".path", ".timer":
		case ".mount", ".automount", ".swap", ".slice", ".scope", ".device":
			return nil, false // no unit of the sort that an output reloads
		default:
			name += ".service"
		}
		list = append(list, name)
	}
	return list, len(list) > 0
}

// keywords stand before a command that may run, and aren't one.
var keywords = []string{"if", "then", "elif", "else", "while", "until", "do", "{", "!"}

// reloads finds the reloads of services in a command line or a script. whole says that there is nothing else in it.
func reloads(text string) (list []string, whole bool, note string) {
	whole = true
	add := func(found []string) {
		for _, unit := range found {
			if !slices.Contains(list, unit) {
				list = append(list, unit)
			}
		}
	}
	for _, c := range commands(text) {
		if c.after == "||" && len(c.words) == 1 && (c.words[0] == "true" || c.words[0] == ":") {
			continue
		}
		words := c.words
		for len(words) > 0 && slices.Contains(keywords, words[0]) {
			words, whole = words[1:], false // when it is reloaded, a person has to see
		}
		found, restart, ok := reload(words)
		known := !slices.ContainsFunc(found, func(unit string) bool { return !slices.Contains(list, unit) })
		if c.after == "||" && known && ok && !c.complex {
			continue // another way to the same
		}
		if c.after == "||" || c.after == "|" || c.complex {
			whole = false
			continue
		}
		whole = whole && ok
		if restart {
			note = "it was restarted, and is reloaded here where it can be"
		}
		add(found)
	}
	return list, whole && len(list) > 0, note
}

// ownReload is the service that a program reloads in a way of its own.
func ownReload(command string) string {
	switch command {
	case "nginx -s reload":
		return "nginx.service"
	case "postfix reload":
		return "postfix.service"
	case "dovecot reload", "doveadm reload":
		return "dovecot.service"
	case "apachectl graceful", "apachectl -k graceful", "apache2ctl graceful", "apache2ctl -k graceful", "apache2 -k graceful":
		return "apache2.service"
	case "httpd graceful", "httpd -k graceful":
		return "httpd.service"
	}
	return ""
}

// reload is what a simple command reloads or restarts. ok is false for a command that does anything else too; one that does
// nothing reloads nothing.
func reload(words []string) (list []string, restart, ok bool) {
	words = bare(words)
	if len(words) == 0 {
		return nil, false, true
	}
	program, args := path.Base(words[0]), words[1:]
	switch program {
	case "true", ":":
		return nil, false, true
	case "set":
		return nil, false, len(args) == 1
	case "exit":
		return nil, false, slices.Equal(args, []string{"0"})
	case "systemctl":
		return systemctl(args)
	case "sh", "bash", "dash", "ash", "ksh", "zsh":
		for len(args) > 1 && strings.HasPrefix(args[0], "-") && !strings.HasSuffix(args[0], "c") {
			args = args[1:]
		}
		if len(args) < 2 || !strings.HasPrefix(args[0], "-") {
			return nil, false, false
		}
		list, whole, note := reloads(args[1])
		return list, note != "", whole
	case "service", "invoke-rc.d":
		if len(args) != 2 {
			return nil, false, false
		}
		return systemctl([]string{args[1], args[0]})
	}
	if path.Dir(words[0]) == "/etc/init.d" && len(args) == 1 {
		return systemctl([]string{args[0], program})
	}
	if unit := ownReload(strings.Join(append([]string{program}, args...), " ")); unit != "" {
		return []string{unit}, false, true
	}
	return nil, false, false
}

// bare takes off a command what only says how it runs: as whom, with which environment, for how long.
func bare(words []string) []string {
	for len(words) > 0 {
		values := "" // the options of one letter that have a value in the next word
		operands := 0
		switch path.Base(words[0]) {
		case "sudo", "doas":
			values = "ugCDRTpU"
		case "env":
			values = "uCS"
		case "nice":
			values = "n"
		case "ionice":
			values = "cn"
		case "timeout":
			values, operands = "ks", 1
		case "exec", "command", "nohup", "setsid", "time", "chronic":
		default:
			if !assignment.MatchString(words[0]) {
				return words
			}
		}
		for words = words[1:]; len(words) > 0 && strings.HasPrefix(words[0], "-"); words = words[1:] {
			if len(words[0]) == 2 && strings.Contains(values, words[0][1:]) && len(words) > 1 {
				words = words[1:]
			}
		}
		words = words[min(operands, len(words)):]
	}
	return nil
}

// systemctl is what systemctl reloads or restarts when it has the arguments.
func systemctl(args []string) (list []string, restart, ok bool) {
	var words []string
	for _, a := range args {
		switch a {
		case "-q", "--quiet", "--no-block", "--system", "--no-ask-password", "--no-pager", "-l", "--full", "--":
		default:
			words = append(words, a)
		}
	}
	if len(words) < 2 {
		return nil, false, false
	}
	switch words[0] {
	case "restart", "try-restart", "condrestart":
		restart = true
	case "reload", "reload-or-restart", "try-reload-or-restart", "reload-or-try-restart", "force-reload":
	default:
		return nil, false, false
	}
	list, ok = units(words[1:])
	return list, restart, ok
}

// command is a simple command in a line or script.
type command struct {
	words   []string
	after   string // the operator before it
	complex bool   // it does more than its words say: it writes a file, reads one, runs others
}

// commands splits a text into simple commands, as a shell does. Nothing is run, and words that a shell would replace stay.
func commands(text string) (list []command) {
	c := command{}
	end := func(operator string) {
		if len(c.words) > 0 || c.complex {
			list = append(list, c)
		}
		c = command{after: operator}
	}
	for text != "" {
		switch {
		case strings.HasPrefix(text, "&&"), strings.HasPrefix(text, "||"), strings.HasPrefix(text, ";;"):
			end(text[:2])
			text = text[2:]
		case strings.HasPrefix(text, "\\\n"):
			text = text[2:]
		case strings.ContainsRune(";&\n", rune(text[0])):
			end("")
			text = text[1:]
		case text[0] == '|':
			c.complex = true // its output goes on
			end("|")
			text = text[1:]
		case text[0] == '(' || text[0] == ')': // commands of their own, a function, a case
			if n := len(c.words); n > 0 && strings.HasSuffix(c.words[n-1], "=") {
				end("")
				c.complex = true // words of a list
			} else {
				end("")
			}
			text = text[1:]
		case text[0] == '<' || text[0] == '>':
			var quiet bool
			if text, quiet = redirection(text); !quiet {
				c.complex = true
			}
		case text[0] == ' ' || text[0] == '\t' || text[0] == '\r':
			text = text[1:]
		case text[0] == '#':
			text = text[len(text)-len(strings.TrimLeft(text, "#")):]
			if at := strings.IndexByte(text, '\n'); at >= 0 {
				text = text[at:]
			} else {
				text = ""
			}
		default:
			word, n := shellWord(text, nil)
			text = text[max(n, 1):]
			if (word == "1" || word == "2") && strings.HasPrefix(text, ">") {
				continue // the number of a redirection
			}
			c.complex = c.complex || strings.ContainsAny(word, "`") || strings.Contains(word, "$(")
			c.words = append(c.words, word)
		}
	}
	end("")
	return list
}

// redirection takes a redirection off a text. quiet says that it only silences the command.
func redirection(text string) (rest string, quiet bool) {
	if found := silent.FindString(text); found != "" {
		return text[len(found):], true
	}
	return text[1:], false
}

var (
	silent    = regexp.MustCompile(`^(>>?\s*/dev/null\b|>&\s*[12]\b|<\s*/dev/null\b)`)
	longRun   = regexp.MustCompile(`[A-Za-z0-9+=]{24,}`)
	shells    = regexp.MustCompile(`\b(sh|bash|dash|ash|ksh|zsh)\b`)
	secretive = regexp.MustCompile(`(?i)(token|secret|pass|pwd|auth|cred|api|key|bearer|cookie|sign)`)
	harmless  = regexp.MustCompile(`^[A-Za-z0-9_./:@{}$%+,~\[\]=*?!-]+$`)
	userinfo  = regexp.MustCompile(`://[^/\s]*@`)
	mixed     = regexp.MustCompile(`[A-Za-z].*[0-9]|[0-9].*[A-Za-z]`)
	uuid      = regexp.MustCompile(`[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}`)
	programs  = regexp.MustCompile(`^[a-z][a-z._+-]{0,15}([0-9]{1,2}[a-z._+-]{1,8})?[0-9]{0,2}$`)
	login     = regexp.MustCompile(`^[a-z][a-z-]{0,15}@[a-z][a-z0-9.-]{0,39}$`)
	flag      = regexp.MustCompile(`^--?[A-Za-z][A-Za-z0-9-]*$`)
)

// hiddenWord stands for a word that may be a secret.
const hiddenWord = "…"

// withoutSecrets is a command line as it may be shown: words that may be secrets are replaced. Paths, options, names of
// units, hostnames and variables stay; what follows an option or a variable with a telling name doesn't, nor does what
// looks like a token.
func withoutSecrets(text string) string {
	var b strings.Builder
	next, first := false, true // the word after a telling option; the name of a program
	for text = printable.Lines(strings.TrimSpace(strings.ReplaceAll(text, "\\\n", " "))); text != ""; {
		switch c := text[0]; {
		case c == '\n':
			if !first {
				b.WriteByte(';')
			}
			b.WriteByte(' ')
			text, first, next = text[1:], true, false
			continue
		case strings.ContainsRune(" \t\r;&|()<>", rune(c)):
			first = first || strings.ContainsRune(";&|(", rune(c))
			b.WriteByte(c)
			text = text[1:]
			continue
		case c == '#': // a comment
			text = text[len(text)-len(strings.TrimLeft(text, "#")):]
			if text = text[max(strings.IndexByte(text, '\n'), 0):]; !strings.HasPrefix(text, "\n") {
				text = ""
			}
			continue
		}
		word, n := shellWord(text, nil)
		n = max(n, 1)
		b.WriteString(shownWord(word, text[:n], next, first))
		next = flag.MatchString(word) && (secretive.MatchString(word) || word == "-u" || word == "-p" || word == "-H")
		first = false
		text = text[n:]
	}
	return strings.TrimRight(strings.ReplaceAll(strings.Join(strings.Fields(b.String()), " "), " ;", ";"), "; ")
}

// shownWord is a word as it may be shown. raw is what stands there, with its quotes; first says that it names a program.
func shownWord(word, raw string, hide, first bool) string {
	name, value, assigned := strings.Cut(word, "=")
	switch {
	case first && programs.MatchString(word), !hide && login.MatchString(word):
		return raw
	case !hide && strings.ContainsAny(word, " ;"): // a command line for a shell
		if units, _, _ := reloads(word); len(units) > 0 {
			return raw[:1] + withoutSecrets(word) + raw[len(raw)-1:]
		}
	case hide, userinfo.MatchString(word):
		return hiddenWord
	case assigned && (secretive.MatchString(name) || !open(value)):
		return strings.TrimFunc(name, func(r rune) bool { return !strings.ContainsRune("-_", r) && !isWord(r) }) + "=" + hiddenWord
	case assigned || open(word):
		return raw
	}
	return hiddenWord
}

func isWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// open reports whether a word is certainly no secret.
func open(word string) bool {
	const longest = 8 // what has letters and digits and is longer may be a token
	switch {
	case word == "":
		return true
	case !harmless.MatchString(word), uuid.MatchString(word):
		return false
	case strings.ContainsAny(word[:1], "/.$~-") || strings.Contains(word, "."):
		// A path, a variable, an option, a hostname: none of them is made of long runs of letters and digits.
		return !slices.ContainsFunc(longRun.FindAllString(word, -1), mixed.MatchString)
	}
	return !mixed.MatchString(word) && len(word) < 32 || len(word) < longest
}
