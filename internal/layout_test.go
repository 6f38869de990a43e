// Package internal_test holds the packages of the module to the layout of the
// design: who imports what. What the packages do is tested beside them.
package internal_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "autocertd"

// limits says what a package and those below it may import of ours. The first
// rows import nothing but what is named.
var limits = []limit{
	{pkg: "scheduler", only: []string{"internal/cure"}},
	{pkg: "internal/cure", only: []string{}},
	{pkg: "internal/event", only: []string{}},
	{pkg: "internal/secret", only: []string{"internal/printable", "internal/durable", "internal/cure"}},
	{pkg: "internal/printable", only: []string{}},
	{pkg: "internal/term", only: []string{"internal/cure"}},
	{pkg: "internal/durable", only: []string{}},
	{pkg: "internal/dnschallenge", only: []string{}},
	{pkg: "internal/proc", only: []string{"internal/printable", "internal/cure"}},
	{pkg: "internal/suggest", only: []string{}},
	{pkg: "internal/dnsname", only: []string{}},
	{pkg: "internal/config", only: []string{"internal/knownca", "internal/suggest", "internal/secret", "internal/printable", "internal/durable", "internal/cure", "internal/dnschallenge", "internal/dnsname"}},
	{pkg: "internal/knownca", only: []string{"internal/printable"}},
	{pkg: "internal/budget", only: []string{"internal/knownca", "internal/dnsname"}},
	{pkg: "providers", only: []string{"internal/secret", "internal/printable", "internal/durable", "internal/proc", "internal/cure", "internal/suggest", "internal/dnsname"}},
	// Names no object and no file: the interfaces are all that it knows of a store.
	{pkg: "internal/lifecycle", never: []string{"internal/store/files", "internal/store/etcd", "providers", "internal/preflight"}},
	{pkg: "internal/dns01", never: []string{"internal/store/files", "internal/store/etcd", "providers", "internal/lifecycle", "internal/config"}},
	// No DNS, disk or providers.
	{pkg: "issuer", never: []string{"internal/dns01", "internal/zones", "internal/store/files", "internal/store/etcd", "internal/durable", "providers"}},
	// Asks DNS; who writes there, and for whom, is no business of it.
	{pkg: "internal/zones", only: []string{"internal/suggest", "internal/secret", "internal/printable", "internal/cure", "internal/dnschallenge", "internal/dnsname"}},
	{pkg: "internal/state", only: []string{"internal/store", "internal/printable", "internal/cure", "issuer"}},
	// No account keys.
	{pkg: "internal/deploy", never: []string{"issuer", "providers", "internal/config", "internal/dns01", "internal/zones", "internal/lifecycle", "internal/store/files"}},
}

// homes says which packages, with those below them, are the only ones to import
// one. Foreign libraries stand with their whole path, and of two rows that match
// an import the longer counts.
var homes = []home{
	{pkg: "providers", in: []string{"cmd"}},
	{pkg: "internal/store/etcd", in: []string{"cmd"}},
	{pkg: "internal/store/files", in: []string{"cmd/autocertd"}},
	{pkg: "internal/testbed", in: []string{"cmd/sandbox"}}, // and tests

	{pkg: "github.com/mholt/acmez", in: []string{"issuer"}},
	{pkg: "github.com/libdns", in: []string{"providers"}},
	{pkg: "github.com/libdns/libdns", in: []string{"providers", "internal/dns01"}}, // the interface
	{pkg: "github.com/miekg/dns", in: []string{"internal/zones", "internal/dns01", "providers", "internal/testbed"}},
	{pkg: "github.com/BurntSushi/toml", in: []string{"internal/config"}},
	{pkg: "golang.org/x/net/publicsuffix", in: []string{"internal/budget"}},
	{pkg: "golang.org/x/net/idna", in: []string{"internal/config"}},
	{pkg: "github.com/robfig/cron", in: []string{"scheduler"}},
	{pkg: "github.com/prometheus", in: []string{"internal/web"}},
	{pkg: "go.etcd.io/etcd", in: []string{"internal/store/etcd"}},
	{pkg: "github.com/letsencrypt/pebble", in: []string{"internal/testbed"}},
	{pkg: "golang.org/x/term", in: []string{"internal/term"}},
	{pkg: "github.com/spf13/cobra", in: []string{"cmd/autocertd"}},
	{pkg: "github.com/fsnotify/fsnotify", in: []string{"cmd/autocertd", "internal/store/files"}}, // of the configuration, and of objects
	{pkg: "github.com/coreos/go-systemd", in: []string{"cmd/autocertd"}},
}

