package internal_test

import (
	"go/ast"
	"go/types"
	"testing"
)

// manyFields is the number of fields from which on each has a line of its own in a literal, so that a change of one shows.
const manyFields = 5

// TestLiterals wants a line for each field of a long struct literal, in what is linked into the product.
func TestLiterals(t *testing.T) {
	linked := product(packages(t))
	var names []string
	for name := range linked {
		names = append(names, name)
	}
	for _, p := range load(t, names...) {
		for _, f := range p.Syntax {
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.CompositeLit)
				if !ok || len(lit.Elts) < manyFields || isMap(p.TypesInfo.TypeOf(lit)) {
					return true
				}
				line := p.Fset.Position(lit.Lbrace).Line
				for _, e := range lit.Elts {
					field, ok := e.(*ast.KeyValueExpr)
					if !ok {
						return true
					}
					if _, ok := field.Key.(*ast.Ident); !ok {
						return true
					}
					if at := p.Fset.Position(field.Pos()); at.Line == line {
						t.Errorf("%s: a literal of %d fields has several in one line", at, len(lit.Elts))
						return true
					}
					line = p.Fset.Position(field.End()).Line
				}
				return true
			})
		}
	}
}

func isMap(t types.Type) bool {
	_, ok := t.Underlying().(*types.Map)
	return ok
}
