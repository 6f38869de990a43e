package internal_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var write = flag.Bool("write", false, "write the generated part of docs/architecture.md")

// pagePath is the page for who comes new; what is between the markers is made here from the packages and the tables.
const (
	pagePath  = "../docs/architecture.md"
	pageBegin = "<!-- generated from the packages; to write it again: go test ./internal -run TestArchitecturePage -write -->\n"
	pageEnd   = "<!-- end of the generated part -->\n"
)

// TestArchitecturePage holds docs/architecture.md to the packages that there are.
func TestArchitecturePage(t *testing.T) {
	page, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), pageBegin)
	made, after, ends := strings.Cut(rest, pageEnd)
	if !begins || !ends {
		t.Fatalf("%s has no generated part", pagePath)
	}
	want := architecture(packages(t))
	if made == want {
		return
	}
	if !*write {
		t.Fatalf("%s isn't that of the packages; write it again: go test ./internal -run TestArchitecturePage -write", pagePath)
	}
	if err := os.WriteFile(pagePath, []byte(before+pageBegin+want+pageEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// architecture draws the floors of the house, and lists what each package owns, imports, and who else may not be imported.
func architecture(all []listed) string {
	linked := product(all)
	floors := map[string]int{}
	var floor func(string) int
	floor = func(name string) int {
		if f, ok := floors[name]; ok {
			return f
		}
		f := 0
		for _, imp := range linked[name] {
			f = max(f, floor(imp)+1)
		}
		floors[name] = f
		return f
	}
	byFloor := map[int][]string{}
	for _, name := range slices.Sorted(maps.Keys(linked)) {
		f := floor(name)
		byFloor[f] = append(byFloor[f], name)
	}
	var b strings.Builder
	b.WriteString("```\n")
	for _, f := range slices.Backward(slices.Sorted(maps.Keys(byFloor))) {
		line := fmt.Sprintf("%2d ", f)
		for _, name := range byFloor[f] {
			if len(line)+len(name)+2 > 100 {
				b.WriteString(line + "\n")
				line = "   "
			}
			line += "  " + name
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("```\n\nA package imports packages of lower floors alone.\n\n| package | | imports of ours |\n|---|---|---|\n")
	docs := map[string]string{}
	for _, p := range all {
		docs[strings.TrimPrefix(p.ImportPath, module+"/")] = p.Doc
	}
	for _, name := range slices.Sorted(maps.Keys(linked)) {
		imports := "–"
		if list := linked[name]; len(list) > 0 {
			short := make([]string, len(list))
			for i, imp := range list {
				short[i] = strings.TrimPrefix(imp, "internal/")
			}
			imports = strings.Join(short, ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, summary(docs[name]), imports)
	}
	b.WriteString("\nEach foreign library has one home:\n\n| library | only in |\n|---|---|\n")
	for _, h := range homes {
		var users []string
		for _, p := range all {
			name := strings.TrimPrefix(p.ImportPath, module+"/")
			uses := slices.ContainsFunc(p.Imports, func(imp string) bool { return below(imp, h.pkg) })
			if _, ok := linked[name]; ok && uses && strings.Contains(h.pkg, ".") {
				users = append(users, name)
			}
		}
		if len(users) > 0 {
			fmt.Fprintf(&b, "| `%s` | `%s` |\n", h.pkg, strings.Join(users, "`, `"))
		}
	}
	if len(circles) > 0 {
		b.WriteString("\nFiles that use one another; in all other files of " + strings.Join(layered, ", ") + " the uses go in one direction:\n\n")
		for _, pkg := range slices.Sorted(maps.Keys(circles)) {
			for _, c := range circles[pkg] {
				fmt.Fprintf(&b, "* `%s`: %s. %s\n", pkg, strings.Join(strings.Fields(c.files), ", "), c.reason)
			}
		}
	}
	return b.String()
}

// summary is the first sentence of a package's comment, without "Package name".
func summary(doc string) string {
	doc, _, _ = strings.Cut(doc+" ", ". ")
	words := strings.Fields(doc)
	if len(words) > 2 && (words[0] == "Package" || words[0] == "Command") {
		words = words[2:]
	}
	return strings.TrimSuffix(strings.Join(words, " "), ".")
}

// TestPlacesOfThePage finds the places that the page names: files and folders, and "`Name` in `file`".
func TestPlacesOfThePage(t *testing.T) {
	page, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(page), "\n", " ")
	places := regexp.MustCompile("`([a-z0-9_]+(?:/[a-z0-9_.]+)+)`").FindAllStringSubmatch(text, -1)
	if len(places) < 30 {
		t.Fatalf("only %d places", len(places))
	}
	for _, p := range places {
		if strings.Contains(strings.SplitN(p[1], "/", 2)[0], ".") || slices.ContainsFunc(homes, func(h home) bool { return h.pkg == p[1] }) {
			continue // of another module, or a package to come
		}
		if _, err := os.Stat("../" + p[1]); err != nil {
			t.Errorf("%s: %v", p[1], err)
		}
	}
	for _, p := range regexp.MustCompile("`([A-Za-z]+)` in `([a-z0-9_/]+\\.go)`").FindAllStringSubmatch(text, -1) {
		source, err := os.ReadFile("../" + p[2])
		if err != nil {
			t.Error(err)
			continue
		}
		if !regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type )` + p[1] + `\b`).Match(source) {
			t.Errorf("%s declares no %s", p[2], p[1])
		}
	}
}
