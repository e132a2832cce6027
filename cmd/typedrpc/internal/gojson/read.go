package gojson

import (
	"fmt"
	"go/types"
	"strconv"
	"strings"
)

// read is the code that reads a value of type t.
func (g *generator) read(x expr, t types.Type, h how) string {
	switch g.readKind(t, h) {
	case byItself, aTime:
		r, _ := g.receiver(x, types.NewPointer(t), "UnmarshalJSON")
		return fmt.Sprintf("s.Unmarshal(%s)\n", r)
	case byText:
		r, _ := g.receiver(x, types.NewPointer(t), "UnmarshalText")
		code := fmt.Sprintf("s.UnmarshalText(%s)\n", r)
		switch t.Underlying().(type) {
		case *types.Slice, *types.Map:
			return fmt.Sprintf("if s.Null() {\n%s = nil\n} else {\n%s}\n", x.value, code)
		}
		return code
	case byOther:
		return fmt.Sprintf("if b := s.Raw(); b != nil {\ns.Check(%s.Unmarshal(b, %s))\n}\n", g.imported("encoding/json", "json"), x.pointer)
	case aRaw:
		return fmt.Sprintf("jsongen.Raw(s, %s)\n", x.pointer)
	case aNumber:
		return fmt.Sprintf("jsongen.Number(s, %s)\n", x.pointer)
	}
	switch u := t.Underlying().(type) {
	case *types.Basic:
		return fmt.Sprintf("jsongen.%s(s, %s)\n", basicReader(u), x.pointer)
	case *types.Pointer:
		by := byPointer
		if _, ok := types.Unalias(t).(*types.Named); ok {
			by = byNamed
		}
		return fmt.Sprintf("if s.Null() {\n%s = nil\n} else {\nif %s == nil {\n%s = new(%s)\n}\n%s}\n", x.value, x.value, x.value, g.spell(u.Elem()), g.read(g.behind(x, t), u.Elem(), by))
	case *types.Slice:
		if basic, ok := u.Elem().Underlying().(*types.Basic); ok && basic.Kind() == types.Uint8 && g.readKind(u.Elem(), byValue) == byKind {
			if !types.Identical(u.Elem(), types.Typ[types.Byte]) {
				return fmt.Sprintf("jsongen.ByteList(s, %s)\n", x.pointer)
			}
			if _, ok := types.Unalias(t).(*types.Named); ok {
				return fmt.Sprintf("jsongen.Bytes(s, (*[]byte)(%s))\n", x.pointer)
			}
			return fmt.Sprintf("jsongen.Bytes(s, %s)\n", x.pointer)
		}
	}
	return fmt.Sprintf("%s(s, %s)\n", g.function(t, key{reads: true}), x.pointer)
}

func basicReader(b *types.Basic) string {
	switch info := b.Info(); {
	case info&types.IsBoolean != 0:
		return "Bool"
	case info&types.IsString != 0:
		return "String"
	case info&types.IsUnsigned != 0:
		return "Uint"
	case info&types.IsFloat != 0:
		return "Float"
	}
	return "Int"
}

// reader is the text of a function that reads values of a type.
func (g *generator) reader(f *function) string {
	var b strings.Builder
	names := ""
	fmt.Fprintf(&b, "\nfunc %s(s *jsongen.Scanner, v *%s) {\n", f.name, g.spell(f.t))
	switch u := f.t.Underlying().(type) {
	case *types.Struct:
		code, of := g.readStruct(f)
		b.WriteString(code)
		names = of
	case *types.Map:
		b.WriteString(g.readMap(f.t, u))
	case *types.Slice:
		if basic, ok := u.Elem().Underlying().(*types.Basic); ok && basic.Kind() == types.Uint8 {
			b.WriteString("if s.IsString() {\njsongen.ByteString(s, v)\nreturn\n}\n")
		}
		b.WriteString("if s.Null() {\n*v = nil\nreturn\n}\nlist, n := *v, 0\nfor ok := s.Array(); ok; ok = s.Element() {\nlist = jsongen.Grow(list, n)\n" +
			g.read(field("list[n]"), u.Elem(), byValue) + "n++\n}\n*v = jsongen.Cut(list, n)\n")
	case *types.Array:
		fmt.Fprintf(&b, "if s.Null() {\nreturn\n}\nn := 0\nfor ok := s.Array(); ok; ok = s.Element() {\nif n == len(v) {\ns.Skip()\ncontinue\n}\n%sn++\n}\nclear(v[n:])\n",
			g.read(field("v[n]"), u.Elem(), byValue))
	}
	return names + b.String() + "}\n"
}

func (g *generator) readStruct(f *function) (code, names string) {
	members := g.members(f.t)
	if len(members) == 0 {
		if g.options.Exact {
			return "for name, ok := s.Object(); ok; name, ok = s.Member() {\ns.Unknown(name)\n}\n", ""
		}
		return "for _, ok := s.Object(); ok; _, ok = s.Member() {\ns.Skip()\n}\n", ""
	}
	var b strings.Builder
	if g.options.Exact {
		fmt.Fprintf(&b, "var seen [%d]uint64\n", (len(members)+63)/64)
	}
	b.WriteString("for name, ok := s.Object(); ok; name, ok = s.Member() {\n")
	if !g.options.Exact {
		b.WriteString("member:\n")
	}
	b.WriteString("switch string(name) {\n")
	var all []string
	for i, m := range members {
		all = append(all, strconv.Quote(m.name))
		fmt.Fprintf(&b, "case %q:\n", m.name)
		if g.options.Exact {
			fmt.Fprintf(&b, "s.Once(seen[:], %d)\n", i)
		}
		b.WriteString(g.readMember(m))
	}
	if g.options.Exact {
		b.WriteString("default:\ns.Unknown(name)\n}\n}\n")
		return b.String(), ""
	}
	table := g.free("jsonNames" + strings.TrimPrefix(f.name, "jsonRead"))
	fmt.Fprintf(&b, "default:\nif %s.Fold(&name) {\ngoto member\n}\ns.Skip()\n}\n}\n", table)
	return b.String(), fmt.Sprintf("\nvar %s = jsongen.NamesOf(%s)\n", table, strings.Join(all, ", "))
}

