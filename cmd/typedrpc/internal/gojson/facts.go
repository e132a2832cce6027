package gojson

import (
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/types/typeutil"
)

var (
	bytesType = types.NewSlice(types.Typ[types.Byte])
	errorType = types.Universe.Lookup("error").Type()

	marshaler       = with("MarshalJSON", nil, bytesType, errorType)
	textMarshaler   = with("MarshalText", nil, bytesType, errorType)
	unmarshaler     = with("UnmarshalJSON", bytesType, errorType)
	textUnmarshaler = with("UnmarshalText", bytesType, errorType)
	appender        = with("AppendJSON", bytesType, bytesType, errorType)
	zeroer          = with("IsZero", nil, types.Typ[types.Bool])
)

// with is an interface of one method.
func with(name string, param types.Type, results ...types.Type) *types.Interface {
	var in, out []*types.Var
	if param != nil {
		in = append(in, types.NewVar(token.NoPos, nil, "", param))
	}
	for _, r := range results {
		out = append(out, types.NewVar(token.NoPos, nil, "", r))
	}
	s := types.NewSignatureType(nil, nil, nil, types.NewTuple(in...), types.NewTuple(out...), false)
	i := types.NewInterfaceType([]*types.Func{types.NewFunc(token.NoPos, nil, name, s)}, nil)
	return i.Complete()
}

// A kind is how values of a type are appended or read.
type kind int

const (
	byKind   kind = iota // as the kind of its values says
	byItself             // by MarshalJSON or UnmarshalJSON
	byText               // by MarshalText or UnmarshalText
	byOther              // by encoding/json
	aTime                // time.Time
	aRaw                 // json.RawMessage
	aNumber              // json.Number
)

// known are types whose JSON is written here although they have methods.
func known(t types.Type) (kind, bool) {
	n, ok := types.Unalias(t).(*types.Named)
	if !ok || n.Obj().Pkg() == nil {
		return 0, false
	}
	switch n.Obj().Pkg().Path() + "." + n.Obj().Name() {
	case "time.Time":
		return aTime, true
	case "encoding/json.RawMessage":
		return aRaw, true
	case "encoding/json.Number":
		return aNumber, true
	}
	return 0, false
}

// appendKind is how encoding/json appends values of type t, which have an address or not.
func (g *generator) appendKind(t types.Type, addr bool) kind {
	if k, ok := known(t); ok {
		return k
	}
	_, points := t.Underlying().(*types.Pointer)
	p := types.NewPointer(t)
	switch {
	case isInterface(t) || !g.inline(t):
		return byOther
	case !points && addr && g.implements(p, marshaler), g.implements(t, marshaler):
		if points {
			return byKind // which comes to what it points to
		}
		return g.reachable(p, "MarshalJSON", byItself)
	case !points && addr && g.implements(p, textMarshaler), g.implements(t, textMarshaler):
		if points {
			return byKind
		}
		return g.reachable(p, "MarshalText", byText)
	}
	return byKind
}

// how a value is come by, when it is read: by encoding/json's rules the methods of some
// do not count.
type how int

const (
	byValue how = iota
	byPointer
	byNamed // through a pointer type that has a name
)

// readKind is how encoding/json reads values of type t.
func (g *generator) readKind(t types.Type, h how) kind {
	if k, ok := known(t); ok && h != byNamed {
		return k
	}
	if isInterface(t) || !g.inline(t) {
		return byOther
	}
	_, points := t.Underlying().(*types.Pointer)
	_, named := types.Unalias(t).(*types.Named)
	if points || h == byNamed || h == byValue && !named {
		return byKind
	}
	p := types.NewPointer(t)
	switch {
	case g.implements(p, unmarshaler):
		return g.reachable(p, "UnmarshalJSON", byItself)
	case g.implements(p, textUnmarshaler):
		return g.reachable(p, "UnmarshalText", byText)
	}
	return byKind
}

// implements reports whether a type has a method that was not written by this command.
func (g *generator) implements(t types.Type, i *types.Interface) bool {
	if !types.Implements(t, i) {
		return false
	}
	obj, _, _ := types.LookupFieldOrMethod(t, false, nil, i.Method(0).Name())
	f, ok := obj.(*types.Func)
	return ok && !g.source.Generated(f)
}

// reachable is k if the file can name the value whose method it is.
func (g *generator) reachable(p types.Type, name string, k kind) kind {
	if _, ok := g.receiver(expr{}, p, name); !ok {
		return byOther
	}
	return k
}

// receiver is the pointer to the value, in what p points to, whose method it is: methods
// that are written here may hide it.
func (g *generator) receiver(x expr, p types.Type, name string) (string, bool) {
	_, index, _ := types.LookupFieldOrMethod(p, false, nil, name)
	t := types.Unalias(p.(*types.Pointer).Elem())
	at, pointer := x.value, x.pointer
	for _, i := range index[:max(len(index)-1, 0)] {
		f := deref(t).Underlying().(*types.Struct).Field(i)
		if !f.Exported() && f.Pkg() != g.p.Types || isInterface(f.Type()) {
			return "", false
		}
		if strings.HasPrefix(at, "**") {
			at = "(" + at[1:] + ")"
		}
		at = strings.TrimPrefix(at, "*")
		at += "." + f.Name()
		t = f.Type()
		pointer = "&" + at
		if _, ok := types.Unalias(t).(*types.Pointer); ok {
			pointer = at
		}
	}
	return pointer, true
}

