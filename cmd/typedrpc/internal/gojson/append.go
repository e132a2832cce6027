package gojson

import (
	"fmt"
	"go/types"
	"slices"
	"strings"
)

// An expr is a variable: its value, and a pointer to it.
type expr struct{ value, pointer string }

func field(x string) expr { return expr{x, "&" + x} }

// behind is what x, a pointer of type t, points to.
func (g *generator) behind(x expr, t types.Type) expr {
	if _, ok := types.Unalias(t).(*types.Named); ok {
		return expr{"*" + x.value, fmt.Sprintf("(*%s)(%s)", g.spell(t.Underlying().(*types.Pointer).Elem()), x.value)}
	}
	return expr{"*" + x.value, x.value}
}

// call is the call of a type's function.
func (g *generator) call(t types.Type, addr bool, x expr) string {
	w := ""
	if g.fails(t, addr) {
		w = ", w"
	}
	arg := x.value
	switch t.Underlying().(type) {
	case *types.Struct, *types.Array:
		arg = x.pointer
	}
	return fmt.Sprintf("dst = %s(dst, %s%s)\n", g.function(t, key{addr: addr}), arg, w)
}

// append is the code that appends a value of type t to dst.
func (g *generator) append(x expr, t types.Type, addr bool) string {
	addr = g.addressed(t, addr)
	switch g.appendKind(t, addr) {
	case byItself:
		r, _ := g.receiver(x, types.NewPointer(t), "MarshalJSON")
		return fmt.Sprintf("dst = jsongen.AppendMarshalJSON(dst, %s, w)\n", r)
	case byText:
		r, _ := g.receiver(x, types.NewPointer(t), "MarshalText")
		return fmt.Sprintf("dst = jsongen.%s(dst, %s, w)\n", g.lax("AppendMarshalText", "AppendExactText"), r)
	case byOther:
		return g.appendOther(x, t, addr)
	case aTime:
		return fmt.Sprintf("dst = jsongen.AppendTime(dst, %s, w)\n", x.value)
	case aRaw:
		return fmt.Sprintf("dst = jsongen.AppendRaw(dst, %s, w)\n", x.value)
	case aNumber:
		return fmt.Sprintf("dst = jsongen.AppendNumber(dst, %s, w)\n", x.value)
	}
	switch u := t.Underlying().(type) {
	case *types.Basic:
		return "dst = " + g.basic(x.value, u) + "\n"
	case *types.Pointer:
		return fmt.Sprintf("if %s == nil {\ndst = append(dst, \"null\"...)\n} else {\n%s}\n", x.value, g.append(g.behind(x, t), u.Elem(), true))
	case *types.Slice:
		if g.base64(u.Elem()) {
			if types.Identical(u.Elem(), types.Typ[types.Byte]) {
				return fmt.Sprintf("dst = jsongen.AppendBase64(dst, %s)\n", x.value)
			}
			return fmt.Sprintf("dst = jsongen.AppendBytes(dst, %s)\n", x.value)
		}
	case *types.Struct, *types.Array, *types.Map:
	default:
		g.refuse(t)
		return ""
	}
	return g.call(t, addr, x)
}

// base64 reports whether a slice of t is written so.
func (g *generator) base64(t types.Type) bool {
	basic, ok := t.Underlying().(*types.Basic)
	p := types.NewPointer(t)
	return ok && basic.Kind() == types.Uint8 && !g.implements(p, marshaler) && !g.implements(p, textMarshaler)
}

// lax is the first where encoding/json's ways are taken, and the second where not.
func (g *generator) lax(lax, exact string) string {
	if g.options.Exact {
		return exact
	}
	return lax
}

// refuse reports a type that JSON cannot carry.
func (g *generator) refuse(t types.Type) {
	g.source.Fail(g.pos, "%s is a %s, which JSON cannot carry: give it another type, or the tag `json:\"-\"`", g.what, short(t))
}

