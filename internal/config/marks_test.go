package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"

	"autocertd/internal/deploy"
)

func TestMarks(t *testing.T) {
	root, problem := scan("\uFEFFa = 1\nb.c = [\n1,\n2, {d = '''x\n'''},\n]\n\n[t]\n'e f' = \"\"\n[[l]]\n[l.sub]\nx = {y.z = 1}\n[[l]]\n[l.\"sub\"]\nx = 2\n[t.u]\n")
	if problem != nil {
		t.Fatal(problem)
	}
	lines := map[string]int{
		"a":             root.key("a").line,
		"b.c":           root.key("b").key("c").line,
		"b.c entry 1":   root.key("b").key("c").item(0).line,
		"b.c entry 2":   root.key("b").key("c").item(1).line,
		"b.c entry 3 d": root.key("b").key("c").item(2).key("d").line,
		"t":             root.key("t").line,
		"t.'e f'":       root.key("t").key("e f").line,
		"l":             root.key("l").item(0).line,
		"l 1 sub.x.y.z": root.key("l").item(0).key("sub").key("x").key("y").key("z").line,
		"l 2":           root.key("l").item(1).line,
		"l 2 sub.x":     root.key("l").item(1).key("sub").key("x").line,
		"t.u":           root.key("t").key("u").line,
		"no such key":   root.key("t").key("nothing").key("more").line,
		"no such entry": root.key("l").item(9).line,
	}
	want := map[string]int{"a": 1, "b.c": 2, "b.c entry 1": 3, "b.c entry 2": 4, "b.c entry 3 d": 4, "t": 8, "t.'e f'": 9, "l": 10,
		"l 1 sub.x.y.z": 12, "l 2": 13, "l 2 sub.x": 15, "t.u": 16, "no such key": 8, "no such entry": 10}
	for name, line := range lines {
		if line != want[name] {
			t.Errorf("%s: got line %d, want %d", name, line, want[name])
		}
	}
}

// checkMarks compares the scanner with the library: every key and entry that the library sees has a mark of its own.
func checkMarks(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		return
	}
	marks, problem := scan(text)
	if problem != nil {
		return
	}
	values, problem := parse(text)
	if problem != nil {
		return
	}
	compare(t, values, marks, strings.Count(text, "\n")+1)
}

func compare(t *testing.T, value any, m *mark, last int) {
	t.Helper()
	if m.line < 1 || m.line > last {
		t.Fatalf("line %d of %d", m.line, last)
	}
	switch value := value.(type) {
	case map[string]any:
		if len(value) != len(m.keys) {
			t.Fatalf("the library sees the keys of %v, the scanner %d", value, len(m.keys))
		}
		for name, v := range value {
			child, ok := m.keys[name]
			if !ok {
				t.Fatalf("no mark for %q", name)
			}
			compare(t, v, child, last)
		}
	case []map[string]any:
		if len(value) != len(m.items) {
			t.Fatalf("the library sees the tables of %v, the scanner %d", value, len(m.items))
		}
		for i, v := range value {
			compare(t, v, m.items[i], last)
		}
	case []any:
		if len(value) != len(m.items) {
			t.Fatalf("the library sees the entries of %v, the scanner %d", value, len(m.items))
		}
		for i, v := range value {
			compare(t, v, m.items[i], last)
		}
	}
}

// seeds are all files of testdata, and the example.
func seeds(t testing.TB) []string {
	t.Helper()
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{string(example), uncommented(string(example))}
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if strings.HasSuffix(f.Name, ".toml") {
				all = append(all, string(f.Data))
			}
		}
	}
	return all
}

func TestMarksOfTestdata(t *testing.T) {
	for _, text := range seeds(t) {
		checkMarks(t, text)
	}
}

// FuzzLoad feeds Load with two files. It must end, with a sound snapshot or with problems that name a file, and the
// scanner must see what the library sees.
func FuzzLoad(f *testing.F) {
	for _, text := range seeds(f) {
		if len(text) > 2<<10 {
			continue // which would spend the time on making it smaller
		}
		f.Add(text, minimal)
		f.Add(minimal, text)
	}
	dir := f.TempDir()
	main, dropIn := filepath.Join(dir, "config.toml"), filepath.Join(dir, "conf.d", "a.toml")
	if err := os.Mkdir(filepath.Dir(dropIn), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		checkMarks(t, a)
		for path, text := range map[string]string{main: a, dropIn: b} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var outputs deploy.Outputs
		config, err := Load(main, building(checks(), &outputs))
		if problems, ok := err.(Problems); err != nil && (!ok || len(problems) == 0 || problems[0].File == "") {
			t.Fatalf("odd error %#v", err)
		}
		if err != nil {
			return
		}
		names := map[string]bool{}
		for _, cert := range config.Certificates {
			if names[cert.Name] || len(cert.Hostnames) == 0 || len(cert.CAs) == 0 || strings.ContainsAny(cert.Name, "/\x00") {
				t.Fatalf("unsound certificate %+v", cert)
			}
			names[cert.Name] = true
		}
		for _, o := range outputs.List {
			if !filepath.IsAbs(o.Dir) || o.Mode&0o113 != 0 {
				t.Fatalf("unsound output %+v", o)
			}
		}
	})
}
