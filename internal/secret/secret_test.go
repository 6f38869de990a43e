package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"autocertd/internal/cure"
	"autocertd/internal/secret"
)

// value is what must never be seen.
const value = "hunter2-hunter2"

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("token", value+"\n")
	write("crlf", value+"\r\n")
	write("empty", "\n")
	write("full", strings.Repeat("x", secret.MaxSize))
	write("long", strings.Repeat("x", secret.MaxSize+1))
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("SECRET_TOKEN", value)
	t.Setenv("SECRET_EMPTY", "")

	table := func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	tests := []struct {
		name    string
		in      any
		want    string
		wantErr string
	}{
		{"a string", value, value, ""},
		{"an empty string", "", "", "the string is empty"},
		{"a number", int64(5), "", "a secret is a string, or a table"},
		{"a relative file", table("file", "token"), value, ""},
		{"an absolute file", table("file", filepath.Join(dir, "token")), value, ""},
		{"a file with a CR LF", table("file", "crlf"), value, ""},
		{"an empty file", table("file", "empty"), "", "is empty"},
		{"a file of the greatest size", table("file", "full"), strings.Repeat("x", secret.MaxSize), ""},
		{"a file that is too long", table("file", "long"), "", "is longer than 65536 bytes"},
		{"a folder", table("file", "folder"), "", "isn't a regular file"},
		{"a pipe that nobody writes to", table("file", "pipe"), "", "isn't a regular file"},
		{"a device", table("file", "/dev/zero"), "", "isn't a regular file"},
		{"a missing file", table("file", "missing"), "", `missing" can't be read: no such file`},
		{"a variable", table("env", "SECRET_TOKEN"), value, ""},
		{"an unset variable", table("env", "SECRET_UNSET"), "", `"SECRET_UNSET" isn't set`},
		{"an empty variable", table("env", "SECRET_EMPTY"), "", `"SECRET_EMPTY" is empty`},
		{"a credential", table("credential", "token"), value, ""},
		{"a missing credential", table("credential", "missing"), "", "LoadCredential=missing:"},
		{"a credential with a path", table("credential", "../token"), "", "must be a plain file name"},
		{"a credential that is a folder up", table("credential", ".."), "", "must be a plain file name"},
		{"two places", table("env", "SECRET_TOKEN", "file", "token"), "", "exactly one of the keys"},
		{"no place", table(), "", "exactly one of the keys"},
		{"an unknown place", table("value", value), "", `unknown key "value"`},
		{"a place that is no string", table("file", int64(1)), "", "file must be a string"},
		{"a place that is empty", table("env", ""), "", "env must be a string that isn't empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s secret.Secret
			err := s.Load(tt.in, dir)
			if tt.wantErr == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else if err == nil || !strings.Contains(err.Error()+"; "+cure.Of(err), tt.wantErr) {
				t.Fatalf("error %v, want one with %q", err, tt.wantErr)
			} else if strings.Contains(err.Error()+cure.Of(err), value) {
				t.Errorf("the error shows the secret: %v", err)
			}
			if got := s.Reveal(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if s.IsSet() != (tt.want != "") {
				t.Errorf("IsSet is %v", s.IsSet())
			}
		})
	}
}

func TestCredentialOutsideSystemd(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	var s secret.Secret
	err := s.UnmarshalTOML(map[string]any{"credential": "token"})
	if err == nil || !strings.Contains(cure.Of(err), "LoadCredential=token:") {
		t.Errorf("got %v, want an error that says how to pass the credential", err)
	}
}

func TestFailedLoadKeepsValue(t *testing.T) {
	s := secret.New(value)
	if err := s.UnmarshalTOML(""); err == nil {
		t.Fatal("an empty string was accepted")
	}
	if s.Reveal() != value {
		t.Error("a failed load changed the secret")
	}
}

// TestNeverShown prints a secret, alone and inside other values, in every way that a careless line of code may.
func TestNeverShown(t *testing.T) {
	s := secret.New(value)
	type exported struct{ S secret.Secret }
	type private struct{ s secret.Secret }
	values := []any{s, &s, exported{s}, &exported{s}, private{s}, &private{s}, []secret.Secret{s}, map[string]secret.Secret{"k": s},
		map[secret.Secret]int{s: 1}, fmt.Errorf("wrapped: %v", s)}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%T", "%p"} {
			if out := fmt.Sprintf(verb, v); shows(out) {
				t.Errorf("%s of %T shows the secret: %s", verb, v, out)
			}
		}
		// A map with a struct as its key is no JSON; what matters is what was written.
		if out, _ := json.Marshal(v); shows(string(out)) {
			t.Errorf("JSON of %T shows the secret: %s", v, out)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		if shows(log.String()) {
			t.Errorf("a log of %T shows the secret: %s", v, log.String())
		}
	}
	if got := fmt.Sprint(s); got != "[secret]" {
		t.Errorf("got %q", got)
	}
	if got, _ := json.Marshal(exported{s}); string(got) != `{"S":"[secret]"}` {
		t.Errorf("got %s", got)
	}
}

func shows(out string) bool {
	return strings.Contains(out, value) || strings.Contains(strings.ToLower(out), fmt.Sprintf("%x", value))
}