// readMember is the code that reads a member's value.
func (g *generator) readMember(m member) string {
	defer g.at(m.where)()
	var b strings.Builder
	closing := ""
	for _, s := range m.steps[:len(m.steps)-1] {
		p, ok := types.Unalias(s.field.Type()).(*types.Pointer)
		if !ok {
			continue
		}
		if !s.field.Exported() { // as encoding/json cannot
			fmt.Fprintf(&b, "if %s == nil {\ns.Fail(\"cannot set embedded pointer to unexported struct %s\")\n} else {\n", s.x, s.field.Name())
			closing += "}\n"
			continue
		}
		fmt.Fprintf(&b, "if %s == nil {\n%s = new(%s)\n}\n", s.x, s.x, g.spell(p.Elem()))
	}
	basic, pointer := quotes(m)
	if basic == nil {
		return b.String() + g.read(field(m.x), m.t, byValue) + closing
	}
	b.WriteString("q := s.Quoted()\n")
	t, x, h := m.t, field(m.x), byValue
	if pointer {
		p := types.Unalias(t).(*types.Pointer)
		fmt.Fprintf(&b, "if string(q) == \"null\" {\n%s = nil\nbreak\n}\nif %s == nil {\n%s = new(%s)\n}\n", m.x, m.x, m.x, g.spell(p.Elem()))
		t, x, h = p.Elem(), g.behind(x, t), byPointer
	}
	switch g.readKind(t, h) {
	case byItself, aTime:
		r, _ := g.receiver(x, types.NewPointer(t), "UnmarshalJSON")
		fmt.Fprintf(&b, "if q != nil {\ns.Check(%s.UnmarshalJSON(q))\n}\n", paren(r))
	case byText:
		r, _ := g.receiver(x, types.NewPointer(t), "UnmarshalText")
		fmt.Fprintf(&b, "if b, ok := s.InQuotes(q); ok {\ns.Check(%s.UnmarshalText(b))\n}\n", paren(r))
	case byOther:
		fmt.Fprintf(&b, "if q != nil {\ns.Check(%s.Unmarshal(q, %s))\n}\n", g.imported("encoding/json", "json"), x.pointer)
	case aNumber:
		fmt.Fprintf(&b, "jsongen.QuotedNumber(s, q, %s)\n", x.pointer)
	default:
		fmt.Fprintf(&b, "jsongen.Quoted%s(s, q, %s)\n", basicReader(basic), x.pointer)
	}
	return b.String() + closing
}

func paren(x string) string {
	if x[0] == '&' {
		return "(" + x + ")"
	}
	return x
}

func (g *generator) readMap(t types.Type, m *types.Map) string {
	var b strings.Builder
	elem := "var e " + g.spell(m.Elem()) + "\n" + g.read(expr{"e", "&e"}, m.Elem(), byValue)
	basic, _ := m.Key().Underlying().(*types.Basic)
	p := types.NewPointer(m.Key())
	key := ""
	switch {
	case g.implements(p, textUnmarshaler) && g.implements(p, unmarshaler):
		key = fmt.Sprintf("var k %s\nb := jsongen.AppendString(nil, string(name))\n", g.spell(m.Key())) // in lieu of what was written
		elem += "s.Check(k.UnmarshalJSON(b))\n"
	case g.implements(p, textUnmarshaler):
		key = fmt.Sprintf("var k %s\ns.Check(k.UnmarshalText(name))\n", g.spell(m.Key()))
	case basic != nil && basic.Info()&types.IsString != 0:
		key = fmt.Sprintf("k := %s(name)\n", g.spell(m.Key()))
	case basic != nil && basic.Info()&types.IsUnsigned != 0:
		key = fmt.Sprintf("var k %s\njsongen.UintKey(s, name, &k)\n", g.spell(m.Key()))
	case basic != nil && basic.Info()&types.IsInteger != 0:
		key = fmt.Sprintf("var k %s\njsongen.IntKey(s, name, &k)\n", g.spell(m.Key()))
	default:
		g.source.Fail(g.pos, "%s is a %s, which cannot be read: keys are strings, integers, or have UnmarshalText", g.what, short(t))
	}
	b.WriteString("if s.Null() {\n*v = nil\nreturn\n}\n")
	if g.options.Exact {
		fmt.Fprintf(&b, "m, n := %s{}, 0\nfor name, ok := s.Object(); ok; name, ok = s.Member() {\n%s%sm[k] = e\nn++\n}\njsongen.Merge(s, v, m, n)\n", g.spell(t), key, elem)
		return b.String()
	}
	fmt.Fprintf(&b, "m := *v\nif m == nil {\nm = %s{}\n*v = m\n}\nfor name, ok := s.Object(); ok; name, ok = s.Member() {\n%s%sm[k] = e\n}\n", g.spell(t), key, elem)
	return b.String()
}
