package ts

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// named writes the declaration of a type.
func (p *printer) named(t *model.Named) {
	if p.form == javascript && len(t.Enum) == 0 {
		return
	}
	p.doc(t.Doc)
	switch {
	case len(t.Enum) > 0:
		p.enum(t)
	case t.Type.Kind == model.Object && len(t.Type.Fields) > 0:
		p.line("export interface %s {", t.Name)
		p.fields(t.Type.Fields)
		p.line("}")
	case t.Type.Kind == model.Map && circular(t.Type, t, map[*model.Named]bool{}):
		p.line("export interface %s {", t.Name)
		p.line("  [key: string]: %s;", p.text(t.Type.Elem))
		p.line("}")
	default:
		p.line("export type %s = %s;", t.Name, p.text(t.Type))
	}
	p.line("")
}

// enum writes a union of constants, and an object of them.
func (p *printer) enum(t *model.Named) {
	if p.form != javascript {
		p.union(t)
	}
	p.note("The values of {@link " + t.Name + "} that have names.")
	p.open(t.Name)
	for _, c := range t.Enum {
		p.doc(c.Doc)
		p.member(property(c.Name), c.Value)
	}
	p.close()
}

func (p *printer) union(t *model.Named) {
	var values []string
	seen := map[string]bool{}
	for _, c := range t.Enum {
		if !seen[c.Value] {
			seen[c.Value] = true
			values = append(values, c.Value)
		}
	}
	if t.Open {
		values = []string{p.text(t.Type)}
	}
	if len(values) > 6 {
		p.line("export type %s =", t.Name)
		p.depth++
		for i, v := range values {
			end := ""
			if i == len(values)-1 {
				end = ";"
			}
			p.line("| %s%s", v, end)
		}
		p.depth--
	} else {
		p.line("export type %s = %s;", t.Name, strings.Join(values, " | "))
	}
	p.line("")
}

// open begins an object of values that do not change.
func (p *printer) open(name string) {
	if p.form == declarations {
		p.line("export declare const %s: {", name)
	} else {
		p.line("export const %s = {", name)
	}
	p.depth++
}

// member writes a member of such an object.
func (p *printer) member(name, value string) {
	if p.form == declarations {
		p.line("readonly %s: %s;", name, value)
	} else {
		p.line("%s: %s,", name, value)
	}
}

// close ends it.
func (p *printer) close() {
	p.depth--
	if p.form == typescript {
		p.line("} as const;")
	} else {
		p.line("};")
	}
}

func (p *printer) fields(fields []model.Field) {
	p.depth++
	for _, f := range fields {
		p.doc(f.Doc)
		optional := ""
		if f.Optional {
			optional = "?"
		}
		p.line("%s%s: %s;", property(f.Name), optional, p.text(f.Type))
	}
	p.depth--
}

// circular reports whether t is a map of named, or of maps of it: as an alias that
// would refer to itself. What is behind an array or in an object is no hindrance.
func circular(t *model.Type, named *model.Named, seen map[*model.Named]bool) bool {
	switch t.Kind {
	case model.Ref:
		if t.Ref == named || seen[t.Ref] {
			return t.Ref == named
		}
		seen[t.Ref] = true
		return circular(t.Ref.Type, named, seen)
	case model.Map:
		return circular(t.Elem, named, seen)
	}
	return false
}

// text is a type as TypeScript writes it.
func (p *printer) text(t *model.Type) string {
	text := p.notNull(t)
	if !t.Null || text == "unknown" || text == "any" || text == "null" {
		return text
	}
	return text + " | null"
}

func (p *printer) notNull(t *model.Type) string {
	switch t.Kind {
	case model.Bool:
		return "boolean"
	case model.String:
		return "string"
	case model.Number:
		return "number"
	case model.QuotedNumber:
		if t.Format == "double" || t.Format == "float" {
			return "`${number}`"
		}
		return "`${bigint}`"
	case model.QuotedBool:
		return `"true" | "false"`
	case model.Array:
		return p.element(t.Elem) + "[]"
	case model.Tuple:
		elem := p.text(t.Elem)
		return "[" + strings.TrimSuffix(strings.Repeat(elem+", ", int(t.Len)), ", ") + "]"
	case model.Map:
		return p.object(t)
	case model.Object:
		return p.inline(t)
	case model.Ref:
		return t.Ref.Name
	case model.Mapped:
		return t.Text
	case model.Bytes:
		return "Uint8Array"
	}
	return "unknown"
}

// element is a type before brackets.
func (p *printer) element(t *model.Type) string {
	text := p.text(t)
	if t.Null && text != "unknown" || t.Kind == model.QuotedBool || t.Kind == model.Mapped && strings.ContainsAny(text, " |&=?") {
		return "(" + text + ")"
	}
	return text
}

// object is a map.
func (p *printer) object(t *model.Type) string {
	elem := p.text(t.Elem)
	if t.Key != nil && t.Key.Kind == model.Ref && !t.Key.Ref.Open {
		return "Partial<Record<" + p.text(t.Key) + ", " + elem + ">>"
	}
	return "Record<string, " + elem + ">"
}

// inline is an object without a name.
func (p *printer) inline(t *model.Type) string {
	if len(t.Fields) == 0 {
		return "Record<string, never>"
	}
	inner := &printer{api: p.api, form: p.form, options: p.options, depth: p.depth}
	inner.WriteString("{\n")
	inner.fields(t.Fields)
	inner.line("}")
	return strings.TrimRight(inner.String(), "\n")
}

var plainName = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$]*$`)

// property is the name of a member.
func property(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return quote(name)
}

// quote is s as a literal. JSON's are TypeScript's.
func quote(s string) string {
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // strings can be encoded
	return strings.TrimSuffix(out.String(), "\n")
}