// appendOther has encoding/json write a value.
func (g *generator) appendOther(x expr, t types.Type, addr bool) string {
	if i, ok := t.Underlying().(*types.Interface); ok {
		if i.NumMethods() > 0 {
			g.source.Fail(g.pos, "%s is a %s, an interface that JSON cannot be read into: give it another type, or the tag `json:\"-\"`", g.what, short(t))
		}
		g.source.Warn(g.pos, "%s is any, which encoding/json carries, by reflection: give it a type to be rid of that", g.what)
		addr = false
	} else {
		g.source.Warn(g.pos, "%s is %s, which has parts that no code of this package can name, so that encoding/json carries it, by reflection", g.what, short(t))
	}
	arg := x.value
	if addr {
		arg = x.pointer
	}
	return fmt.Sprintf("if b, err := %s.Marshal(%s); w.Check(err) {\ndst = append(dst, b...)\n}\n", g.imported("encoding/json", "json"), arg)
}

func (g *generator) basic(x string, b *types.Basic) string {
	switch info := b.Info(); {
	case info&types.IsBoolean != 0:
		return "jsongen.AppendBool(dst, " + x + ")"
	case info&types.IsString != 0:
		return "jsongen." + g.lax("AppendString(dst, "+x+")", "AppendExact(dst, "+x+", w)")
	case info&types.IsUnsigned != 0:
		return "jsongen.AppendUint(dst, " + x + ")"
	case info&types.IsInteger != 0:
		return "jsongen.AppendInt(dst, " + x + ")"
	case info&types.IsFloat != 0:
		return "jsongen.AppendFloat(dst, " + x + ", w)"
	}
	g.refuse(b)
	return "dst"
}

// appender is the text of a function that appends values of a type.
func (g *generator) appender(f *function) string {
	var b strings.Builder
	param := "v " + g.spell(f.t)
	switch f.t.Underlying().(type) {
	case *types.Struct, *types.Array:
		param = "v *" + g.spell(f.t)
	}
	if g.fails(f.t, f.addr) {
		param += ", w *jsongen.Writing"
	}
	fmt.Fprintf(&b, "\nfunc %s(dst []byte, %s) []byte {\n", f.name, param)
	if g.recursive(f.t) {
		b.WriteString("if !w.Enter() {\nreturn dst\n}\ndefer w.Leave()\n")
	}
	switch u := f.t.Underlying().(type) {
	case *types.Struct:
		b.WriteString(g.appendStruct(f))
	case *types.Map:
		b.WriteString("if v == nil {\nreturn append(dst, \"null\"...)\n}\n" + g.appendMap(f.t, u))
	case *types.Slice:
		b.WriteString("if v == nil {\nreturn append(dst, \"null\"...)\n}\n" + g.appendList(u.Elem(), true))
	case *types.Array:
		b.WriteString(g.appendList(u.Elem(), f.addr))
	}
	b.WriteString("}\n")
	return b.String()
}

func (g *generator) appendList(elem types.Type, addr bool) string {
	return "dst = append(dst, '[')\nfor i := range v {\nif i > 0 {\ndst = append(dst, ',')\n}\n" + g.append(field("v[i]"), elem, addr) + "}\nreturn append(dst, ']')\n"
}

