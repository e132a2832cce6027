package read

import (
	"encoding/json"
	"go/token"
	"go/types"
	"strconv"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// where is the place of a type: what a problem with it is reported of.
type where struct {
	pos  token.Pos
	what string // "field User.ID"
	note note
}

// maxTuple is the longest array that is written as a tuple.
const maxTuple = 16

// typeOf is the JSON of t as encoding/json writes and reads it.
func (r *reader) typeOf(t types.Type, w where) *model.Type {
	if text, ok := w.note.directives["type"]; ok {
		return &model.Type{Kind: model.Mapped, Text: text}
	}
	m := r.bare(t, w)
	if w.note.has("notnull") {
		m = notNull(m)
	}
	return m
}

func notNull(m *model.Type) *model.Type {
	out := *m
	out.Null = false
	return &out
}

// bare is typeOf without what comments at the place say.
func (r *reader) bare(t types.Type, w where) *model.Type {
	t = types.Unalias(t)
	if named, ok := t.(*types.Named); ok {
		return r.namedType(named, w)
	}
	if p, ok := t.(*types.TypeParam); ok {
		r.fail(w.pos, "%s has the type parameter %s: declare it with types that are known", w.what, p)
		return &model.Type{}
	}
	return r.structure(t, w)
}

// structure is the JSON of t by its kind alone: t has no name, or its name says nothing.
func (r *reader) structure(t types.Type, w where) *model.Type {
	switch u := t.Underlying().(type) {
	case *types.Basic:
		return r.basic(u, w)
	case *types.Pointer:
		m := *r.bare(u.Elem(), w)
		m.Null = true
		return &m
	case *types.Slice:
		if r.isByte(u.Elem()) {
			m := r.builtin("encoding/base64", "Base64")
			return &model.Type{Kind: model.Ref, Ref: m, Null: !r.options.NotNull}
		}
		return &model.Type{Kind: model.Array, Null: !r.options.NotNull, Elem: r.bare(u.Elem(), w)}
	case *types.Array:
		if u.Len() > maxTuple {
			return &model.Type{Kind: model.Array, Elem: r.bare(u.Elem(), w), Len: u.Len()}
		}
		return &model.Type{Kind: model.Tuple, Elem: r.bare(u.Elem(), w), Len: u.Len()}
	case *types.Map:
		return &model.Type{Kind: model.Map, Null: !r.options.NotNull, Key: r.key(u.Key(), w), Elem: r.bare(u.Elem(), w)}
	case *types.Struct:
		if text, ok := r.custom(t, w); ok {
			return text
		}
		return &model.Type{Kind: model.Object, Fields: r.fields(t, w)}
	case *types.Interface:
		return &model.Type{Kind: model.Unknown}
	}
	r.fail(w.pos, "%s is a %s, which JSON cannot carry: give it another type, or the tag `json:\"-\"`", w.what, r.typeName(t))
	return &model.Type{}
}

func (r *reader) basic(b *types.Basic, w where) *model.Type {
	info := b.Info()
	switch {
	case info&types.IsBoolean != 0:
		return &model.Type{Kind: model.Bool}
	case info&types.IsString != 0:
		return &model.Type{Kind: model.String}
	case info&types.IsInteger != 0:
		switch b.Kind() {
		case types.Int64, types.Uint64, types.Uintptr:
			r.large(b, w)
		}
		return &model.Type{Kind: model.Number, Format: integerFormat(b.Kind())}
	case info&types.IsFloat != 0:
		if b.Kind() == types.Float32 {
			return &model.Type{Kind: model.Number, Format: "float"}
		}
		return &model.Type{Kind: model.Number, Format: "double"}
	}
	r.fail(w.pos, "%s is a %s, which JSON cannot carry: give it another type, or the tag `json:\"-\"`", w.what, b)
	return &model.Type{}
}

// large reports an integer whose values JavaScript cannot all hold.
func (r *reader) large(b *types.Basic, w where) {
	if !r.options.Safe && !w.note.has("safe") {
		r.warn(w.pos, "%s is %s: JavaScript rounds numbers beyond 2^53. Give the field the tag `json:\",string\"`, or say %ssafe where its values are smaller", w.what, b, directive)
	}
}

func integerFormat(k types.BasicKind) string {
	switch k {
	case types.Int8:
		return "int8"
	case types.Int16:
		return "int16"
	case types.Int32:
		return "int32"
	case types.Uint8:
		return "uint8"
	case types.Uint16:
		return "uint16"
	case types.Uint32:
		return "uint32"
	case types.Uint, types.Uint64, types.Uintptr:
		return "uint64"
	}
	return "int64"
}

// isByte reports whether a slice of t is written as base64, as encoding/json decides.
func (r *reader) isByte(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Kind() == types.Uint8 && r.method(t, "MarshalJSON") == nil && r.method(t, "MarshalText") == nil
}

// key is the type of a map's keys.
func (r *reader) key(t types.Type, w where) *model.Type {
	basic, ok := t.Underlying().(*types.Basic)
	if ok && basic.Info()&types.IsString != 0 {
		if named, isNamed := types.Unalias(t).(*types.Named); isNamed && r.method(t, "MarshalText") == nil {
			if m := r.namedType(named, w); m.Kind == model.Ref && len(m.Ref.Enum) > 0 {
				return m
			}
		}
		return &model.Type{Kind: model.String}
	}
	if ok && basic.Info()&types.IsInteger != 0 || r.method(t, "MarshalText") != nil {
		return &model.Type{Kind: model.String}
	}
	r.fail(w.pos, "%s is a map by %s, which JSON cannot carry: keys are strings, integers, or have MarshalText", w.what, r.typeName(t))
	return &model.Type{Kind: model.String}
}

// namedType is the JSON of a type that has a name.
func (r *reader) namedType(t *types.Named, w where) *model.Type {
	obj := t.Obj()
	if obj.Pkg() == nil { // error, comparable
		return &model.Type{Kind: model.Unknown}
	}
	if m, ok := r.wellKnown(t); ok {
		return m
	}
	if m := r.named.At(t); m != nil {
		return r.refTo(m.(*model.Named))
	}
	about := r.noteOf(obj.Pkg(), obj.Pos())
	text, mapped := about.directives["type"]
	if other, ok := r.options.Types[obj.Pkg().Path()+"."+obj.Name()]; ok {
		r.used[obj.Pkg().Path()+"."+obj.Name()] = true
		text, mapped = other, true
	}
	// The place of what is wrong inside it is the type, not who uses it.
	in := where{obj.Pos(), "type " + r.typeName(t), about}
	if r.own(obj.Pkg()) == nil {
		in.pos = w.pos
	}
	m := &model.Named{Go: r.goName(t), Doc: about.doc, Pos: r.at(obj.Pos()), Package: obj.Pkg().Name()}
	m.Name = r.tsName(t)
	r.named.Set(t, m)
	r.api.Types = append(r.api.Types, m)
	if mapped {
		m.Type = &model.Type{Kind: model.Mapped, Text: text}
	} else if custom, ok := r.custom(t, in); ok {
		m.Type = custom
	} else if !r.enum(t, m) {
		m.Null = r.nil(t) && !about.has("notnull")
		in.note = note{directives: keep(about.directives, "safe")}
		m.Type = notNull(r.structure(t, in))
	}
	return r.refTo(m)
}

// nil reports whether null is among the values of t, as its kind says.
func (r *reader) nil(t types.Type) bool {
	switch t.Underlying().(type) {
	case *types.Pointer:
		return true
	case *types.Slice, *types.Map:
		return !r.options.NotNull
	}
	return false
}

// keep is the directives that hold inside, too.
func keep(all map[string]string, words ...string) map[string]string {
	out := map[string]string{}
	for _, w := range words {
		if v, ok := all[w]; ok {
			out[w] = v
		}
	}
	return out
}

func (r *reader) refTo(m *model.Named) *model.Type {
	if m.Type == nil { // it is being read: it contains itself
		m.Recursive = true
	}
	return &model.Type{Kind: model.Ref, Ref: m, Null: m.Null}
}

// enum makes m the union of the constants of type t, if there are any.
func (r *reader) enum(t *types.Named, m *model.Named) bool {
	basic, ok := t.Underlying().(*types.Basic)
	if !ok || t.TypeArgs().Len() > 0 {
		return false
	}
	pkg := t.Obj().Pkg()
	x := r.index(pkg.Path())
	var found []*types.Const
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if ok && types.Identical(c.Type(), t) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return false
	}
	r.sortByPos(found)
	m.Type = r.basic(basic, where{t.Obj().Pos(), "type " + t.Obj().Name(), note{directives: map[string]string{"safe": ""}}})
	m.Open = x.flags[t.Obj()]
	for _, c := range found {
		value := jsonOf(c.Val())
		if n, err := strconv.ParseInt(value, 10, 64); basic.Info()&types.IsInteger != 0 && (err != nil || n > maxSafe || n < -maxSafe) {
			r.warn(c.Pos(), "constant %s is beyond 2^53, where JavaScript rounds: give %s another type", c.Name(), t.Obj().Name())
			m.Open = true
		}
		m.Enum = append(m.Enum, model.Const{Name: constName(t.Obj().Name(), c.Name()), Doc: x.notes[c.Pos()].doc, Value: value})
	}
	return true
}

