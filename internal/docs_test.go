package internal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityPage holds docs/security.md to the tests that it names: each is in the package before it.
func TestSecurityPage(t *testing.T) {
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`([a-z][a-z0-9/]*): |\b((?:Test|Fuzz)[A-Z]\w*)`)
	named := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		tests := cells[len(cells)-1]
		if len(cells) < 3 || !strings.Contains(tests, ": ") {
			continue
		}
		pkg := ""
		for _, m := range word.FindAllStringSubmatch(tests, -1) {
			if m[1] != "" {
				pkg = m[1]
				continue
			}
			named++
			if !hasTest(t, pkg, m[2]) {
				t.Errorf("%s has no %s", pkg, m[2])
			}
		}
	}
	if named < 40 {
		t.Errorf("only %d tests are named; is the page read rightly?", named)
	}
}

// hasTest reports whether a package has a test or a fuzz target of that name.
func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(pkg), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("\nfunc "+name+"(")) {
			return true
		}
	}
	return false
}
