// Package secret owns values that must never be shown: where the configuration may keep them, how they are read, and
// that no log, error or JSON document prints them. What a secret is for is left to the packages that hold one.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"autocertd/internal/cure"
	"autocertd/internal/durable"
)

// MaxSize is the most bytes that a secret may have, wherever it is kept.
const MaxSize = 64 << 10

// hidden is all that a secret shows of itself.
const hidden = "[secret]"

// A Secret is a value that doesn't show itself. In TOML it is a string, or a table with exactly one of the keys file,
// env and credential. The zero Secret is unset.
type Secret struct {
	// A pointer, since fmt prints unexported fields of foreign structs without asking for their methods; a pointer
	// prints as an address.
	value *string
}

// TSIGKey signs DNS messages (RFC 8945).
type TSIGKey struct {
	Name      string // in lower case, without the trailing dot
	Algorithm string // as RFC 8945 section 6 spells it
	Secret    Secret // base64
}

// New returns a secret that holds value. An empty value gives an unset secret.
func New(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{value: &value}
}

// Reveal returns the value itself, "" when the secret is unset.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsSet reports whether there is a value.
func (s Secret) IsSet() bool { return s.value != nil }

// String returns a fixed text, never the value.
func (s Secret) String() string { return hidden }

// GoString returns a fixed text, never the value.
func (s Secret) GoString() string { return hidden }

// Format writes a fixed text for every verb, never the value.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalJSON returns a fixed text, never the value.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText returns a fixed text, never the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns a fixed text, never the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// UnmarshalTOML reads the secret from a decoded TOML value. A relative file name is taken from the working directory.
func (s *Secret) UnmarshalTOML(v any) error { return s.Load(v, "") }

// Load reads the secret from a decoded TOML value. A relative file name is taken from dir. When it fails the secret
// is left as it was, and the error names the place and its cure, never the contents.
func (s *Secret) Load(v any, dir string) error {
	text, err := read(v, dir)
	if err != nil {
		return err
	}
	*s = New(text)
	return nil
}

// File returns the file that Load would read, "" when there is none.
func File(v any, dir string) string {
	table, _ := v.(map[string]any)
	if name, _ := table["file"].(string); name != "" {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name
	}
	if name, _ := table["credential"].(string); name != "" && filepath.IsLocal(name) && credentials() != "" {
		return filepath.Join(credentials(), name)
	}
	return ""
}

func read(v any, dir string) (string, error) {
	switch v := v.(type) {
	case string:
		return checked(v, "the string")
	case map[string]any:
		return readTable(v, dir)
	}
	return "", errors.New(`a secret is a string, or a table such as { file = "/path" }, { env = "NAME" } or { credential = "NAME" }`)
}

func readTable(table map[string]any, dir string) (string, error) {
	if len(table) != 1 {
		return "", errors.New("a secret's table has exactly one of the keys file, env and credential")
	}
	for kind, v := range table {
		name, ok := v.(string)
		switch {
		case kind != "file" && kind != "env" && kind != "credential":
			return "", fmt.Errorf("unknown key %q: a secret's table has exactly one of the keys file, env and credential", kind)
		case !ok || name == "":
			return "", fmt.Errorf("%s must be a string that isn't empty", kind)
		case kind == "file":
			if !filepath.IsAbs(name) {
				name = filepath.Join(dir, name)
			}
			return readFile(name, fmt.Sprintf("the file %q", name))
		case kind == "env":
			return readEnv(name)
		}
		return readCredential(name)
	}
	panic("unreachable: the table has one key")
}

func readEnv(name string) (string, error) {
	text, ok := os.LookupEnv(name)
	if !ok {
		return "", fmt.Errorf("the environment variable %q isn't set: set it for the daemon, for example with EnvironmentFile= in its systemd unit", name)
	}
	return checked(text, fmt.Sprintf("the environment variable %q", name))
}

// serviceCredentials is where systemd keeps the credentials of the running service. Root may read them there too.
const serviceCredentials = "/run/credentials/autocertd.service"

// credentials returns the folder of credentials, "" when there is none.
func credentials() string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if _, err := os.Stat(serviceCredentials); dir == "" && err == nil {
		return serviceCredentials // a command by hand, beside the service
	}
	return dir
}

func readCredential(name string) (string, error) {
	if name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return "", fmt.Errorf("the credential name %q must be a plain file name", name)
	}
	dir := credentials()
	if dir == "" {
		return "", cure.New(fmt.Sprintf("the credential %q can't be read: $CREDENTIALS_DIRECTORY isn't set", name), loadCredential(name))
	}
	text, err := readFile(filepath.Join(dir, name), fmt.Sprintf("the credential %q", name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", cure.With(err, loadCredential(name))
	}
	return text, err
}

func loadCredential(name string) string {
	return fmt.Sprintf("add LoadCredential=%s:/path to the systemd unit", name)
}

// readFile reads a regular file only: anything else, a pipe for one, could block a reload for ever.
func readFile(path, place string) (string, error) {
	data, err := durable.Read(path, MaxSize)
	_, large := errors.AsType[*durable.TooLargeError](err)
	switch {
	case large:
		return "", tooLong(place)
	case errors.Is(err, durable.ErrIrregular):
		return "", fmt.Errorf("%s isn't a regular file", place)
	case err != nil:
		return "", fmt.Errorf("%s can't be read: %w", place, cause(path, err))
	}
	return checked(string(data), place)
}

// cause drops the path from a file error, since the message names the place already, and says whose permission counts.
func cause(path string, err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return cure.With(err, "let the user that runs the daemon read it: "+PermissionCure(path))
	}
	return err
}

// PermissionCure returns the line to paste that lets the daemon's group read a file, which may hold a secret. Where it is a
// folder above that this process may not enter, the line is about that folder.
func PermissionCure(path string) string {
	mode := "0640"
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		mode = "0750"
	}
	for i, c := range path {
		if folder := path[:i]; c == '/' && folder != "" && unix.Faccessat(unix.AT_FDCWD, folder, unix.X_OK, unix.AT_EACCESS) == unix.EACCES {
			path, mode = folder, "0750"
			break
		}
	}
	if strings.ContainsFunc(path, func(r rune) bool { return !strings.ContainsRune(plainInShell, r) }) {
		path = "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return fmt.Sprintf("chgrp autocertd %s && chmod %s %s", path, mode, path)
}

// plainInShell are the characters that need no quotation marks in a line to paste.
const plainInShell = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@:,%="

func checked(text, place string) (string, error) {
	if len(text) > MaxSize {
		return "", tooLong(place)
	}
	text = strings.TrimRight(strings.TrimPrefix(text, "\uFEFF"), "\r\n") // some editors put a byte order mark in front
	if text == "" {
		return "", fmt.Errorf("%s is empty: write the secret into it", place)
	}
	return text, nil
}

func tooLong(place string) error {
	return fmt.Errorf("%s is longer than %d bytes, which is no secret", place, MaxSize)
}