func deref(t types.Type) types.Type {
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		return p.Elem()
	}
	return t
}

func isInterface(t types.Type) bool {
	_, ok := t.Underlying().(*types.Interface)
	return ok
}

// inline reports whether the file can have functions for t: whether it can name it, and
// all its fields.
func (g *generator) inline(t types.Type) bool {
	if !g.spellable(t) {
		return false
	}
	if m, ok := t.Underlying().(*types.Map); ok {
		switch m.Key().Underlying().(type) {
		case *types.Pointer, *types.Interface:
			return false
		}
	}
	if _, ok := t.Underlying().(*types.Struct); !ok {
		return true
	}
	for _, m := range g.source.Members(t) {
		if _, ok := g.path("v", t, m.Path); !ok {
			return false
		}
	}
	return true
}

// path is the expression for a field of x, a t, and the embedded structs that lead to it.
func (g *generator) path(x string, t types.Type, fields []*types.Var) (steps []step, ok bool) {
	for i, f := range fields {
		if f.Exported() || f.Pkg() == g.p.Types {
			x += "." + f.Name()
			t = f.Type()
			steps = append(steps, step{x, f})
			continue
		}
		// An embedded struct of another package that has no exported name: its fields are
		// promoted.
		if _, points := types.Unalias(f.Type()).(*types.Pointer); points {
			return nil, false
		}
		next := fields[i+1]
		if obj, _, _ := types.LookupFieldOrMethod(t, true, nil, next.Name()); next.Exported() && obj != next {
			return nil, false
		}
	}
	return steps, true
}

// A step is a field on the way to another.
type step struct {
	x     string
	field *types.Var
}

// remember keeps what is found out of types; what contains itself is again while it is
// being found out.
func (g *generator) remember(what string, t types.Type, again bool, find func() bool) bool {
	m := g.facts[what]
	if m == nil {
		m = new(typeutil.Map)
		g.facts[what] = m
	}
	if there := m.At(t); there != nil {
		return there.(bool)
	}
	m.Set(t, again)
	found := find()
	m.Set(t, found)
	return found
}

// parts are the types that values of t are made of in JSON.
func (g *generator) parts(t types.Type) []types.Type {
	switch u := t.Underlying().(type) {
	case *types.Pointer:
		return []types.Type{u.Elem()}
	case *types.Slice:
		return []types.Type{u.Elem()}
	case *types.Array:
		return []types.Type{u.Elem()}
	case *types.Map:
		return []types.Type{u.Elem()}
	case *types.Struct:
		var all []types.Type
		for _, m := range g.source.Members(t) {
			all = append(all, m.Path[len(m.Path)-1].Type())
		}
		return all
	}
	return nil
}

// recursive reports whether a type with a name contains itself.
func (g *generator) recursive(t types.Type) bool {
	if _, ok := types.Unalias(t).(*types.Named); !ok {
		return false
	}
	return g.remember("recursive", t, false, func() bool {
		seen := new(typeutil.Map)
		var reaches func(types.Type) bool
		reaches = func(at types.Type) bool {
			for _, part := range g.parts(at) {
				if types.Identical(part, t) {
					return true
				}
				if seen.Set(part, true) == nil && g.appendKind(part, true) == byKind && reaches(part) {
					return true
				}
			}
			return false
		}
		return reaches(t)
	})
}

// fails reports whether appending values of t can fail.
func (g *generator) fails(t types.Type, addr bool) bool {
	what := "fails"
	if !addr {
		what = "fails without address"
	}
	return g.remember(what, t, true, func() bool {
		if g.appendKind(t, addr) != byKind || g.recursive(t) {
			return true
		}
		switch u := t.Underlying().(type) {
		case *types.Basic:
			return u.Info()&types.IsFloat != 0 || g.options.Exact && u.Info()&types.IsString != 0
		case *types.Pointer, *types.Slice:
			addr = true
		case *types.Map:
			addr = false
			if basic, ok := u.Key().Underlying().(*types.Basic); !ok || basic.Info()&types.IsString == 0 && g.implements(u.Key(), textMarshaler) || g.options.Exact {
				return true
			}
		}
		for _, part := range g.parts(t) {
			if g.fails(part, addr) {
				return true
			}
		}
		return false
	})
}

// addressed is addr where it makes a difference for t, and true otherwise.
func (g *generator) addressed(t types.Type, addr bool) bool {
	return addr || !g.remember("address", t, false, func() bool {
		if g.appendKind(t, true) != g.appendKind(t, false) {
			return true
		}
		switch t.Underlying().(type) {
		case *types.Struct, *types.Array:
			for _, part := range g.parts(t) {
				if !g.addressed(part, false) {
					return true
				}
			}
		}
		return false
	})
}