func (g *generator) appendMap(t types.Type, m *types.Map) string {
	basic, _ := m.Key().Underlying().(*types.Basic)
	keys, key, text := "", "k.Key", "k.Text"
	switch {
	case basic != nil && basic.Info()&types.IsString != 0:
		keys, key, text = "jsongen.Keys(v)", "k", "k"
	case g.implements(m.Key(), textMarshaler):
		keys = "jsongen.Sorted(keys)"
	case basic != nil && basic.Info()&types.IsUnsigned != 0:
		keys = "jsongen.UintKeys(v)"
	case basic != nil && basic.Info()&types.IsInteger != 0:
		keys = "jsongen.IntKeys(v)"
	default:
		g.source.Fail(g.pos, "%s is a %s, which JSON cannot carry: keys are strings, integers, or have MarshalText", g.what, short(t))
	}
	var b strings.Builder
	if keys == "jsongen.Sorted(keys)" {
		fmt.Fprintf(&b, "keys := make([]jsongen.Key[%s], 0, len(v))\nfor k := range v {\nb, err := k.MarshalText()\nkeys = jsongen.ByText(keys, k, b, err, w)\n}\n", g.spell(m.Key()))
	}
	fmt.Fprintf(&b, "dst = append(dst, '{')\nfor i, k := range %s {\nif i > 0 {\ndst = append(dst, ',')\n}\n", keys)
	fmt.Fprintf(&b, "dst = jsongen.%s\ndst = append(dst, ':')\n", g.lax("AppendString(dst, "+text+")", "AppendExact(dst, "+text+", w)"))
	fmt.Fprintf(&b, "e := v[%s]\n%s}\nreturn append(dst, '}')\n", key, g.append(expr{"e", "&e"}, m.Elem(), false))
	return b.String()
}

// A member is a field of a struct, and the code that it needs.
type member struct {
	name    string
	x       string
	t       types.Type
	options []string
	steps   []step
	where   place
}

func (g *generator) members(t types.Type) []member {
	var all []member
	for _, m := range g.source.Members(t) {
		steps, ok := g.path("v", t, m.Path)
		if !ok {
			continue
		}
		all = append(all, member{m.Name, steps[len(steps)-1].x, m.Path[len(m.Path)-1].Type(), m.Options, steps, g.placeOf(m.Path[len(m.Path)-1], t)})
	}
	return all
}

func (g *generator) appendStruct(f *function) string {
	members := g.members(f.t)
	if len(members) == 0 {
		return "return append(dst, \"{}\"...)\n"
	}
	var b strings.Builder
	first, last := `{`, "return append(dst, '}')\n"
	if len(g.condition(members[0])) > 0 {
		first, last = `,`, "return jsongen.Close(dst, start)\n"
		b.WriteString("start := len(dst)\n")
	}
	written := false
	for _, m := range members {
		conditions := g.condition(m)
		if slices.Contains(conditions, "false") {
			continue
		}
		addr := f.addr
		for _, s := range m.steps[:len(m.steps)-1] {
			_, points := types.Unalias(s.field.Type()).(*types.Pointer)
			addr = addr || points
		}
		code := fmt.Sprintf("dst = append(dst, `%s%s:`...)\n", first, quoteName(m.name)) + g.appendMember(m, addr)
		if len(conditions) > 0 {
			code = "if " + strings.Join(conditions, " && ") + " {\n" + code + "}\n"
		}
		b.WriteString(code)
		first, written = `,`, true
	}
	if !written {
		return "return append(dst, \"{}\"...)\n"
	}
	return b.String() + last
}

// quoteName is a member's name as it is written.
func quoteName(name string) string {
	return `"` + strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(name) + `"`
}

