package internal_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gopackages "golang.org/x/tools/go/packages"
)

// layered lists the packages whose files depend on one another in one direction: a file uses what is declared in files
// below it, and nothing of those uses what is declared in it.
var layered = []string{"cmd/autocertd", "internal/budget", "internal/dns01", "internal/knownca", "internal/lifecycle", "internal/state", "internal/term", "internal/zones", "issuer", "scheduler"}

// circles are the exceptions: files that tell one story together, by package, each with its reason. docs/architecture.md
// shows them.
var circles = map[string][]circle{
	"internal/lifecycle": {{
		"admission commit decide disk issue job lifecycle outage reconcile renewalinfo",
		"They are the steps of one look at a certificate, a file for each: methods of the manager and of its job",
	}},
	"internal/state": {{
		"bundle certificate compromised deployment order",
		"A certificate is loaded and saved with its bundle, its orders and the marks of its key",
	}},
}

type circle struct {
	files  string // in the order of the alphabet, without .go
	reason string
}

// TestFilesDependInOneDirection finds the files of a package that use one another in a circle.
func TestFilesDependInOneDirection(t *testing.T) {
	names := layered
	if more := os.Getenv("AUTOCERTD_CIRCLES"); more != "" { // of packages that aren't on the list yet
		names = strings.Fields(more)
	}
	for _, p := range load(t, names...) {
		name := strings.TrimPrefix(p.PkgPath, module+"/")
		uses := fileUses(p)
		var found []string
		for _, files := range circlesOf(uses) {
			list := strings.Join(files, " ")
			found = append(found, list)
			if !slices.ContainsFunc(circles[name], func(c circle) bool { return c.files == list }) {
				t.Errorf("%s: these files depend on one another: %s\n%s", name, list, describe(uses, files))
			}
		}
		for _, c := range circles[name] {
			if !slices.Contains(found, c.files) || c.reason == "" {
				t.Errorf("%s: %s is no circle any more, or has no reason: remove it from the exceptions", name, c.files)
			}
		}
	}
}

// TestCirclesAreFound shows that the search has teeth.
func TestCirclesAreFound(t *testing.T) {
	one := func(names ...string) map[string][]string {
		m := map[string][]string{}
		for _, n := range names {
			m[n] = []string{"name"}
		}
		return m
	}
	uses := fileGraph{
		"a": one("b"), "b": one("c"), "c": nil, // one direction
		"d": one("e", "a"), "e": one("f"), "f": one("d", "b"), // a circle of three
		"g": one("h"), "h": one("g"),
	}
	got := circlesOf(uses)
	if fmt.Sprint(got) != "[[d e f] [g h]]" {
		t.Errorf("circles %v", got)
	}
}

// fileGraph holds for each file of a package the files that it uses, with the names that it uses of them.
type fileGraph map[string]map[string][]string

// load loads packages of the module with their types, without tests.
func load(t *testing.T, names ...string) []*gopackages.Package {
	t.Helper()
	patterns := make([]string, len(names))
	for i, name := range names {
		patterns[i] = module + "/" + name
	}
	mode := gopackages.NeedName | gopackages.NeedFiles | gopackages.NeedSyntax | gopackages.NeedTypes | gopackages.NeedTypesInfo | gopackages.NeedImports
	list, err := gopackages.Load(&gopackages.Config{Mode: mode, Dir: ".."}, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		for _, e := range p.Errors {
			t.Fatalf("%s: %v", p.PkgPath, e)
		}
	}
	return list
}

// fileUses finds which files of a package use what is declared in which others.
func fileUses(p *gopackages.Package) fileGraph {
	file := func(pos token.Pos) string {
		return strings.TrimSuffix(filepath.Base(p.Fset.Position(pos).Filename), ".go")
	}
	uses := fileGraph{}
	for _, f := range p.Syntax {
		from := file(f.Pos())
		if uses[from] == nil {
			uses[from] = map[string][]string{}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			used := p.TypesInfo.Uses[id]
			if used == nil || used.Pkg() != p.Types || !declared(p.Types, used) {
				return true
			}
			if to := file(used.Pos()); to != from && !slices.Contains(uses[from][to], used.Name()) {
				uses[from][to] = append(uses[from][to], used.Name())
			}
			return true
		})
	}
	return uses
}

// declared reports whether an object stands at the level of the package, or is a method; fields follow their type.
func declared(pkg *types.Package, o types.Object) bool {
	if o.Parent() == pkg.Scope() {
		return true
	}
	f, ok := o.(*types.Func)
	return ok && f.Signature().Recv() != nil && !types.IsInterface(f.Signature().Recv().Type())
}

// circlesOf returns the groups of files that reach one another, by Tarjan's algorithm.
func circlesOf(uses fileGraph) (list [][]string) {
	index, low, on := map[string]int{}, map[string]int{}, map[string]bool{}
	var stack []string
	var visit func(string)
	visit = func(f string) {
		index[f] = len(index) + 1
		low[f] = index[f]
		stack, on[f] = append(stack, f), true
		for _, g := range slices.Sorted(maps.Keys(uses[f])) {
			switch {
			case index[g] == 0:
				visit(g)
				low[f] = min(low[f], low[g])
			case on[g]:
				low[f] = min(low[f], index[g])
			}
		}
		if low[f] != index[f] {
			return
		}
		i := slices.Index(stack, f)
		if group := slices.Sorted(slices.Values(stack[i:])); len(group) > 1 {
			list = append(list, group)
		}
		for _, g := range stack[i:] {
			on[g] = false
		}
		stack = stack[:i]
	}
	for _, f := range slices.Sorted(maps.Keys(uses)) {
		if index[f] == 0 {
			visit(f)
		}
	}
	slices.SortFunc(list, slices.Compare)
	return list
}

// describe lists what the files of a circle use of one another, the rarest uses first: those are the ones to remove.
func describe(uses fileGraph, files []string) string {
	type arrow struct {
		text  string
		count int
	}
	var arrows []arrow
	for _, from := range files {
		for _, to := range files {
			if names := uses[from][to]; len(names) > 0 {
				arrows = append(arrows, arrow{fmt.Sprintf("\t%s uses %s: %s", from, to, strings.Join(names, ", ")), len(names)})
			}
		}
	}
	slices.SortStableFunc(arrows, func(a, b arrow) int { return a.count - b.count })
	var b strings.Builder
	for _, a := range arrows {
		b.WriteString(a.text + "\n")
	}
	return b.String()
}
