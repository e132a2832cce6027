package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// shape is what is read of a JSON Schema.
type shape struct {
	Ref         string            `json:"$ref"`
	Description string            `json:"description"`
	Type        oneOrMore         `json:"type"`
	Format      string            `json:"format"`
	Enum        []json.RawMessage `json:"enum"`
	AnyOf       []*shape          `json:"anyOf"`
	Properties  map[string]*shape `json:"properties"`
	Order       []string          `json:"x-order"`
	Required    []string          `json:"required"`
	Items       *shape            `json:"items"`
	Additional  json.RawMessage   `json:"additionalProperties"`
	Encoding    string            `json:"contentEncoding"`
}

// oneOrMore is a string, or a list of strings.
type oneOrMore []string

// UnmarshalJSON reads either.
func (o *oneOrMore) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(o))
}

// fields are the names of an object's members, in their order.
func (s *shape) fields() []string {
	if len(s.Order) > 0 {
		return s.Order
	}
	return slices.Sorted(maps.Keys(s.Properties))
}

// resolve is s, or what it refers to.
func (d *document) resolve(s *shape) *shape {
	for range 32 { // a reference to itself ends
		if s == nil || s.Ref == "" {
			return s
		}
		s = d.Components.Schemas[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
	}
	return nil
}

// printer writes shapes for people: types by their names first, and below it what those are.
type printer struct {
	*document
	named []string // in the order in which they were met
	depth int
}

// What is told of types has bounds: a document is somebody else's.
const (
	mostDepth   = 64  // of types in types without names
	mostTypes   = 7   // of one value; JSON has no more
	mostExample = 500 // parts of an example
)

// of is the type of s in words; names that it meets are remembered.
func (p *printer) of(s *shape) string {
	p.depth++
	defer func() { p.depth-- }()
	switch {
	case p.depth > mostDepth:
		return "…"
	case s == nil:
		return "nothing"
	case s.Ref != "":
		name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		if !slices.Contains(p.named, name) {
			p.named = append(p.named, name)
		}
		return name
	case len(s.AnyOf) > 0:
		var all []string
		for _, one := range s.AnyOf {
			all = append(all, p.of(one))
		}
		return strings.Join(all, " or ")
	case len(s.Enum) > 0:
		var all []string
		for _, one := range s.Enum {
			all = append(all, string(oneLine(one)))
		}
		return strings.Join(all, " | ")
	}
	var all, seen []string
	for _, t := range s.Type {
		if !slices.Contains(seen, t) && len(seen) < mostTypes {
			seen, all = append(seen, t), append(all, p.ofType(s, t))
		}
	}
	if len(all) == 0 {
		return "anything"
	}
	return strings.Join(all, " or ")
}

// ofType is one of the types of s in words.
func (p *printer) ofType(s *shape, t string) string {
	switch {
	case t == "array" && s.Items != nil:
		return "list of " + p.of(s.Items)
	case t == "object" && len(s.Properties) > 0:
		var all []string
		for _, name := range s.fields() {
			all = append(all, name+": "+p.of(s.Properties[name]))
		}
		return "{" + strings.Join(all, ", ") + "}"
	case t == "object" && len(s.Additional) > 0:
		var values shape
		if json.Unmarshal(s.Additional, &values) == nil {
			return "object of " + p.of(&values)
		}
	case s.Encoding != "":
		return t + " (" + s.Encoding + ")"
	case s.Format != "" && s.Format != "int64" && s.Format != "double":
		return t + " (" + s.Format + ")"
	}
	return t
}

// details write what the named types are, of each once.
func (p *printer) details(b *strings.Builder) {
	for i := 0; i < len(p.named); i++ { // it grows meanwhile
		s := p.Components.Schemas[p.named[i]]
		if s == nil {
			continue
		}
		fmt.Fprintf(b, "\n%s", p.named[i])
		if s.Properties == nil {
			fmt.Fprintf(b, " is %s%s\n", p.of(s), aside(s.Description))
			continue
		}
		fmt.Fprintf(b, "%s\n", aside(s.Description))
		var rows [][3]string
		for _, name := range s.fields() {
			f := cmp.Or(s.Properties[name], &shape{}) // of which nothing is told
			note := aside(f.Description)
			if !slices.Contains(s.Required, name) {
				note = "  optional" + note
			}
			rows = append(rows, [3]string{name, p.of(f), note})
		}
		table(b, rows)
	}
}

// aside is the first sentence of a comment, behind what it is about.
func aside(doc string) string {
	doc, _, _ = strings.Cut(strings.TrimSpace(doc), "\n\n")
	if doc = firstSentence(strings.ReplaceAll(doc, "\n", " ")); doc == "" {
		return ""
	}
	return "  // " + doc
}

// table writes rows with columns that are as wide as they have to be.
func table(b *strings.Builder, rows [][3]string) {
	var first, second int
	for _, r := range rows {
		first, second = max(first, len(r[0])), max(second, len(r[1]))
	}
	for _, r := range rows {
		line := fmt.Sprintf("  %-*s  %-*s%s", first, r[0], second, r[1], r[2])
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// example is a value of that shape, for people to change, as JSON.
func (d *document) example(s *shape) string {
	left := mostExample
	value, _ := json.Marshal(d.part(s, 0, &left))
	return string(value)
}

// part is a part of an example, of which so many more may be made.
func (d *document) part(s *shape, depth int, left *int) any {
	s = d.resolve(s)
	*left--
	switch {
	case s == nil || depth > 8 || *left < 0:
		return nil
	case len(s.Enum) > 0:
		*left -= len(s.Enum[0]) / 16
		return s.Enum[0]
	case len(s.AnyOf) > 0:
		return d.part(s.AnyOf[0], depth+1, left)
	case len(s.Type) == 0:
		return nil
	}
	switch s.Type[0] {
	case "string":
		return exampleString(s)
	case "integer", "number":
		return 0
	case "boolean":
		return false
	case "array":
		if s.Items == nil {
			return []any{}
		}
		return []any{d.part(s.Items, depth+1, left)}
	case "object":
		return d.exampleObject(s, depth, left)
	}
	return nil
}

func exampleString(s *shape) string {
	switch {
	case s.Encoding == "base64":
		return "AAAA"
	case s.Format == "date-time":
		return "2026-01-02T15:04:05Z"
	}
	return "…"
}

// exampleObject has what is required, and all if nothing is.
func (d *document) exampleObject(s *shape, depth int, left *int) json.RawMessage {
	names := slices.DeleteFunc(slices.Clone(s.fields()), func(name string) bool { return !slices.Contains(s.Required, name) })
	if len(names) == 0 {
		names = s.fields()
	}
	var b strings.Builder
	for _, name := range names {
		if *left <= 0 {
			break
		}
		*left -= len(name) / 16
		key, _ := json.Marshal(name)
		value, err := json.Marshal(d.part(s.Properties[name], depth+1, left))
		if err != nil {
			value = []byte("null")
		}
		fmt.Fprintf(&b, ",%s:%s", key, value)
	}
	return json.RawMessage("{" + strings.TrimPrefix(b.String(), ",") + "}")
}