type limit struct {
	pkg   string
	only  []string // when not nil, all of ours that it may import
	never []string
}

type home struct {
	pkg string
	in  []string
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if why := refuse(p.ImportPath, imp); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, why)
			}
		}
	}
}

// TestRefuse shows that each kind of row in the tables has teeth.
func TestRefuse(t *testing.T) {
	tests := []struct {
		pkg, imp string
		refused  bool
	}{
		{"autocertd/scheduler", "autocertd/internal/config", true},
		{"autocertd/scheduler", "time", false},
		{"autocertd/scheduler", "github.com/robfig/cron/v3", false},
		{"autocertd/internal/lifecycle", "github.com/robfig/cron/v3", true},
		{"autocertd/internal/config", "autocertd/internal/secret", false},
		{"autocertd/issuer", "autocertd/internal/secret", false},
		{"autocertd/issuer", "autocertd/internal/store/etcd", true},
		{"autocertd/issuer/ari", "autocertd/internal/dns01", true},
		{"autocertd/internal/dns01", "github.com/libdns/libdns", false},
		{"autocertd/internal/dns01", "github.com/libdns/rfc2136", true},
		{"autocertd/internal/dns01", "autocertd/providers", true},
		{"autocertd/internal/zones", "autocertd/internal/dns01", true},
		{"autocertd/internal/zones", "autocertd/providers", true},
		{"autocertd/cmd/autocertd", "autocertd/providers", false},
		{"autocertd/cmd/autocertd", "autocertd/internal/testbed", true},
		{"autocertd/internal/testbed/fault", "autocertd/internal/testbed", false},
	}
	for _, tt := range tests {
		if why := refuse(tt.pkg, tt.imp); (why != "") != tt.refused {
			t.Errorf("%s imports %s: refused is %t (%s), want %t", tt.pkg, tt.imp, why != "", why, tt.refused)
		}
	}
}

func TestPackageComment(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestNoInit(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s: init runs before main can decide anything", fset.Position(f.Pos()))
				}
			}
		}
	}
}

// refuse says why pkg may not import imp, or nothing when it may.
func refuse(pkg, imp string) string {
	pkg = strings.TrimPrefix(pkg, module+"/")
	imp, ours := strings.CutPrefix(imp, module+"/")

	for _, l := range limits {
		if !ours || !below(pkg, l.pkg) || below(imp, l.pkg) {
			continue
		}
		if l.only != nil && !slices.Contains(l.only, imp) {
			return l.pkg + " imports of ours only [" + strings.Join(l.only, " ") + "]"
		}
		if belowAny(imp, l.never) {
			return l.pkg + " never imports it"
		}
	}

	var owner home
	for _, h := range homes {
		if below(imp, h.pkg) && len(h.pkg) > len(owner.pkg) {
			owner = h
		}
	}
	if owner.pkg != "" && !belowAny(pkg, owner.in) && !below(pkg, owner.pkg) {
		return "only [" + strings.Join(owner.in, " ") + "] may"
	}
	return ""
}

func below(pkg, root string) bool {
	return pkg == root || strings.HasPrefix(pkg, root+"/")
}

func belowAny(pkg string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return below(pkg, root) })
}

// listed is what go list says of a package; Imports leaves out those of tests.
type listed struct {
	ImportPath, Dir, Doc string
	GoFiles, Imports     []string
}

// packages lists those of the module, without depshold, which only keeps
// requirements in go.mod.
func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports", module+"/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}

	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		if p.ImportPath != module+"/internal/depshold" {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		t.Fatal("go list names no packages")
	}
	return all
}

// dependencies lists all packages that are linked into a command.
func dependencies(t *testing.T, command string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"/"+command).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Fields(string(out))
}
