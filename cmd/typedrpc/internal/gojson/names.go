package gojson

import (
	"fmt"
	"go/types"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/tools/go/types/typeutil"
)

// A key says which of a type's functions it is.
type key struct {
	reads bool
	addr  bool // append: a value that has an address, so that methods of pointers count
}

// A function appends or reads values of a type.
type function struct {
	key
	at   place
	t    types.Type
	name string
	text string
}

// function is the name of a type's function, which is written if it is not there.
func (g *generator) function(t types.Type, k key) string {
	m := g.byKey[k]
	if m == nil {
		m = new(typeutil.Map)
		g.byKey[k] = m
	}
	if f := m.At(t); f != nil {
		return f.(*function).name
	}
	f := &function{key: k, at: g.place, t: t, name: "jsonAppend"}
	if k.reads {
		f.name = "jsonRead"
	}
	f.name = g.free(f.name + g.nameOf(t))
	m.Set(t, f)
	g.queue = append(g.queue, f)
	return f.name
}

// write writes the functions that are not yet.
func (g *generator) write() {
	for i := 0; i < len(g.queue); i++ {
		f := g.queue[i]
		g.place = f.at
		switch {
		case f.text != "":
		case f.reads:
			f.text = g.reader(f)
		default:
			f.text = g.appender(f)
		}
	}
}

// free is a name that nothing of the package has.
func (g *generator) free(name string) string {
	try := name
	for n := 2; g.taken[try] || g.declared(try); n++ {
		try = fmt.Sprintf("%s%d", name, n)
	}
	g.taken[try] = true
	return try
}

// declared reports whether the package has a name, beside what was written.
func (g *generator) declared(name string) bool {
	obj := g.p.Types.Scope().Lookup(name)
	return obj != nil && !g.source.Generated(obj)
}

// locals are the names that the functions use themselves.
var locals = map[string]bool{
	"b": true, "data": true, "dst": true, "e": true, "err": true, "i": true, "jsongen": true, "k": true, "keys": true, "list": true, "m": true, "member": true, "n": true,
	"name": true, "ok": true, "q": true, "s": true, "seen": true, "start": true, "v": true, "w": true,
}

// spell is a type as the file writes it.
func (g *generator) spell(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if p == g.p.Types {
			return ""
		}
		return g.imported(p.Path(), p.Name())
	})
}

// imported is the name of an import.
func (g *generator) imported(p, name string) string {
	if there, ok := g.imports[p]; ok {
		return there
	}
	taken := func(try string) bool {
		for _, other := range g.imports {
			if other == try {
				return true
			}
		}
		return locals[try] || g.declared(try)
	}
	try := name
	for n := 2; taken(try); n++ {
		try = fmt.Sprintf("%s%d", name, n)
	}
	g.imports[p] = try
	return try
}

// spellable reports whether the file can write t: whether all names in it are seen here.
func (g *generator) spellable(t types.Type) bool {
	switch t := types.Unalias(t).(type) {
	case *types.Named:
		obj := t.Obj()
		if obj.Pkg() != nil && obj.Pkg() != g.p.Types && (!obj.Exported() || !importable(obj.Pkg().Path(), g.p.PkgPath)) {
			return false
		}
		if obj.Pkg() != nil && obj.Parent() != obj.Pkg().Scope() {
			return false // declared in a function
		}
		if obj.Pkg() == g.p.Types && locals[obj.Name()] {
			g.source.Fail(obj.Pos(), "the generated code has a variable %s of its own: give the type another name", obj.Name())
		}
		for arg := range t.TypeArgs().Types() {
			if !g.spellable(arg) {
				return false
			}
		}
		return true
	case *types.Pointer:
		return g.spellable(t.Elem())
	case *types.Slice:
		return g.spellable(t.Elem())
	case *types.Array:
		return g.spellable(t.Elem())
	case *types.Map:
		return g.spellable(t.Key()) && g.spellable(t.Elem())
	case *types.Struct:
		for f := range t.Fields() {
			if !f.Exported() && f.Pkg() != g.p.Types || !g.spellable(f.Type()) {
				return false
			}
		}
		return true
	case *types.Basic:
		return t.Kind() != types.UnsafePointer
	}
	return true // what is left is refused elsewhere
}

// importable reports whether the package at from may import the one at p.
func importable(p, from string) bool {
	if p == "main" {
		return false
	}
	i := strings.LastIndex("/"+p+"/", "/internal/")
	if i < 0 {
		return true
	}
	parent := strings.TrimSuffix(p[:max(i-1, 0)], "/")
	return parent != "" && (from == parent || strings.HasPrefix(from, parent+"/"))
}

// nameOf is a type as a part of a name.
func (g *generator) nameOf(t types.Type) string {
	switch t := types.Unalias(t).(type) {
	case *types.Named:
		name := upper(t.Obj().Name())
		if p := t.Obj().Pkg(); p != nil && p != g.p.Types {
			name = upper(path.Base(p.Name())) + name
		}
		for arg := range t.TypeArgs().Types() {
			name += g.nameOf(arg)
		}
		return name
	case *types.Basic:
		return upper(t.Name())
	case *types.Pointer:
		return g.nameOf(t.Elem()) + "Pointer"
	case *types.Slice:
		return g.nameOf(t.Elem()) + "List"
	case *types.Array:
		return fmt.Sprintf("%sArray%d", g.nameOf(t.Elem()), t.Len())
	case *types.Map:
		return g.nameOf(t.Elem()) + "By" + g.nameOf(t.Key())
	case *types.Struct:
		return "Struct"
	}
	return "Any"
}

func upper(s string) string {
	s = strings.TrimLeft(s, "_")
	first, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return "X"
	}
	return string(unicode.ToUpper(first)) + s[n:]
}
