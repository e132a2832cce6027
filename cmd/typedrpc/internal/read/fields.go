package read

import (
	"cmp"
	"go/types"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// A member is a field that encoding/json may write.
type member struct {
	name    string
	tagged  bool
	index   []int
	field   *types.Var
	options []string
	behind  bool // behind an embedded pointer: missing where that is nil
}

// fields are the members of a struct's JSON, as encoding/json finds them: those of
// embedded structs are the struct's own, of several with one name the outermost counts,
// or the one with a tag, or none.
func (r *reader) fields(t types.Type, w where) []model.Field {
	var fields []model.Field
	for _, m := range r.dominant(t, w) {
		fields = append(fields, r.field(m, w))
	}
	return fields
}

// dominant are the members that count.
func (r *reader) dominant(t types.Type, w where) []member {
	all := r.members(t, w)
	byName := map[string][]member{}
	for _, m := range all {
		byName[m.name] = append(byName[m.name], m)
	}
	var out []member
	for _, same := range byName {
		slices.SortFunc(same, func(a, b member) int {
			if c := cmp.Compare(len(a.index), len(b.index)); c != 0 {
				return c
			}
			if a.tagged != b.tagged {
				if a.tagged {
					return -1
				}
				return 1
			}
			return slices.Compare(a.index, b.index)
		})
		if len(same) > 1 && len(same[0].index) == len(same[1].index) && same[0].tagged == same[1].tagged {
			if len(same[0].index) == 1 {
				r.warn(same[1].field.Pos(), "%s has two fields that are both %q in JSON: neither is written", w.what, same[0].name)
			}
			continue
		}
		out = append(out, same[0])
	}
	slices.SortFunc(out, func(a, b member) int { return slices.Compare(a.index, b.index) })
	return out
}

// members are all fields that could be written, those of embedded structs included.
func (r *reader) members(t types.Type, w where) []member {
	type level struct {
		t      types.Type
		index  []int
		behind bool
	}
	var out []member
	visited := map[types.Type]bool{}
	for next := []level{{t: t}}; len(next) > 0; {
		current := next
		next = nil
		count := map[types.Type]int{}
		for _, l := range current {
			count[l.t]++
		}
		done := map[types.Type]bool{}
		for _, l := range current {
			if visited[l.t] || done[l.t] {
				continue
			}
			done[l.t] = true
			s := l.t.Underlying().(*types.Struct)
			for i := range s.NumFields() {
				f := s.Field(i)
				tag := reflect.StructTag(s.Tag(i)).Get("json")
				inner := f.Type()
				pointer := false
				if p, ok := types.Unalias(inner).(*types.Pointer); ok {
					inner, pointer = p.Elem(), true
				}
				inner = types.Unalias(inner)
				_, isStruct := inner.Underlying().(*types.Struct)
				if f.Embedded() && !f.Exported() && !isStruct || !f.Embedded() && !f.Exported() || tag == "-" {
					continue
				}
				name, rest, _ := strings.Cut(tag, ",")
				if !validTag(name) {
					name = ""
				}
				index := append(slices.Clone(l.index), i)
				if name == "" && f.Embedded() && isStruct {
					if pointer && !f.Exported() {
						r.warn(f.Pos(), "%s embeds a pointer to %s, which is not exported: encoding/json cannot read it. Embed the struct, or export it", w.what, f.Name())
					}
					next = append(next, level{inner, index, l.behind || pointer})
					continue
				}
				m := member{name, name != "", index, f, strings.Split(rest, ","), l.behind}
				if name == "" {
					m.name = f.Name()
				}
				out = append(out, m)
				if count[l.t] > 1 {
					out = append(out, m) // which annihilates it
				}
			}
		}
		for l := range done {
			visited[l] = true
		}
	}
	return out
}

// field is a member of an object.
func (r *reader) field(m member, w where) model.Field {
	about := r.noteOf(m.field.Pkg(), m.field.Pos())
	place := where{m.field.Pos(), "field " + strings.TrimPrefix(w.what, "type ") + "." + m.field.Name(), about}
	if _, ok := w.note.directives["safe"]; ok && !about.has("safe") {
		place.note.directives = keep(about.directives, knownDirectives...)
		place.note.directives["safe"] = ""
	}
	if r.own(m.field.Pkg()) == nil {
		place.pos = w.pos
	}
	t := m.field.Type()
	f := model.Field{Name: m.name, Doc: about.doc, Optional: m.behind}
	if slices.Contains(m.options, "string") {
		if quoted, ok := r.quoted(t); ok && !about.has("type") {
			f.Type = quoted
		}
	}
	if f.Type == nil {
		f.Type = r.typeOf(t, place)
	}
	empty := slices.Contains(m.options, "omitempty") && mayBeEmpty(t)
	zero := slices.Contains(m.options, "omitzero")
	if empty || zero {
		f.Optional = true
		// What is nil is missing, and never null; an IsZero of its own may think otherwise.
		if nillable(t) && (empty || !hasIsZero(t)) {
			f.Type = notNull(f.Type)
		}
	}
	return f
}

// quoted is the JSON of a field with the option string, where it has an effect.
func (r *reader) quoted(t types.Type) (*model.Type, bool) {
	t = types.Unalias(t)
	null := false
	if p, ok := t.(*types.Pointer); ok {
		t, null = types.Unalias(p.Elem()), true
	}
	b, ok := t.Underlying().(*types.Basic)
	if !ok || r.method(t, "MarshalJSON") != nil || r.method(t, "MarshalText") != nil || r.method(t, "UnmarshalJSON") != nil {
		return nil, false
	}
	switch info := b.Info(); {
	case info&types.IsBoolean != 0:
		return &model.Type{Kind: model.QuotedBool, Null: null}, true
	case info&types.IsString != 0:
		return &model.Type{Kind: model.String, Null: null}, true
	case info&types.IsInteger != 0:
		return &model.Type{Kind: model.QuotedNumber, Format: integerFormat(b.Kind()), Null: null}, true
	case info&types.IsFloat != 0:
		return &model.Type{Kind: model.QuotedNumber, Format: "double", Null: null}, true
	}
	return nil, false
}

// mayBeEmpty reports whether omitempty has an effect.
func mayBeEmpty(t types.Type) bool {
	switch u := t.Underlying().(type) {
	case *types.Struct:
		return false
	case *types.Array:
		return u.Len() == 0
	}
	return true
}

func nillable(t types.Type) bool {
	switch t.Underlying().(type) {
	case *types.Pointer, *types.Slice, *types.Map, *types.Interface:
		return true
	}
	return false
}

func hasIsZero(t types.Type) bool {
	obj, _, _ := types.LookupFieldOrMethod(t, true, nil, "IsZero")
	_, ok := obj.(*types.Func)
	return ok
}

// validTag reports whether encoding/json takes a name from a tag.
func validTag(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c)
	})
}
