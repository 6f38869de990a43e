package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"autocertd/internal/deploy"
	"autocertd/internal/secret"
)

var update = flag.Bool("update", false, "write what Load says into the files of testdata")

// options are those of a provider, as the package that builds providers reads them.
type options struct {
	Server  string        `toml:"server"`
	Servers []string      `toml:"servers"`
	KeyFile string        `toml:"key_file"`
	KeyName string        `toml:"key_name"`
	KeyAlg  string        `toml:"key_alg"`
	Key     secret.Secret `toml:"key"`
	Retries int8          `toml:"retries"`
	Quick   bool          `toml:"quick"`
}

// building has the outputs built by the package that owns their options.
func building(c Checks, built *deploy.Outputs) Checks {
	c.OutputKeys = deploy.Keys()
	c.Outputs = func(config *Config, tables []Table) {
		all := make([]deploy.Table, len(tables))
		for i, table := range tables {
			all[i] = deploy.Table(table)
		}
		certificates := make([]deploy.Certificate, len(config.Certificates))
		for i, c := range config.Certificates {
			certificates[i] = deploy.Certificate{Name: c.Name, KeyElsewhere: c.CSR != nil}
		}
		*built = deploy.NewOutputs(all, certificates, config.StateDir)
	}
	return c
}

// checks judge as the packages that own schedules, windows and providers do, but know less.
func checks() Checks {
	notEmpty := func(text string) error {
		if text == "" || text == "never" {
			return fmt.Errorf("%q never comes", text)
		}
		return nil
	}
	judge := Checks{Schedule: notEmpty, Window: notEmpty, Provider: func(p *Provider) error {
		if p.Type != "rfc2136" {
			return fmt.Errorf("unknown type %q", p.Type)
		}
		var o options
		if err := p.Decode(&o); err != nil {
			return fmt.Errorf("provider %s: %w", p.Name, err)
		}
		if o.Server == "" && len(o.Servers) == 0 {
			return errors.Join(errors.New("has no server"), errors.New("has no key"))
		}
		if o.Server == "?" {
			return errors.Join(keyed{"server", errors.New(`"?" is no host`)}, keyed{"zone", errors.New("isn't in the table")})
		}
		return nil
	}}
	return building(judge, new(deploy.Outputs))
}

// keyed is a mistake at a key of a provider's table.
type keyed struct {
	key string
	err error
}

func (k keyed) Error() string { return fmt.Sprintf("%s: %v", k.key, k.err) }
func (k keyed) Key() string   { return k.key }
func (k keyed) Unwrap() error { return k.err }

// unpack writes the files of an archive into a fresh folder and goes there.
func unpack(t testing.TB, archive *txtar.Archive) {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, ".", archive.Files)
}

func write(t testing.TB, dir string, files []txtar.File) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// verdict is all that Load says about config.toml in the working directory.
func verdict() string {
	var b strings.Builder
	config, err := Load("config.toml", checks())
	if err != nil {
		return told(err) + "\n"
	}
	for _, warning := range config.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", told(warning))
	}
	return b.String()
}

// told is what a person is shown of problems, a line each; lines to add to a file stand below.
func told(err error) string {
	problems, ok := err.(Problems)
	if !ok {
		problems = Problems{err.(Problem)}
	}
	var lines []string
	for _, p := range problems {
		text := p.Error()
		if before, below, several := strings.Cut(p.Cure(), "\n"); several {
			text += "; " + before + "\n    " + strings.ReplaceAll(below, "\n", "\n    ")
		} else if p.Cure() != "" {
			text += " (" + p.Cure() + ")"
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n")
}

// TestVerdicts loads every archive of testdata. One holds one mistake, or a few that belong together, and pins the exact
// words in its file "want".
func TestVerdicts(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, name := range archives {
		path, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("CREDENTIALS_DIRECTORY", "")
			unpack(t, archive)
			got := verdict()
			last := len(archive.Files) - 1
			if last < 0 || archive.Files[last].Name != "want" {
				t.Fatal(`the last file must be "want"`)
			}
			want := string(archive.Files[last].Data)
			if got == want {
				return
			}
			if !*update {
				t.Fatalf("got:\n%s\nwant:\n%s", got, want)
			}
			archive.Files[last].Data = []byte(got)
			if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}
