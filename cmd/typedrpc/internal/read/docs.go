package read

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// A note is what the comments of a type, a field, a constant or a declaration say.
type note struct {
	doc        string
	directives map[string]string
	spec       *ast.ValueSpec
}

// index knows the notes of a package by the positions of the names they are for.
type index struct {
	notes map[token.Pos]note
	flags map[*types.TypeName]bool // types whose constants are made with a shift
}

// noteOf is what is written at the name at pos in package p.
func (r *reader) noteOf(p *types.Package, pos token.Pos) note {
	if p == nil {
		return note{}
	}
	return r.index(p.Path()).notes[pos]
}

func (r *reader) index(path string) *index {
	if x := r.indexed[path]; x != nil {
		return x
	}
	x := &index{map[token.Pos]note{}, map[*types.TypeName]bool{}}
	r.indexed[path] = x
	p := r.packages[path]
	if p == nil {
		return x
	}
	for _, f := range p.Syntax {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GenDecl:
				r.indexDecl(x, p, n)
			case *ast.Field:
				about := r.note(n.Doc, n.Comment)
				for _, name := range n.Names {
					x.notes[name.Pos()] = about
				}
				if len(n.Names) == 0 {
					x.notes[embeddedPos(n.Type)] = about
				}
			case *ast.BlockStmt:
				return false
			}
			return true
		})
	}
	return x
}

func (r *reader) indexDecl(x *index, p *packages.Package, d *ast.GenDecl) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			doc := s.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			x.notes[s.Name.Pos()] = r.note(doc, s.Comment)
		case *ast.ValueSpec:
			doc := s.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			about := r.note(doc, s.Comment)
			about.spec = s
			for _, name := range s.Names {
				x.notes[name.Pos()] = about
			}
			if d.Tok == token.CONST && slices.ContainsFunc(s.Values, shifts) {
				if c, ok := p.TypesInfo.Defs[s.Names[0]].(*types.Const); ok {
					if named, ok := types.Unalias(c.Type()).(*types.Named); ok {
						x.flags[named.Obj()] = true
					}
				}
			}
		}
	}
}

// shifts reports whether x shifts, as constants do that are flags.
func shifts(x ast.Expr) (yes bool) {
	ast.Inspect(x, func(n ast.Node) bool {
		if b, ok := n.(*ast.BinaryExpr); ok && b.Op == token.SHL {
			yes = true
		}
		return !yes
	})
	return yes
}

// embeddedPos is where the name of an embedded field is: that of its type.
func embeddedPos(x ast.Expr) token.Pos {
	switch x := x.(type) {
	case *ast.StarExpr:
		return embeddedPos(x.X)
	case *ast.ParenExpr:
		return embeddedPos(x.X)
	case *ast.SelectorExpr:
		return x.Sel.Pos()
	case *ast.IndexExpr:
		return embeddedPos(x.X)
	case *ast.IndexListExpr:
		return embeddedPos(x.X)
	}
	return x.Pos()
}

const directive = "//typedrpc:"

// knownDirectives are the comments that change what is written.
var knownDirectives = []string{"type", "safe", "notnull", "name", "handler", "ignore"}

func (r *reader) note(doc, line *ast.CommentGroup) note {
	var n note
	for _, g := range []*ast.CommentGroup{doc, line} {
		if g == nil {
			continue
		}
		if n.doc == "" {
			n.doc = g.Text()
		}
		for _, c := range g.List {
			rest, ok := strings.CutPrefix(c.Text, directive)
			if !ok {
				continue
			}
			word, arg, _ := strings.Cut(rest, " ")
			if !slices.Contains(knownDirectives, word) {
				r.fail(c.Pos(), "%s%s is no comment that this command knows: there are %s", directive, word, strings.Join(knownDirectives, ", "))
				continue
			}
			if n.directives == nil {
				n.directives = map[string]string{}
			}
			n.directives[word] = strings.TrimSpace(arg)
		}
	}
	return n
}

func (n note) has(word string) bool {
	_, ok := n.directives[word]
	return ok
}

// jsonOf is a constant as JSON writes it.
func jsonOf(v constant.Value) string {
	switch v.Kind() {
	case constant.String:
		return quote(constant.StringVal(v))
	case constant.Bool:
		return v.ExactString()
	case constant.Int:
		return v.ExactString()
	}
	f, _ := constant.Float64Val(v)
	return number(f)
}
