package read

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"
	"unicode"

	"golang.org/x/tools/go/types/typeutil"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// declare takes a declaration. It returns nil if that has no name on the wire, or is refused.
func (r *reader) declare(f found) *model.Decl {
	_, args, _ := r.constructor(f.p, f.call)
	place := func(what string) where { return where{f.pos, title(f.kind) + " " + f.variable + what, note{}} }
	switch f.kind {
	case signInKind, faultKind:
		if r.goTypes {
			r.unnamed(f, args, place)
			return nil
		}
	}
	switch f.kind {
	case signInKind:
		r.api.SignIns = append(r.api.SignIns, &model.SignIn{Var: f.variable, Doc: f.about.doc, Pos: r.at(f.pos),
			Creds: r.typeOf(args.At(0), place("'s credentials")), Reply: r.typeOf(args.At(1), place("'s reply"))})
		return nil
	case faultKind:
		r.fault(f, r.typeOf(args.At(0), place("'s data")))
		return nil
	}
	name, ok := text(f.p, f.call.Args[0])
	if !ok {
		r.warn(f.pos, "the name of %s %s is no constant, so it is left out: write it where it is declared", title(f.kind), f.variable)
		return nil
	}
	d := &model.Decl{Kind: f.kind, Name: name, Var: f.variable, Doc: f.about.doc, Pos: r.at(f.pos), Path: pathOf(name), Handler: f.about.directives["handler"]}
	if p, ok := f.about.directives["name"]; ok {
		d.Path = pathOf(p)
	}
	if h := d.Handler; f.about.has("handler") && h != "client" && h != "server" {
		r.fail(f.pos, "%shandler is followed by client or server, not %q", directive, h)
	}
	if !r.claim(d, f.pos) {
		return nil
	}
	r.messages(d, args, place)
	for _, x := range f.call.Args[1:] {
		r.trait(d, site{f.p, x}, f.pos, f.call.Ellipsis.IsValid(), 0)
	}
	r.api.Decls = append(r.api.Decls, d)
	return d
}

// claim refuses a second declaration of one name, unless it is the same.
func (r *reader) claim(d *model.Decl, pos token.Pos) bool {
	if other := r.taken[d.Name]; other != nil {
		r.fail(pos, "%q is declared here and at %s: each name is one declaration's; leave one out with %signore", d.Name, other.Pos, directive)
		return false
	}
	r.taken[d.Name] = d
	return true
}

// messages reads the types of d's messages.
func (r *reader) messages(d *model.Decl, args *types.TypeList, place func(string) where) {
	for _, c := range constructors {
		if c.kind != d.Kind {
			continue
		}
		for i, use := range c.types {
			switch use {
			case 'r':
				d.Request = r.message(d, args.At(i), place("'s request"))
			case 'u':
				d.Up = r.message(d, args.At(i), place("'s items"))
			case 'd':
				d.Down = r.message(d, args.At(i), place("'s items"))
			case 'a':
				d.Response = r.message(d, args.At(i), place("'s response"))
			}
		}
	}
}

func (r *reader) fault(x found, data *model.Type) {
	name, ok := text(x.p, x.call.Args[0])
	code, isConst := integer(x.p, x.call.Args[1])
	if !ok || !isConst {
		r.warn(x.pos, "the name or the code of fault %s is no constant, so it is left out: write it where it is declared", x.variable)
		return
	}
	for _, f := range r.api.Faults {
		if f.Name == name {
			r.fail(x.pos, "the fault %q is declared here and at %s: each name is one fault's", name, f.Pos)
			return
		}
	}
	r.api.Faults = append(r.api.Faults, &model.Fault{Name: name, Var: x.variable, Doc: x.about.doc, Pos: r.at(x.pos), Code: code, Data: data})
}

// trait reads a trait: a constant, a call, a variable that is one, or a slice of them.
func (r *reader) trait(d *model.Decl, s site, pos token.Pos, many bool, depth int) {
	x := ast.Unparen(s.x)
	unseen := func() {
		r.warn(pos, "a trait of %s %s cannot be seen, so it is left out: give it to the constructor itself", title(d.Kind), d.Var)
	}
	if depth > 8 {
		unseen()
		return
	}
	switch v := x.(type) {
	case *ast.CompositeLit:
		if many {
			for _, e := range v.Elts {
				r.trait(d, site{s.p, e}, pos, false, depth+1)
			}
			return
		}
	case *ast.Ident, *ast.SelectorExpr:
		obj := r.object(s.p, x)
		if obj == nil || obj.Pkg() == nil {
			break
		}
		switch obj.Pkg().Path() {
		case root, root + "/topic", root + "/transfer":
			if apply(d, obj.Name()) {
				return
			}
		}
		if v, ok := obj.(*types.Var); ok && v.Parent() == v.Pkg().Scope() {
			if value, ok := r.valueOf(v); ok {
				r.trait(d, value, pos, many, depth+1)
				return
			}
		}
	case *ast.CallExpr:
		f, ok := typeutil.Callee(s.p.TypesInfo, v).(*types.Func)
		if !ok || f.Pkg() == nil || !strings.HasPrefix(f.Pkg().Path(), root) {
			break
		}
		if r.traitCall(d, s, v, f.Name(), pos) {
			return
		}
	}
	unseen()
}

