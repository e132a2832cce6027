package read

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
	"golang.org/x/tools/go/types/typeutil"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// constructors are the functions that make declarations, and what their type
// arguments are for: r a request, u what the caller sends, d what it receives, a
// an answer.
var constructors = map[string]struct {
	kind  model.Kind
	types string
}{
	root + ".NewMethod":            {model.Method, "ra"},
	root + ".NewNotification":      {model.Notification, "r"},
	root + ".NewServerStream":      {model.ServerStream, "rd"},
	root + ".NewClientStream":      {model.ClientStream, "rua"},
	root + ".NewBidiStream":        {model.BidiStream, "rud"},
	root + "/topic.New":            {model.Topic, "d"},
	root + "/transfer.NewUpload":   {model.Upload, "ra"},
	root + "/transfer.NewDownload": {model.Download, "r"},
	root + ".NewFault":             {faultKind, ""},
	root + ".NewSignIn":            {signInKind, ""},
}

const (
	faultKind  model.Kind = "fault"
	signInKind model.Kind = "signIn"
)

// declarationTypes are the types of declarations.
var declarationTypes = []string{
	root + ".Method", root + ".Notification", root + ".ServerStream", root + ".ClientStream", root + ".BidiStream",
	root + "/topic.Topic", root + "/transfer.Upload", root + "/transfer.Download", root + ".Fault", root + ".SignIn",
}

// isDeclaration reports whether variables of type t are declarations.
func isDeclaration(t types.Type) bool {
	n, ok := types.Unalias(t).(*types.Named)
	return ok && n.Obj().Pkg() != nil && slices.Contains(declarationTypes, n.Obj().Pkg().Path()+"."+n.Obj().Name())
}

// A site is an expression in the package whose types are known by info.
type site struct {
	p *packages.Package
	x ast.Expr
}

// found is a variable that is a declaration.
type found struct {
	origin
	variable string
	about    note
	pos      token.Pos
}

// declareAll declares what was found: first what has a constructor of its own, then
// what are other names of declarations, which may be of packages that were not asked for.
func (r *reader) declareAll() {
	made := map[*ast.CallExpr]*model.Decl{}
	for _, second := range []bool{false, true} {
		for _, f := range r.found {
			if f.second != second {
				continue
			}
			d, there := made[f.call]
			if !there {
				d = r.declare(f)
				made[f.call] = d
			}
			if d != nil && f.restartable {
				d.Restartable = true
			}
		}
	}
}

// declarations finds what p declares, and reports what it cannot see.
func (r *reader) declarations(p *packages.Package) {
	visible := map[*ast.CallExpr]bool{}
	for _, f := range p.Syntax {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					var value ast.Expr
					if len(spec.Values) == len(spec.Names) {
						value = spec.Values[i]
					} else if len(spec.Values) > 0 {
						value = spec.Values[0]
					}
					r.variable(p, name, value, visible)
				}
			}
		}
	}
	for _, f := range p.Syntax {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || visible[call] {
				return true
			}
			if kind, _, ok := r.constructor(p, call); ok {
				r.warn(call.Pos(), "this %s is not the value of a variable of the package, so it is left out: declare it as var Name = …", title(kind))
			}
			return true
		})
	}
}

// variable looks at the value of a variable of the package.
func (r *reader) variable(p *packages.Package, name *ast.Ident, value ast.Expr, visible map[*ast.CallExpr]bool) {
	about := r.noteOf(p.Types, name.Pos())
	if about.has("ignore") {
		ast.Inspect(value, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				visible[call] = true
			}
			return true
		})
		return
	}
	obj := p.TypesInfo.Defs[name]
	switch v := ast.Unparen(value).(type) {
	case nil:
		if obj != nil && isDeclaration(obj.Type()) {
			r.warn(name.Pos(), "%s has no value here, so it is left out: give it one, or say %signore", name.Name, directive)
		}
	case *ast.CompositeLit:
		r.composite(p, name.Name, v, visible)
	default:
		if o, ok := r.made(site{p, v}, 0); ok {
			r.found = append(r.found, found{o, name.Name, about, name.Pos()})
			visible[o.call] = true
		} else if obj != nil && isDeclaration(obj.Type()) {
			r.warn(name.Pos(), "how %s is made cannot be seen, so it is left out: make it with a constructor of typedrpc here, or say %signore", name.Name, directive)
		}
	}
}

// composite looks at the fields of a struct that a variable of the package is.
func (r *reader) composite(p *packages.Package, name string, lit *ast.CompositeLit, visible map[*ast.CallExpr]bool) {
	if t := p.TypesInfo.TypeOf(lit); t == nil || !isStructOrPointer(t) {
		return
	}
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, ok := kv.Key.(*ast.Ident)
		if !ok {
			continue
		}
		if inner, ok := ast.Unparen(kv.Value).(*ast.CompositeLit); ok {
			r.composite(p, name+upper(key.Name), inner, visible)
			continue
		}
		if o, ok := r.made(site{p, kv.Value}, 0); ok {
			visible[o.call] = true
			about := note{}
			if v, ok := p.TypesInfo.Uses[key].(*types.Var); ok {
				about = r.noteOf(v.Pkg(), v.Pos())
			}
			r.found = append(r.found, found{o, name + upper(key.Name), about, kv.Pos()})
		}
	}
}

