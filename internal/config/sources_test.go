package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestSources changes each file that a configuration is made of, in each way in which files change.
func TestSources(t *testing.T) {
	root, csr := fileOf(t, "private-names", "ca.pem"), fileOf(t, "csr", "good.csr")
	root.Name, csr.Name = "store/ca.pem", "store/good.csr"
	files := []txtar.File{{Name: "store/v1/config.toml", Data: []byte(minimal + "hostnames = [\"www.corp.example.com\"]\n[defaults]\nca = [\"le\"]\n")},
		{Name: "conf.d/own.toml", Data: []byte("[ca.own]\ndirectory = \"https://ca.corp.example.com/dir\"\naccept_terms = true\nroots = [\"../store/ca.pem\"]\n" +
			"eab = { kid = \"k\", hmac_key = { file = \"../store/eab\" } }\n[[certificate]]\nname = \"appliance\"\ncsr = \"../store/good.csr\"\n")},
		{Name: "store/eab", Data: []byte("aHVudGVyMg==\n")}, {Name: "credentials/tsig", Data: []byte("hunter2\n")}, {Name: "tsig.key", Data: []byte("key\n")}, root, csr}
	replace := func(name, old, new string) func() error {
		return func() error {
			data, err := os.ReadFile(name)
			return errors.Join(err, os.WriteFile(name, []byte(strings.Replace(string(data), old, new, 1)), 0o600))
		}
	}
	swap := func(target, link string) func() error {
		return func() error {
			return errors.Join(os.Symlink(target, link+".new"), os.Rename(link+".new", link))
		}
	}
	past := time.Now().Add(-time.Hour)
	tests := []struct {
		what   string
		change func() error
		want   string // what changed; "" is nothing
	}{
		{"nothing", func() error { return nil }, ""},
		{"the target of a link", replace("store/v1/config.toml", "www", "web"), "config.toml"},
		{"a link in the middle of the way", func() error {
			return errors.Join(os.CopyFS("store/v2", os.DirFS("store/v1")), replace("store/v2/config.toml", "www", "web")(), swap("v2", "store/now")())
		}, "config.toml"},
		{"the link itself", func() error {
			return errors.Join(os.WriteFile("other.toml", []byte("other"), 0o600), swap("other.toml", "config.toml")())
		}, "config.toml"},
		{"it leads nowhere", func() error { return os.Remove("store/now") }, "config.toml"},
		{"a drop-in is edited", replace("conf.d/own.toml", "own", "own"), ""},
		{"a drop-in gets another text of the same length and time", func() error {
			return errors.Join(replace("conf.d/own.toml", "own", "two")(), os.Chtimes("conf.d/own.toml", past, past))
		}, "conf.d/own.toml"},
		{"a drop-in is added", func() error { return os.WriteFile("conf.d/more.toml", nil, 0o600) }, "conf.d/more.toml"},
		{"what isn't read is added", func() error { return os.WriteFile("conf.d/.more.toml.swp", nil, 0o600) }, ""},
		{"a drop-in goes", func() error { return os.Remove("conf.d/own.toml") }, "conf.d/own.toml"},
		{"the folder of drop-ins goes", func() error { return os.RemoveAll("conf.d") }, "conf.d/own.toml"},
		{"the roots", replace("store/ca.pem", "BEGIN", "BEGUN"), "store/ca.pem"},
		{"the request", replace("store/good.csr", "BEGIN", "BEGUN"), "store/good.csr"},
		{"a secret's file", replace("store/eab", "g=", "w="), "store/eab"},
		{"a credential", replace("credentials/tsig", "2", "3"), "credentials/tsig"},
		{"a key file", replace("tsig.key", "key", "yek"), "tsig.key"},
		{"a key file is replaced by one with an older time", func() error {
			return errors.Join(os.WriteFile("new", []byte("yek\n"), 0o600), os.Chtimes("new", past, past), os.Rename("new", "tsig.key"))
		}, "tsig.key"},
		{"a key file is replaced by the same", func() error {
			return errors.Join(os.WriteFile("new", []byte("key\n"), 0o600), os.Rename("new", "tsig.key"))
		}, ""},
		{"other rights", func() error { return os.Chmod("tsig.key", 0o640) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			unpack(t, &txtar.Archive{Files: files})
			dir, err := filepath.Abs(".")
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("CREDENTIALS_DIRECTORY", filepath.Join(dir, "credentials"))
			for link, target := range map[string]string{"config.toml": "store/now/config.toml", "store/now": "v1"} {
				if err := os.Symlink(target, link); err != nil {
					t.Fatal(err)
				}
			}
			sources := &Sources{}
			read := checks()
			read.Sources = sources
			read.Provider = func(p *Provider) error {
				var o struct {
					Server string `toml:"server"`
				}
				return p.Decode(&o)
			}
			if _, err := Load("config.toml", read); err != nil {
				t.Fatal(err)
			}
			sources.note("tsig.key", false)
			sources.noteSecret(map[string]any{"credential": "tsig"}, "")
			saved, err := json.Marshal(sources)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.change(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // what is told stays told
				if got := relative(dir, sources.Changed()); got != tt.want {
					t.Errorf("changed is %q, want %q", got, tt.want)
				}
			}
			changes, err := ChangesSince(saved)
			if err != nil {
				t.Fatal(err)
			}
			var others []string
			for _, c := range changes {
				others = append(others, c.File)
				if gone := errors.Is(func() error { _, err := os.Stat(c.File); return err }(), os.ErrNotExist); gone != c.At.IsZero() || !gone && time.Since(c.At) > time.Minute {
					t.Errorf("%s changed at %s", c.File, c.At)
				}
			}
			got := relative(dir, others)
			if touched := tt.want == ""; got != tt.want && !touched { // by times alone, what was written again changed
				t.Errorf("another process sees %q changed, want %q", got, tt.want)
			}
		})
	}
}

func relative(dir string, paths []string) string {
	list := make([]string, len(paths))
	for i, p := range paths {
		list[i] = strings.TrimPrefix(p, dir+"/")
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}