// apply takes a trait without parameters.
func apply(d *model.Decl, name string) bool {
	switch name {
	case "Idempotent":
		d.Idempotent = true
	case "Keyed":
		d.Keyed = true
	case "Serial":
		d.Serial = true
	case "Safe":
		d.Safe = true
	case "Inline": // says nothing to callers
	case "Restartable":
		d.Restartable = true
	case "WithPresence":
		d.Presence = true
	case "Disconnect", "DropOldest", "DropNewest", "LatestOnly":
		d.Policy = name
	default:
		return false
	}
	return true
}

// traitCall takes a trait with parameters. Those that only Go's side needs have no
// effect here.
func (r *reader) traitCall(d *model.Decl, s site, call *ast.CallExpr, name string, pos token.Pos) bool {
	number := func(i int, to *int64) bool {
		v, ok := integer(s.p, call.Args[i])
		if !ok {
			r.warn(pos, "%s of %s %s is no constant, so it is left out", name, title(d.Kind), d.Var)
		}
		*to = v
		return true
	}
	switch name {
	case "Timeout":
		return number(0, (*int64)(&d.Timeout))
	case "MaxSize":
		return number(0, &d.MaxSize)
	case "MaxQueued":
		return number(0, &d.MaxQueued)
	case "History":
		return number(0, &d.History) && number(1, (*int64)(&d.HistoryAge))
	case "WaitAtMost":
		d.Policy = name
		return true
	case "Params":
		for _, arg := range call.Args {
			p, ok := text(s.p, arg)
			if !ok {
				r.warn(pos, "the Params of %s %s are no constants, so they are left out", title(d.Kind), d.Var)
				d.Params = nil
				return true
			}
			d.Params = append(d.Params, p)
		}
		return true
	case "Alloc":
		for _, m := range []*model.Type{d.Request, d.Response, d.Up, d.Down} {
			r.allocated(d, m, s, call)
		}
		return true
	case "Retry", "Tag":
		return true
	}
	return false
}

// allocated says that the messages of a type that is used by pointer are never nil.
func (r *reader) allocated(d *model.Decl, m *model.Type, s site, call *ast.CallExpr) {
	id := identOf(call.Fun)
	if ix, ok := ast.Unparen(call.Fun).(*ast.IndexExpr); ok {
		id = identOf(ix.X)
	}
	if id == nil {
		return
	}
	args := s.p.TypesInfo.Instances[id].TypeArgs
	for i := range r.types {
		if r.types[i].decl == d && args.Len() == 1 && types.Identical(r.types[i].Type, types.NewPointer(args.At(0))) {
			r.types[i].Alloc = true
		}
	}
	if m == nil || m.Kind != model.Ref {
		return
	}
	if args.Len() == 1 {
		if named := r.named.At(args.At(0)); named == m.Ref {
			m.Null = false
		}
	}
}

// pathOf is where a name is in the client object: its parts, each made an identifier.
func pathOf(name string) []string {
	var path []string
	for part := range strings.FieldsFuncSeq(name, func(c rune) bool { return c == '.' || c == '/' }) {
		path = append(path, identifier(part))
	}
	if len(path) == 0 {
		return []string{"_"}
	}
	return path
}

// identifier is s as JavaScript spells a name: "no-stock" is noStock.
func identifier(s string) string {
	var out strings.Builder
	up := false
	for _, c := range s {
		switch {
		case unicode.IsLetter(c) || c == '_' || c == '$' || unicode.IsDigit(c) && out.Len() > 0:
			if up {
				c = unicode.ToUpper(c)
			}
			out.WriteRune(c)
			up = false
		case unicode.IsDigit(c):
			out.WriteByte('_')
			out.WriteRune(c)
		default:
			up = out.Len() > 0
		}
	}
	if out.Len() == 0 {
		return "_"
	}
	return out.String()
}
