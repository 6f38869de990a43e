package internal_test

import (
	"slices"
	"strings"
	"testing"
)

// TestProductIsAlone proves that nothing of the CA and the servers that tests start is linked into the product.
func TestProductIsAlone(t *testing.T) {
	linked := product(packages(t))
	if len(linked) < 10 {
		t.Fatalf("only %d packages are linked", len(linked))
	}
	for name := range linked {
		if below(name, "internal/testbed") || below(name, "bench") || strings.HasSuffix(name, "test") {
			t.Errorf("%s is linked into the product", name)
		}
	}
	for _, name := range dependencies(t, "cmd/autocertd") {
		if strings.Contains(name, "letsencrypt/") || strings.Contains(name, "smallstep") || name == "testing" {
			t.Errorf("%s is linked into the product", name)
		}
	}
	if names := dependencies(t, "cmd/sandbox"); !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "letsencrypt/") }) {
		t.Error("the sandbox links no CA, so that this test finds none")
	}
}

// product returns the packages that are linked into a command, with what they import of ours.
func product(all []listed) map[string][]string {
	known := map[string]listed{}
	for _, p := range all {
		known[p.ImportPath] = p
	}
	linked := map[string][]string{}
	var visit func(string)
	visit = func(path string) {
		name := strings.TrimPrefix(path, module+"/")
		if _, seen := linked[name]; seen {
			return
		}
		linked[name] = []string{}
		for _, imp := range known[path].Imports {
			if _, ours := known[imp]; ours {
				linked[name] = append(linked[name], strings.TrimPrefix(imp, module+"/"))
				visit(imp)
			}
		}
		slices.Sort(linked[name])
	}
	visit(module + "/cmd/autocertd")
	return linked
}
