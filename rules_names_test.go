package typedrpc_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// mostNames is how many names a program's author may have to know of the root
// package: constants, types, functions and methods. One more is one to take away.
const mostNames = 170

func TestRules_names(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	add := func(ids ...*ast.Ident) {
		for _, id := range ids {
			if id.IsExported() {
				names = append(names, id.Name)
			}
		}
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil || ast.IsExported(receiver(d)) {
					add(d.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						add(s.Name)
					case *ast.ValueSpec:
						add(s.Names...)
						if d.Tok == token.VAR && ast.IsExported(s.Names[0].Name) {
							t.Errorf("%s is a variable, which a program could assign to: make it a constant or a function", s.Names[0].Name)
						}
					}
				}
			}
		}
	}
	if len(names) > mostNames || len(names) < mostNames/2 {
		t.Errorf("package typedrpc exports %d names, at most %d are allowed", len(names), mostNames)
	}
}
