package vet

import (
	"go/ast"
	"go/types"
	"reflect"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/types/typeutil"
)

// Messages reports declarations whose messages cannot cross: that are interfaces or
// have one inside, and those of protobuf's that are not made by an Alloc; and Allocs
// for what is no message of their declaration.
var Messages = &analysis.Analyzer{
	Name: "messages",
	Doc: `find declarations whose messages cannot be decoded

JSON decodes nothing into an interface that has methods, since it does not know which
type is meant. So a message that is one, or has a field of one, encodes and does not
decode:

	type Drawing struct{ Shapes []Shape } // Shape is an interface

	var Draw = typedrpc.NewMethod[Drawing, struct{}]("draw")

Types that decode themselves, the empty interface and fields with the tag json:"-" are
not reported, nor is anything in a package that has a codec of its own, or imports one
that does.

A message that is used by pointer is made by Alloc of the type behind the pointer.
Reported are an Alloc that none of the messages needs, and a message of protobuf's
without one:

	typedrpc.NewMethod[*pb.Point, *pb.Feature]("get", typedrpc.Alloc[*pb.Point]())`,
	URL:      "https://pkg.go.dev/github.com/typedrpc/typedrpc/vet#Messages",
	Requires: []*analysis.Analyzer{inspect.Analyzer},
	Run:      runMessages,
}

func runMessages(pass *analysis.Pass) (any, error) {
	codec := hasCodec(pass.Pkg)
	for _, p := range pass.Pkg.Imports() {
		codec = codec || !ours(p) && hasCodec(p)
	}
	for c := range cursor(pass).Preorder((*ast.CallExpr)(nil)) {
		call := c.Node().(*ast.CallExpr)
		f := callee(pass, call)
		if f == nil || !strings.HasPrefix(f.Name(), "New") || takesContext(f) || f.Signature().TypeParams().Len() == 0 {
			continue
		}
		declared := named(pass.TypesInfo.TypeOf(call))
		if declared == nil || !ours(declared.Obj().Pkg()) {
			continue
		}
		for m := range declared.TypeArgs().Types() {
			if where := interfaceIn(m); where != "" && !codec {
				pass.ReportRangef(call, "the message %s of %s cannot be decoded: %s", short(pass, m), name(f), where)
			}
		}
		if f.Signature().Variadic() {
			checkAllocs(pass, call, f.Signature().Params().Len()-1, declared.TypeArgs())
		}
	}
	return nil, nil
}

// checkAllocs looks at the Allocs among the traits of a declaration, which are its
// arguments from the first on.
func checkAllocs(pass *analysis.Pass, call *ast.CallExpr, first int, messages *types.TypeList) {
	known := !call.Ellipsis.IsValid() // no trait is given in a way that hides an Alloc
	var made []types.Type
	for i, arg := range call.Args {
		if i < first {
			continue
		}
		if n := named(pass.TypesInfo.TypeOf(arg)); n == nil || !ours(n.Obj().Pkg()) {
			known = false
		}
		trait, ok := ast.Unparen(arg).(*ast.CallExpr)
		if !ok {
			known = known && constant(pass, arg)
			continue
		}
		f := callee(pass, trait)
		if f == nil {
			known = false
			continue
		}
		if f.Name() != "Alloc" {
			continue
		}
		of := allocated(pass, trait)
		if of == nil {
			known = false
			continue
		}
		made = append(made, of)
		if needed := types.NewPointer(of); !open(of) && !contains(messages, needed) {
			pass.ReportRangef(trait, "no message of this declaration is a %s: an Alloc is given the type behind the pointer, and makes nothing else", short(pass, needed))
		}
	}
	for m := range messages.Types() {
		p, ok := types.Unalias(m).(*types.Pointer)
		if !known || !ok || !method(p.Elem(), "ProtoReflect") {
			continue
		}
		found := false
		for _, of := range made {
			found = found || types.Identical(of, p.Elem())
		}
		if !found {
			pass.ReportRangef(call, "the message %s is protobuf's and is given to codecs as a pointer to that: the declaration needs typedrpc.Alloc[%s]()", short(pass, m), short(pass, p.Elem()))
		}
	}
}

