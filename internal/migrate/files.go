package migrate

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"autocertd/internal/durable"
)

// maxFile bounds what is read of one file; those of clients have a few KiB.
const maxFile = 4 << 20

func readFile(path string) ([]byte, error) { return durable.Read(path, maxFile) }

func readJSON(path string, v any) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if json.Unmarshal(data, v) != nil { // its words may hold some of the key
		return fmt.Errorf("%s isn't the JSON that is expected there", filepath.Base(path))
	}
	return nil
}

// readSettings reads the assignments of a file, key = value: ini files of certbot and shell files of acme.sh and
// dehydrated. A line that is more than an assignment of text, such as one with a shell variable, is left out. A file that
// can't be read has none.
func readSettings(path string) map[string]string {
	settings := map[string]string{}
	data, err := readFile(path)
	if err != nil {
		return settings
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		key, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "export "), "=")
		if key = strings.TrimSpace(key); !ok || key == "" || strings.ContainsAny(key, "#;[ ") {
			continue
		}
		if value, ok = plain(strings.TrimSpace(value)); ok {
			settings[key] = value
		}
	}
	return settings
}

// How acme.sh wraps values with characters that a shell would mind.
const (
	wrapBegin = "__ACME_BASE64__START_"
	wrapEnd   = "__ACME_BASE64__END_"
)

// plain takes the quotes off a value.
func plain(value string) (string, bool) {
	if n := len(value); n >= 2 && (value[0] == '\'' || value[0] == '"') && value[n-1] == value[0] {
		value = value[1 : n-1]
	}
	if inner, ok := strings.CutPrefix(value, wrapBegin); ok {
		text, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(inner, wrapEnd))
		return string(text), err == nil
	}
	return value, !strings.ContainsAny(value, "$`")
}

// program is the first word of a command line. What follows it may be a secret.
func program(command string) string {
	if words := strings.Fields(command); len(words) > 0 {
		return words[0]
	}
	return ""
}
