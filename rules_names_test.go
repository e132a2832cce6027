package typedrpc_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mostNames is how many names a program's author may have to know of the root
// package: constants, types, functions and methods. What a new capability needs comes
// instead of something, or is a package with a subject of its own, as topic and idempotency are.
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

// inside are words of what programs cannot see: a comment of what they can has no use for
// them.
var inside = regexp.MustCompile(`(?i)\b(mutex|locks? order|holds? the lock|\w+\.mu|mu)\b|internal/`)

// TestRules_publicComments keeps the inside out of what go doc shows.
func TestRules_publicComments(t *testing.T) {
	packages := 0
	for path, f := range sources(t) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/") || strings.HasPrefix(path, "examples/") {
			continue
		}
		packages++
		shown := []*ast.CommentGroup{f.Doc}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
					shown = append(shown, d.Doc)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					shown = append(shown, commentsOf(d, s)...)
				}
			}
		}
		for _, c := range shown {
			if word := inside.FindString(c.Text()); word != "" {
				t.Errorf("%s: a public comment speaks of %q, which is inside: %s", path, word, c.Text())
			}
		}
	}
	if packages < 20 {
		t.Errorf("%d files were read", packages)
	}
}

// commentsOf are those of an exported constant, variable or type, and of its fields.
func commentsOf(d *ast.GenDecl, s ast.Spec) (shown []*ast.CommentGroup) {
	var fields *ast.FieldList
	switch s := s.(type) {
	case *ast.ValueSpec:
		if s.Names[0].IsExported() {
			shown = append(shown, d.Doc, s.Doc, s.Comment)
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return nil
		}
		shown = append(shown, d.Doc, s.Doc, s.Comment)
		switch t := s.Type.(type) {
		case *ast.StructType:
			fields = t.Fields
		case *ast.InterfaceType:
			fields = t.Methods
		}
	}
	if fields != nil {
		for _, f := range fields.List {
			if len(f.Names) > 0 && f.Names[0].IsExported() {
				shown = append(shown, f.Doc, f.Comment)
			}
		}
	}
	return shown
}
