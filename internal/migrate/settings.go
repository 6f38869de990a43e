package migrate

import (
	"encoding/base64"
	"regexp"
	"strings"

	"autocertd/internal/durable"
	"autocertd/internal/printable"
)

const (
	maxSettings = 256 << 10 // bytes that are read of a file of settings
	maxExpanded = 1 << 10   // bytes of a value with variables in it, which may hold one another
)

// readSettings reads a file of settings; none, where it can't be read.
func readSettings(path string) string {
	data, err := durable.Read(path, maxSettings)
	if err != nil {
		return ""
	}
	return string(data)
}

// Each client has a format of its own for settings, with its own quotes and comments. A file that can't be read has none,
// and a line that isn't understood is passed over: these readers look for a few known keys, and judge nothing.

// readConfigObj reads a file of certbot's, which it reads by ConfigObj: renewal/NAME.conf and the files of its DNS plugins.
// Keys of deeper sections, such as those of webroots, are left out.
func readConfigObj(path string) map[string]string {
	return parseConfigObj(readSettings(path))
}

func parseConfigObj(text string) map[string]string {
	set := map[string]string{}
	depth := 0
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			depth = len(line) - len(strings.TrimLeft(line, "["))
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.Trim(strings.TrimSpace(key), `"'`), strings.TrimSpace(value)
		if !ok || key == "" || strings.HasPrefix(line, "#") || depth > 1 {
			continue
		}
		if len(value) >= 3 && (value[:3] == `"""` || value[:3] == `'''`) { // it may go over lines
			inner, _, closed := strings.Cut(value[3:], value[:3])
			if !closed {
				var more string
				more, text, _ = strings.Cut(text, value[:3])
				inner += "\n" + more
				_, text, _ = strings.Cut(text, "\n") // a comment
			}
			set[key] = strings.TrimSpace(inner)
			continue
		}
		set[key] = configObjValue(value)
	}
	return set
}

// configObjValue takes the quotes and the comment off a value. The items of a list are joined as they were.
func configObjValue(text string) string {
	var items []string
	for rest := text; ; {
		rest = strings.TrimLeft(rest, " \t")
		var item string
		if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
			end := strings.IndexByte(rest[1:], rest[0])
			if end < 0 {
				return text // it isn't closed: nothing of it can be told apart
			}
			item, rest = rest[1:end+1], strings.TrimLeft(rest[end+2:], " \t")
			if rest != "" && rest[0] != ',' && rest[0] != '#' {
				return text
			}
		} else {
			end := strings.IndexAny(rest, ",#")
			if end < 0 {
				end = len(rest)
			}
			item, rest = strings.TrimSpace(rest[:end]), rest[end:]
		}
		items = append(items, item)
		if rest == "" || rest[0] == '#' {
			return strings.TrimSuffix(strings.Join(items, ", "), ", ")
		}
		rest = rest[1:]
	}
}

// readIni reads certbot's cli.ini: options of the command line without their dashes, as ConfigArgParse has them.
func readIni(path string) map[string]string {
	return parseIni(readSettings(path))
}

func parseIni(text string) map[string]string {
	set := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.ContainsRune("#;[-", rune(line[0])) {
			continue
		}
		end := strings.IndexAny(line, "=: \t")
		if end < 0 {
			set[strings.ReplaceAll(line, "_", "-")] = "true"
			continue
		}
		value := strings.TrimSpace(line[end:])
		if value != "" && (value[0] == '=' || value[0] == ':') {
			value = strings.TrimSpace(value[1:])
		}
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') {
			if inner, _, closed := strings.Cut(value[1:], value[:1]); closed {
				set[strings.ReplaceAll(line[:end], "_", "-")] = inner
				continue
			}
		}
		if at := comment.FindStringIndex(value); at != nil {
			value = strings.TrimSpace(value[:at[0]])
		}
		set[strings.ReplaceAll(line[:end], "_", "-")] = value
	}
	return set
}