func isStructOrPointer(t types.Type) bool {
	if p, ok := t.Underlying().(*types.Pointer); ok {
		t = p.Elem()
	}
	_, ok := t.Underlying().(*types.Struct)
	return ok
}

func (r *reader) object(p *packages.Package, x ast.Expr) types.Object {
	switch x := ast.Unparen(x).(type) {
	case *ast.Ident:
		return p.TypesInfo.Uses[x]
	case *ast.SelectorExpr:
		return p.TypesInfo.Uses[x.Sel]
	}
	return nil
}

// An origin is the constructor's call that makes a declaration.
type origin struct {
	call        *ast.CallExpr
	kind        model.Kind
	p           *packages.Package // where call is
	restartable bool
	second      bool // of another variable, whose declaration this is
}

// made finds what makes the declaration that s is: s itself, or behind methods that
// return it with another behaviour, and variables.
func (r *reader) made(s site, depth int) (origin, bool) {
	if depth > 16 {
		return origin{}, false
	}
	switch x := ast.Unparen(s.x).(type) {
	case *ast.CallExpr:
		if kind, _, ok := r.constructor(s.p, x); ok {
			return origin{call: x, kind: kind, p: s.p}, true
		}
		sel, ok := ast.Unparen(x.Fun).(*ast.SelectorExpr)
		if !ok {
			break
		}
		f, _ := s.p.TypesInfo.Uses[sel.Sel].(*types.Func)
		if f == nil || f.Signature().Recv() == nil || !isDeclaration(f.Signature().Recv().Type()) {
			break
		}
		o, ok := r.made(site{s.p, sel.X}, depth+1)
		o.restartable = o.restartable || f.Name() == "Restartable"
		return o, ok
	case *ast.Ident, *ast.SelectorExpr:
		v, ok := r.object(s.p, x).(*types.Var)
		if !ok || v.Pkg() == nil || v.Parent() != v.Pkg().Scope() {
			break
		}
		if value, ok := r.valueOf(v); ok {
			o, ok := r.made(value, depth+1)
			o.second = true
			return o, ok
		}
	}
	return origin{}, false
}

// valueOf is the expression that a variable of a package is initialised with.
func (r *reader) valueOf(v types.Object) (site, bool) {
	p := r.packages[v.Pkg().Path()]
	if p == nil {
		return site{}, false
	}
	spec := r.noteOf(v.Pkg(), v.Pos()).spec
	if spec == nil || len(spec.Values) != len(spec.Names) {
		return site{}, false
	}
	for i, name := range spec.Names {
		if name.Pos() == v.Pos() {
			return site{p, spec.Values[i]}, true
		}
	}
	return site{}, false
}

// constructor says which constructor call calls, if it calls one, and its type arguments.
func (r *reader) constructor(p *packages.Package, call *ast.CallExpr) (model.Kind, *types.TypeList, bool) {
	f, ok := typeutil.Callee(p.TypesInfo, call).(*types.Func)
	if !ok || f.Pkg() == nil {
		return "", nil, false
	}
	c, ok := constructors[f.Pkg().Path()+"."+f.Name()]
	if !ok || f.Signature().Recv() != nil {
		return "", nil, false
	}
	var id *ast.Ident
	switch fun := ast.Unparen(call.Fun).(type) {
	case *ast.IndexExpr:
		id = identOf(fun.X)
	case *ast.IndexListExpr:
		id = identOf(fun.X)
	default:
		id = identOf(fun)
	}
	if id == nil {
		return "", nil, false
	}
	return c.kind, p.TypesInfo.Instances[id].TypeArgs, true
}

func identOf(x ast.Expr) *ast.Ident {
	switch x := ast.Unparen(x).(type) {
	case *ast.Ident:
		return x
	case *ast.SelectorExpr:
		return x.Sel
	}
	return nil
}

func title(k model.Kind) string {
	switch k {
	case model.ServerStream, model.ClientStream, model.BidiStream:
		return strings.ToLower(strings.TrimSuffix(string(k), "Stream")) + " stream"
	case signInKind:
		return "sign-in"
	}
	return string(k)
}

// text is the value of a constant string.
func text(p *packages.Package, x ast.Expr) (string, bool) {
	v := p.TypesInfo.Types[x].Value
	if v == nil || v.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(v), true
}

// integer is the value of a constant number.
func integer(p *packages.Package, x ast.Expr) (int64, bool) {
	v := p.TypesInfo.Types[x].Value
	if v == nil {
		return 0, false
	}
	return constant.Int64Val(constant.ToInt(v))
}
