package read

import (
	"go/types"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// method returns the method of t, or of a pointer to it, by its name. What "typedrpc json"
// has written says nothing new.
func (r *reader) method(t types.Type, name string) *types.Func {
	t = types.Unalias(t)
	if _, ok := t.Underlying().(*types.Interface); ok {
		return nil // what is in it decides
	}
	if _, ok := t.(*types.Pointer); !ok {
		t = types.NewPointer(t)
	}
	obj, _, _ := types.LookupFieldOrMethod(t, false, nil, name)
	f, ok := obj.(*types.Func)
	if !ok || !writes(f, name) || r.generated[r.fset.Position(f.Pos()).Filename] {
		return nil
	}
	return f
}

// writes reports whether f has the signature by which encoders and decoders know it.
func writes(f *types.Func, name string) bool {
	params, results := f.Signature().Params(), f.Signature().Results()
	bytes := func(v *types.Var) bool {
		s, ok := types.Unalias(v.Type()).(*types.Slice)
		return ok && types.Identical(s.Elem(), types.Typ[types.Uint8])
	}
	switch name {
	case "MarshalJSON", "MarshalText":
		return params.Len() == 0 && results.Len() == 2 && bytes(results.At(0))
	case "AppendJSON":
		return params.Len() == 1 && bytes(params.At(0)) && results.Len() == 2 && bytes(results.At(0))
	}
	return params.Len() == 1 && bytes(params.At(0)) && results.Len() == 1
}

// custom is the JSON of types that write it themselves: what is known of it.
func (r *reader) custom(t types.Type, w where) (*model.Type, bool) {
	for _, name := range []string{"MarshalJSON", "AppendJSON", "UnmarshalJSON"} {
		f := r.method(t, name)
		if f == nil {
			continue
		}
		if m, ok := r.inherited(t, f); ok {
			return m, true
		}
		// A type that reads what encoding/json would write of it is what it looks like only
		// if nothing else is known of it; nobody here can tell.
		r.warn(w.pos, "%s has %s, so its JSON is not known, and is unknown in TypeScript: say what it is with %stype above the type or the field, or with -map %s=…",
			w.what, name, directive, r.mapName(t))
		return &model.Type{Kind: model.Unknown}, true
	}
	switch reads, writes := r.method(t, "UnmarshalText"), r.method(t, "MarshalText"); {
	case writes != nil:
		return &model.Type{Kind: model.String}, true
	case reads != nil:
		r.warn(w.pos, "%s has UnmarshalText and no MarshalText: it is read from a string and not written as one. Give it both", w.what)
		return &model.Type{Kind: model.Unknown}, true
	}
	return nil, false
}

// inherited is the JSON of a struct that has a method from an embedded type whose
// JSON is known.
func (r *reader) inherited(t types.Type, f *types.Func) (*model.Type, bool) {
	recv := f.Signature().Recv()
	if recv == nil {
		return nil, false
	}
	from := types.Unalias(recv.Type())
	if p, ok := from.(*types.Pointer); ok {
		from = types.Unalias(p.Elem())
	}
	named, ok := from.(*types.Named)
	if !ok || named.Obj().Pkg() == nil {
		return nil, false
	}
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		t = p.Elem()
	}
	if types.Identical(named, t) {
		return nil, false
	}
	if m, ok := r.wellKnown(named); ok {
		return m, true
	}
	return r.namedType(named, where{pos: f.Pos(), what: "type " + r.typeName(named)}), true
}

// mapName is how -map names t.
func (r *reader) mapName(t types.Type) string {
	t = types.Unalias(t)
	if p, ok := t.(*types.Pointer); ok {
		t = types.Unalias(p.Elem())
	}
	if n, ok := t.(*types.Named); ok && n.Obj().Pkg() != nil {
		return n.Obj().Pkg().Path() + "." + n.Obj().Name()
	}
	return "path.Type"
}