// readShell reads the assignments of a file that a shell reads, as those of acme.sh and dehydrated are. Variables that are
// known, in the file itself or by the caller, are replaced; what a shell alone could tell stays as it stands there.
func readShell(path string, known map[string]string) map[string]string {
	set := map[string]string{}
	for key, value := range known {
		set[key] = value
	}
	parseShell(readSettings(path), set)
	return set
}

var (
	assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
	comment    = regexp.MustCompile(`\s[#;]`)
)

// parseShell adds the assignments of a text to set.
func parseShell(text string, set map[string]string) {
	begin := true // of a command, where assignments are
	for text != "" {
		switch c := text[0]; {
		case c == '\n' || strings.ContainsRune(";&|(){}", rune(c)):
			text, begin = text[1:], true
			continue
		case c == ' ' || c == '\t' || c == '\r':
			text = text[1:]
			continue
		case c == '#':
			_, text, _ = strings.Cut(text, "\n")
			begin = true
			continue
		}
		if name := assignment.FindString(text); begin && name != "" {
			value, n := shellWord(text[len(name):], set)
			set[strings.TrimSuffix(name, "=")] = unwrap(value)
			text = text[len(name)+n:]
			continue
		}
		word, n := shellWord(text, nil)
		switch word {
		case "export", "readonly", "declare", "-x", "-r", "then", "else", "do":
		default:
			begin = false
		}
		text = text[max(n, 1):]
	}
}

// shellWord reads one word from the beginning of a text, without its quotes, and says how long it was there. Variables in set
// are replaced.
func shellWord(text string, set map[string]string) (word string, n int) {
	var b strings.Builder
	double := false
	for n < len(text) {
		switch c := text[n]; {
		case c == '\'' && !double:
			end := strings.IndexByte(text[n+1:], '\'')
			if end < 0 {
				end = len(text) - n - 1
			}
			b.WriteString(text[n+1 : n+1+end])
			n = min(n+end+2, len(text))
		case c == '"':
			double = !double
			n++
		case c == '\\' && n+1 < len(text):
			next := text[n+1]
			if double && !strings.ContainsRune("$`\"\\\n", rune(next)) {
				b.WriteByte('\\')
			}
			if next != '\n' {
				b.WriteByte(next)
			}
			n += 2
		case c == '$':
			value, length := expansion(text[n:], set)
			if b.Len()+len(value) > maxExpanded {
				value = text[n : n+length]
			}
			b.WriteString(value)
			n += length
		case c == '`':
			end := strings.IndexByte(text[n+1:], '`')
			if end < 0 {
				end = len(text) - n - 2
			}
			b.WriteString(text[n : n+end+2])
			n += end + 2
		case !double && strings.ContainsRune(" \t\r\n;&|()<>", rune(c)):
			return b.String(), n
		default:
			b.WriteByte(c)
			n++
		}
	}
	return b.String(), n
}

var variable = regexp.MustCompile(`^\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::?[-=]([^}$]*))?\})`)

// expansion is what stands for a variable at the beginning of a text, and how long that was. What isn't known stays.
func expansion(text string, set map[string]string) (value string, n int) {
	if found := variable.FindStringSubmatch(text); found != nil {
		if value, ok := set[found[1]+found[2]]; ok && (value != "" || found[3] == "") {
			return value, len(found[0])
		}
		if strings.Contains(found[0], "-") || strings.Contains(found[0], "=") {
			return found[3], len(found[0])
		}
		return found[0], len(found[0])
	}
	if !strings.HasPrefix(text, "$(") {
		return text[:1], 1
	}
	depth := 0
	for i, c := range text {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return text[:i+1], i + 1
			}
		}
	}
	return text, len(text)
}

// How acme.sh wraps values with characters that a shell would mind.
const (
	wrapBegin = "__ACME_BASE64__START_"
	wrapEnd   = "__ACME_BASE64__END_"
)

// unwrap reads a value that acme.sh has wrapped.
func unwrap(value string) string {
	inner, ok := strings.CutPrefix(value, wrapBegin)
	if !ok {
		return value
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(inner, wrapEnd))
	if err != nil {
		return value // something stands there, and a person can read more into it
	}
	return string(text)
}

// oneLine keeps a foreign text inside its comment.
func oneLine(text string) string { return printable.Line(text) }
