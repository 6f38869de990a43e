package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"autocertd/internal/deploy"
)

const exampleFile = "../../config.example.toml"

func readExample(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// loadExample loads a text with what the example speaks of around it.
func loadExample(t *testing.T, text string) (*Config, []deploy.Output) {
	t.Helper()
	root, csr := fileOf(t, "private-names", "ca.pem"), fileOf(t, "csr", "good.csr")
	root.Name, csr.Name = "private-ca.pem", "appliance.csr"
	dir := t.TempDir()
	write(t, dir, []txtar.File{{Name: "config.toml", Data: []byte(text)}, root, csr, {Name: "eab-hmac-key", Data: []byte("c2VjcmV0\n")}})
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	var outputs deploy.Outputs
	config, err := Load(filepath.Join(dir, "config.toml"), building(Checks{}, &outputs))
	if err != nil {
		t.Fatal(err)
	}
	return config, outputs.List
}

// fileOf is one file of an archive in testdata.
func fileOf(t *testing.T, archive, name string) txtar.File {
	t.Helper()
	files, err := txtar.ParseFile("testdata/" + archive + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	return files.Files[slices.IndexFunc(files.Files, func(f txtar.File) bool { return f.Name == name })]
}

func TestExample(t *testing.T) {
	config, outputs := loadExample(t, readExample(t))
	if len(config.Warnings) > 0 {
		t.Errorf("warnings: %v", config.Warnings)
	}
	if len(config.Certificates) != 2 || len(config.CAs) != 1 || len(config.Providers) != 1 || len(outputs) != 0 {
		t.Errorf("got %+v", config)
	}
}

// uncommented is the example with every key taken up.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^#(\[|[a-z_]+ *=)`).ReplaceAllString(text, "$1")
}

func TestExampleUncommented(t *testing.T) {
	config, outputs := loadExample(t, uncommented(readExample(t)))
	if len(config.Certificates) != 4 || len(config.CAs) != 2 || len(config.Providers) != 5 || len(outputs) != 2 {
		t.Errorf("got %+v", config)
	}
	if ca := config.CAs[1]; len(ca.Roots) != 1 || ca.EAB.HMACKey.Reveal() != "c2VjcmV0" {
		t.Errorf("the private CA isn't complete: %+v", ca)
	}
	// What the example calls a default is the default.
	plain, _ := loadExample(t, readExample(t))
	if config.StateDir != plain.StateDir || config.Schedule != plain.Schedule || config.Concurrency != plain.Concurrency || config.Log != plain.Log {
		t.Error("the example's defaults aren't those of the program")
	}
	a, b := config.Providers[0], plain.Providers[0]
	if a.Check != b.Check || a.PropagationTimeout != b.PropagationTimeout || a.TTL != b.TTL {
		t.Error("the example's defaults of a provider aren't those of the program")
	}
}

// TestExampleHasEveryKey walks the structs that files are decoded into, and looks for each key in the uncommented
// example, and for its name in the documentation.
func TestExampleHasEveryKey(t *testing.T) {
	values, problem := parse(uncommented(readExample(t)))
	if problem != nil {
		t.Fatal(problem)
	}
	present := map[string]bool{}
	keysOf(values, "", reflect.TypeFor[rawConfig](), present)
	if len(present) < 40 {
		t.Errorf("the walk found %d keys only", len(present))
	}
	doc, err := os.ReadFile("../../docs/configure.md")
	if err != nil {
		t.Fatal(err)
	}
	for key, found := range present {
		if !found {
			t.Errorf("the key %s isn't in %s", strings.TrimPrefix(key, "."), exampleFile)
		}
		if name := key[strings.LastIndexByte(key, '.')+1:]; !regexp.MustCompile("\\b" + name + "\\b").Match(doc) {
			t.Errorf("the key %s isn't in docs/configure.md", strings.TrimPrefix(key, "."))
		}
	}
}

// keysOf notes for every key of a struct, and of those inside it, whether any of the values has it.
func keysOf(value any, prefix string, typ reflect.Type, present map[string]bool) {
	switch typ.Kind() {
	case reflect.Slice:
		if entries := reflect.ValueOf(value); entries.Kind() == reflect.Slice {
			for i := range entries.Len() {
				keysOf(entries.Index(i).Interface(), prefix, typ.Elem(), present)
			}
		}
	case reflect.Map:
		tables, _ := value.(map[string]any)
		for _, v := range tables {
			keysOf(v, prefix, typ.Elem(), present)
		}
	case reflect.Struct:
		if f, ok := typ.FieldByName("Value"); ok { // a field[T]
			keysOf(value, prefix, f.Type, present)
			return
		}
		table, _ := value.(map[string]any)
		for i := range typ.NumField() {
			name := typ.Field(i).Tag.Get("toml")
			if name == "" {
				continue
			}
			key := prefix + "." + name
			v, found := table[name]
			present[key] = present[key] || found
			if found {
				keysOf(v, key, typ.Field(i).Type, present)
			}
		}
	}
}