// constant reports whether a trait is one of the library's constants.
func constant(pass *analysis.Pass, arg ast.Expr) bool {
	return pass.TypesInfo.Types[arg].Value != nil
}

// allocated is the type argument of an Alloc, nil if it is not to be seen.
func allocated(pass *analysis.Pass, call *ast.CallExpr) types.Type {
	var id *ast.Ident
	switch x := ast.Unparen(call.Fun).(type) {
	case *ast.IndexExpr:
		switch fun := ast.Unparen(x.X).(type) {
		case *ast.Ident:
			id = fun
		case *ast.SelectorExpr:
			id = fun.Sel
		}
	}
	if id == nil {
		return nil
	}
	if args := pass.TypesInfo.Instances[id].TypeArgs; args.Len() == 1 {
		return args.At(0)
	}
	return nil
}

func contains(list *types.TypeList, t types.Type) bool {
	for m := range list.Types() {
		if types.Identical(m, t) || open(m) {
			return true
		}
	}
	return false
}

// open reports whether t depends on a type parameter, so that it is not known here.
func open(t types.Type) bool {
	switch t := types.Unalias(t).(type) {
	case *types.TypeParam:
		return true
	case *types.Pointer:
		return open(t.Elem())
	case *types.Named:
		for arg := range t.TypeArgs().Types() {
			if open(arg) {
				return true
			}
		}
	}
	return false
}

func short(pass *analysis.Pass, t types.Type) string {
	return types.TypeString(t, types.RelativeTo(pass.Pkg))
}

// hasCodec reports whether a package has a type with a codec's methods.
func hasCodec(p *types.Package) bool {
	scope := p.Scope()
	for _, n := range scope.Names() {
		if t, ok := scope.Lookup(n).(*types.TypeName); ok && method(t.Type(), "Name") && method(t.Type(), "Append") && method(t.Type(), "Decode") && method(t.Type(), "Check") {
			return true
		}
	}
	return false
}

// method reports whether t, or a pointer to it, has a method of that name.
func method(t types.Type, name string) bool {
	o, _, _ := types.LookupFieldOrMethod(t, true, nil, name)
	_, ok := o.(*types.Func)
	return ok
}

// interfaceIn says where in a message there is an interface with methods, "" if there
// is none, or if what it is in decodes itself.
func interfaceIn(message types.Type) string {
	var seen typeutil.Map
	var look func(t types.Type, path string) string
	look = func(t types.Type, path string) string {
		t = types.Unalias(t)
		if _, ok := t.(*types.TypeParam); ok || seen.At(t) != nil {
			return ""
		}
		seen.Set(t, true)
		if i, ok := t.Underlying().(*types.Interface); ok {
			if i.NumMethods() == 0 {
				return ""
			}
			if path == "" {
				return "it is an interface"
			}
			return strings.TrimPrefix(path, ".") + " is an interface"
		}
		if n, ok := t.(*types.Named); ok && (ours(n.Obj().Pkg()) || method(n, "UnmarshalJSON") || method(n, "UnmarshalText")) {
			return ""
		}
		switch u := t.Underlying().(type) {
		case *types.Pointer:
			return look(u.Elem(), path)
		case *types.Slice:
			return look(u.Elem(), path+"[]")
		case *types.Array:
			return look(u.Elem(), path+"[]")
		case *types.Map:
			return look(u.Elem(), path+"[]")
		case *types.Struct:
			for i := range u.NumFields() {
				f := u.Field(i)
				if tag := reflect.StructTag(u.Tag(i)).Get("json"); tag == "-" || !f.Exported() && !f.Embedded() {
					continue
				}
				if where := look(f.Type(), path+"."+f.Name()); where != "" {
					return where
				}
			}
		}
		return ""
	}
	return look(message, "")
}