const maxSafe = 1<<53 - 1

// wellKnown are types whose JSON is known, although they write it themselves.
func (r *reader) wellKnown(t *types.Named) (*model.Type, bool) {
	obj := t.Obj()
	name := obj.Pkg().Path() + "." + obj.Name()
	if _, ok := r.options.Types[name]; ok {
		return nil, false
	}
	switch name {
	case "time.Time", "time.Duration":
		return &model.Type{Kind: model.Ref, Ref: r.builtin("time", obj.Name())}, true
	case "encoding/json.RawMessage", root + ".Raw", "encoding/json/jsontext.Value":
		return &model.Type{Kind: model.Unknown}, true
	case "encoding/json.Number":
		return &model.Type{Kind: model.Number, Format: "double"}, true
	case root + ".Bytes":
		return &model.Type{Kind: model.Bytes}, true
	}
	return nil, false
}

// builtins are types of the output that stand for Go's.
var builtins = map[string]model.Named{
	"time.Time":              {Doc: "A time, as RFC 3339 writes it: \"2006-01-02T15:04:05.999999999Z\". new Date(time) reads it, and toISOString() writes it.", Type: &model.Type{Kind: model.String, Format: "date-time"}},
	"time.Duration":          {Doc: "A duration in nanoseconds, 1e6 of which are a millisecond.", Type: &model.Type{Kind: model.Number, Format: "int64"}},
	"encoding/base64.Base64": {Doc: "Bytes, as base64 in the standard alphabet, padded.", Type: &model.Type{Kind: model.String, Format: "byte"}},
}

func (r *reader) builtin(path, name string) *model.Named {
	for _, m := range r.api.Types {
		if m.Go == path+"."+name {
			return m
		}
	}
	m := builtins[path+"."+name]
	m.Go, m.Name, m.Package = path+"."+name, name, path
	r.api.Types = append(r.api.Types, &m)
	return &m
}

// quote is s as JSON writes it.
func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func number(f float64) string {
	b, _ := json.Marshal(f)
	return string(b)
}
