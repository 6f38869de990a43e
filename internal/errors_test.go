package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// errorReaders are the functions that read an error's text although it is another package's, each with its reason.
var errorReaders = map[string]string{
	"../providers/compiled.go: isHTTPTrouble": "modules of libdns return what an API answered as text alone",
}

// TestErrorsAreValues holds every package but internal/term to errors as values: the text of one is never split, trimmed,
// matched or compared. What a program of others printed isn't an error's text. A text that is passed to another
// function as a parameter isn't followed there.
func TestErrorsAreValues(t *testing.T) {
	unused := maps.Clone(errorReaders)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{"term", "testbed", "testdata", "storetest", "providertest", "sandbox", "bench"}, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, read := range readsOfErrors(file) {
			where := path + ": " + read.function
			if _, excepted := errorReaders[where]; excepted {
				delete(unused, where)
				continue
			}
			t.Errorf("%s, line %d: %s reads the text of an error", where, files.Position(read.at).Line, read.what)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for where := range unused {
		t.Errorf("the exception for %s isn't needed any more", where)
	}
}

// TestReadsOfErrors shows that each way to read an error's text is found, and that putting it into another text is none.
func TestReadsOfErrors(t *testing.T) {
	tests := []struct {
		body, want string
	}{
		{`return strings.Contains(err.Error(), "refused")`, "strings.Contains"},
		{`text := err.Error(); a, b, _ := strings.Cut(text, "; "); return a + b`, "strings.Cut"},
		{`text := "x"; text = e.Err.Error(); return strings.TrimPrefix(text, "publishing ")`, "strings.TrimPrefix"},
		{`for line := range strings.SplitSeq(err.Error(), "\n") { f(line) }`, "strings.SplitSeq"},
		{`return trouble.MatchString(err.Error())`, "MatchString"},
		{`text := fmt.Sprint(err); return trouble.FindStringSubmatch(text)`, "FindStringSubmatch"},
		{`return strings.Contains(fmt.Sprintf("%v", err), "refused")`, "strings.Contains"},
		{`_, _ = fmt.Sscanf(err.Error(), "code %d", &code)`, "fmt.Sscanf"},
		{`return err.Error() == told`, "=="},
		{`told := err.Error(); return other != told`, "!="},
		{`seen[err.Error()] = true`, "a map's key"},
		{`text := err.Error(); n := count[text]; return n`, "a map's key"},
		{`switch err.Error() { case "EOF": return 1 }`, "switch"},
		{`return len(err.Error()) > 100`, "len"},
		{`return err.Error()[:20]`, "a part"},
		{`var text = err.Error(); return strings.HasSuffix(text, ":")`, "strings.HasSuffix"},

		{`return fmt.Errorf("zone: %w", err)`, ""},
		{`return "the CA: " + err.Error()`, ""},
		{`list = append(list, err.Error()); return strings.Join(list, "; ")`, ""},
		{`return printable.Line(err.Error())`, ""},
		{`if err.Code == 5 { return strings.Cut(output, "; ") }`, ""},
	}
	for _, tt := range tests {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f(err error) any {\n"+tt.body+"\n}", 0)
		if err != nil {
			t.Fatalf("%s: %v", tt.body, err)
		}
		var got []string
		for _, read := range readsOfErrors(file) {
			got = append(got, read.what)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: found %q, want %q", tt.body, got, tt.want)
		}
	}
}

// errorRead is a place that reads the text of an error.
type errorRead struct {
	function, what string
	at             token.Pos
}

// readsOfErrors finds where the functions of a file read the text of an error: that of a call of a method Error, of fmt with an
// argument called err, or of a variable that was set to one of these.
func readsOfErrors(file *ast.File) (list []errorRead) {
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		r := reader{texts: map[string]bool{}}
		ast.Inspect(fn.Body, r.note)
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if what := r.reads(n); what != "" {
				list = append(list, errorRead{fn.Name.Name, what, n.Pos()})
			}
			return true
		})
	}
	return list
}

// reader knows the variables of a function that hold the text of an error.
type reader struct{ texts map[string]bool }

// note remembers the variables that are set to the text of an error.
func (r reader) note(n ast.Node) bool {
	set := func(to ast.Expr, value ast.Expr) {
		if name, ok := to.(*ast.Ident); ok && r.isText(value) {
			r.texts[name.Name] = true
		}
	}
	switch n := n.(type) {
	case *ast.AssignStmt:
		if len(n.Lhs) == len(n.Rhs) {
			for i := range n.Lhs {
				set(n.Lhs[i], n.Rhs[i])
			}
		}
	case *ast.ValueSpec:
		for i := range n.Values {
			set(n.Names[i], n.Values[i])
		}
	}
	return true
}

// isText reports whether an expression is the text of an error.
func (r reader) isText(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return r.texts[e.Name]
	case *ast.ParenExpr:
		return r.isText(e.X)
	case *ast.CallExpr:
		called, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		if called.Sel.Name == "Error" && len(e.Args) == 0 {
			return true
		}
		if pkg, ok := called.X.(*ast.Ident); ok && pkg.Name == "fmt" && strings.HasPrefix(called.Sel.Name, "Sprint") {
			return slices.ContainsFunc(e.Args, func(arg ast.Expr) bool {
				name, ok := arg.(*ast.Ident)
				return ok && name.Name == "err"
			}) && (called.Sel.Name == "Sprint" || len(e.Args) == 2)
		}
	}
	return false
}

// reads says how a node reads the text of an error, "" when it doesn't.
func (r reader) reads(n ast.Node) string {
	switch n := n.(type) {
	case *ast.CallExpr:
		return r.readsByCall(n)
	case *ast.BinaryExpr:
		if compares := []token.Token{token.EQL, token.NEQ, token.LSS, token.GTR}; slices.Contains(compares, n.Op) && (r.isText(n.X) || r.isText(n.Y)) {
			return n.Op.String()
		}
	case *ast.IndexExpr:
		if r.isText(n.Index) {
			return "a map's key"
		}
		if r.isText(n.X) {
			return "a part"
		}
	case *ast.SliceExpr:
		if r.isText(n.X) {
			return "a part"
		}
	case *ast.SwitchStmt:
		if n.Tag != nil && r.isText(n.Tag) {
			return "switch"
		}
	}
	return ""
}

func (r reader) readsByCall(call *ast.CallExpr) string {
	if !slices.ContainsFunc(call.Args, r.isText) {
		return ""
	}
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		if fun.Name == "len" {
			return fun.Name
		}
	case *ast.SelectorExpr:
		pkg, _ := fun.X.(*ast.Ident)
		name := fun.Sel.Name
		switch {
		case pkg != nil && slices.Contains([]string{"strings", "bytes", "regexp", "strconv"}, pkg.Name), pkg != nil && pkg.Name == "fmt" && strings.HasPrefix(name, "Sscan"):
			return pkg.Name + "." + name
		case strings.HasPrefix(name, "MatchString"), strings.HasPrefix(name, "FindString"), strings.HasPrefix(name, "FindAllString"), strings.HasPrefix(name, "ReplaceAllString"):
			return name
		}
	}
	return ""
}