// condition is what must hold for a member to be written.
func (g *generator) condition(m member) []string {
	var all []string
	for _, s := range m.steps[:len(m.steps)-1] {
		if _, points := types.Unalias(s.field.Type()).(*types.Pointer); points {
			all = append(all, s.x+" != nil")
		}
	}
	if slices.Contains(m.options, "omitempty") {
		switch u := m.t.Underlying().(type) {
		case *types.Basic:
			all = append(all, notZero(m.x, u))
		case *types.Pointer, *types.Interface:
			all = append(all, m.x+" != nil")
		case *types.Slice, *types.Map:
			all = append(all, "len("+m.x+") > 0")
		case *types.Array:
			if u.Len() == 0 {
				all = append(all, "false")
			}
		}
	}
	if slices.Contains(m.options, "omitzero") {
		for _, c := range g.notZeroed(m.x, m.t) {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

func notZero(x string, b *types.Basic) string {
	switch info := b.Info(); {
	case info&types.IsBoolean != 0:
		return x
	case info&types.IsString != 0:
		return x + ` != ""`
	}
	return x + " != 0"
}

// notZeroed is when a field is written that has the option omitzero.
func (g *generator) notZeroed(x string, t types.Type) []string {
	_, points := t.Underlying().(*types.Pointer)
	switch {
	case isInterface(t):
		return []string{x + " != nil"}
	case points && types.Implements(t, zeroer):
		return []string{x + " != nil", "!" + x + ".IsZero()"}
	case !points && types.Implements(types.NewPointer(t), zeroer):
		return []string{"!" + x + ".IsZero()"}
	}
	if some := g.nonZero(x, t); some != "" {
		return []string{some}
	}
	return []string{"false"} // it has no other value
}

// nonZero is an expression that is true if x is not zero, as package reflect says.
func (g *generator) nonZero(x string, t types.Type) string {
	whole := types.Comparable(t)
	switch u := t.Underlying().(type) {
	case *types.Basic:
		return notZero(x, u)
	case *types.Struct:
		if whole {
			return fmt.Sprintf("%s != (%s{})", x, g.spell(t))
		}
		var any []string
		for f := range u.Fields() {
			if f.Name() == "_" {
				continue
			}
			if !f.Exported() && f.Pkg() != g.p.Types {
				g.source.Fail(g.pos, "whether %s, a %s, is zero cannot be told, because of its field %s: leave out omitzero, or give it a method IsZero", g.what, short(t), f.Name())
			}
			if some := g.nonZero(x+"."+f.Name(), f.Type()); some != "" {
				any = append(any, some)
			}
		}
		if len(any) == 0 {
			return ""
		}
		return "(" + strings.Join(any, " || ") + ")"
	case *types.Array:
		if u.Len() == 0 {
			return ""
		}
		if whole {
			return fmt.Sprintf("%s != (%s{})", x, g.spell(t))
		}
		return fmt.Sprintf("jsongen.Some(%s[:], func(e *%s) bool { return %s })", x, g.spell(u.Elem()), g.nonZero("(*e)", u.Elem()))
	}
	return x + " != nil"
}

// appendMember is the code that appends a member's value.
func (g *generator) appendMember(m member, addr bool) string {
	defer g.at(m.where)()
	basic, pointer := quotes(m)
	if basic == nil {
		return g.append(field(m.x), m.t, addr)
	}
	t, x := m.t, field(m.x)
	if pointer {
		t, x = types.Unalias(t).(*types.Pointer).Elem(), g.behind(x, t)
		addr = true
	}
	var code string
	switch k := g.appendKind(t, addr); {
	case k != byKind && k != aNumber:
		return g.append(field(m.x), m.t, addr)
	case k == byKind && basic.Info()&types.IsString != 0:
		code = fmt.Sprintf("dst = jsongen.AppendQuotedString(dst, %s)\n", x.value)
		if g.options.Exact {
			code = fmt.Sprintf("dst = jsongen.AppendQuotedExact(dst, %s, w)\n", x.value)
		}
	default:
		code = "dst = append(dst, '\"')\n" + g.append(x, t, addr) + "dst = append(dst, '\"')\n"
	}
	if pointer {
		return fmt.Sprintf("if %s == nil {\ndst = append(dst, \"null\"...)\n} else {\n%s}\n", m.x, code)
	}
	return code
}

// quotes is what the option string is for, if it has an effect on m.
func quotes(m member) (b *types.Basic, pointer bool) {
	if !slices.Contains(m.options, "string") {
		return nil, false
	}
	t := types.Unalias(m.t)
	if p, ok := t.(*types.Pointer); ok {
		t, pointer = p.Elem(), true
	}
	b, ok := t.Underlying().(*types.Basic)
	if !ok || b.Info()&(types.IsBoolean|types.IsString|types.IsInteger|types.IsFloat) == 0 {
		return nil, false
	}
	return b, pointer
}
