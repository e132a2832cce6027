package breaking

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// node is a JSON schema.
type node = map[string]any

// kind is the type that a schema has, without null.
type kind struct {
	null bool
	name string // of its component, "": it has none
	is   string // "string", "integer", "object", "map", …; "any"
	node node
}

const refPrefix = "#/components/schemas/"

// resolve follows references, and takes null apart.
func (d *document) resolve(n node) kind {
	k := kind{node: n}
	for range 100 { // a schema that refers to itself alone is anything
		if ref, ok := k.node["$ref"].(string); ok {
			k.name = strings.TrimPrefix(ref, refPrefix)
			k.node = d.Components.Schemas[k.name]
			continue
		}
		any, ok := k.node["anyOf"].([]any)
		if !ok {
			break
		}
		var rest []node
		for _, x := range any {
			if x, _ := x.(node); x["type"] == "null" {
				k.null = true
			} else {
				rest = append(rest, x)
			}
		}
		if len(rest) != 1 {
			break
		}
		k.node = rest[0]
	}
	switch t := k.node["type"].(type) {
	case string:
		k.is = t
	case []any:
		for _, t := range t {
			if t == "null" {
				k.null = true
			} else {
				k.is, _ = t.(string)
			}
		}
	}
	if k.is == "object" && k.node["properties"] == nil && k.node["additionalProperties"] != nil {
		k.is = "map"
	}
	if of, ok := k.node["x-typescript"].(string); ok {
		k.is = "TypeScript's " + of
	}
	if k.is == "" {
		k.is = "any"
	}
	return k
}

// said is k in a word or two.
func (k kind) said() string {
	s := k.is
	for _, name := range []string{"format", "contentEncoding"} {
		if f, ok := k.node[name].(string); ok {
			s += " (" + f + ")"
		}
	}
	return s
}

// text is v as JSON, whose members have an order.
func text(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// message compares a message of a side, "request" or "reply".
func (c *comparison) message(side, what string, old, next node) {
	switch {
	case old == nil && next == nil:
	case old == nil || next == nil: // another kind would have it
		c.found(side+"-type-changed", what, or(text(old), "none"), or(text(next), "none"))
	default:
		c.compare(side, what, old, next)
	}
}

// compare compares two schemas. at is where they are.
func (c *comparison) compare(side, at string, old, next node) {
	a, b := c.old.resolve(old), c.next.resolve(next)
	switch {
	case b.null && !a.null && a.is != "any":
		c.found(side+"-null-allowed", at, "", "")
	case a.null && !b.null && b.is != "any":
		c.found(side+"-null-refused", at, "", "")
	}
	if a.name != "" && b.name != "" { // wherever it is used
		pair := side + " " + a.name + " " + b.name
		if c.seen[pair] {
			return
		}
		c.seen[pair] = true
		if at = a.name; a.name != b.name {
			at += " (now " + b.name + ")"
		}
	}
	if a.is != b.is {
		c.otherKind(side, at, a, b)
		return
	}
	if (a.node["enum"] == nil) != (b.node["enum"] == nil) {
		c.moved(side, at, a, b, b.node["enum"] == nil)
		return
	}
	c.values(side, at, a, b)
	switch a.is {
	case "integer", "number":
		c.numbers(side, at, a, b)
	case "string":
		c.strings(side, at, a, b)
	case "array":
		c.arrays(side, at, a, b)
	case "map":
		c.compare(side, at+"{}", sub(a, "additionalProperties"), sub(b, "additionalProperties"))
		c.compare(side, at+" key", orString(sub(a, "propertyNames")), orString(sub(b, "propertyNames")))
	case "object":
		c.members(side, at, a, b)
	}
}

func sub(k kind, name string) node {
	n, _ := k.node[name].(node)
	return n
}

func orString(n node) node {
	if n == nil {
		return node{"type": "string"}
	}
	return n
}

// moved notes a type that has become wider, or narrower.
func (c *comparison) moved(side, at string, a, b kind, wider bool) {
	rule := "-type-narrowed"
	if wider {
		rule = "-type-widened"
	}
	c.found(side+rule, at, a.whole(), b.whole())
}

// whole is said with the values that there are.
func (k kind) whole() string {
	if values, ok := k.node["enum"].([]any); ok {
		return k.said() + " of " + text(values)
	}
	return k.said()
}

func (c *comparison) otherKind(side, at string, a, b kind) {
	switch {
	case b.is == "any", a.is == "integer" && b.is == "number":
		c.moved(side, at, a, b, true)
	case a.is == "any", a.is == "number" && b.is == "integer":
		c.moved(side, at, a, b, false)
	default:
		c.found(side+"-type-changed", at, a.said(), b.said())
	}
}

// values compares enumerations.
func (c *comparison) values(side, at string, a, b kind) {
	old, next := enum(a), enum(b)
	for _, v := range old {
		if !slices.Contains(next, v) {
			c.found(side+"-value-removed", at, v, "")
		}
	}
	for _, v := range next {
		if !slices.Contains(old, v) {
			c.found(side+"-value-added", at, "", v)
		}
	}
}

// enum are the values of an enumeration, as JSON: they may be lists and objects.
func enum(k kind) (all []string) {
	values, _ := k.node["enum"].([]any)
	for _, v := range values {
		all = append(all, text(v))
	}
	return all
}

// bits are a number's format: its size, and what it is of.
var bits = map[string]struct {
	size int
	of   string
}{
	"int8": {8, "int"}, "int16": {16, "int"}, "int32": {32, "int"}, "int64": {64, "int"}, "int": {64, "int"},
	"uint8": {8, "uint"}, "uint16": {16, "uint"}, "uint32": {32, "uint"}, "uint64": {64, "uint"}, "uint": {64, "uint"},
	"float": {32, "float"}, "double": {64, "float"},
}

func (c *comparison) numbers(side, at string, a, b kind) {
	old, _ := a.node["format"].(string)
	next, _ := b.node["format"].(string)
	if old == next {
		return
	}
	x, known := bits[old]
	y, too := bits[next]
	switch {
	case next == "" || known && too && x.of == y.of && x.size < y.size, known && too && x.of == "uint" && y.of == "int" && x.size < y.size:
		c.moved(side, at, a, b, true)
	case old == "" || known && too && x.of == y.of && x.size > y.size, known && too && x.of == "int" && y.of == "uint" && x.size > y.size:
		c.moved(side, at, a, b, false)
	case known && too && x.of == y.of: // by another name
	default:
		c.found(side+"-type-changed", at, a.said(), b.said())
	}
}

func (c *comparison) strings(side, at string, a, b kind) {
	form := func(k kind) string {
		return fmt.Sprint(k.node["format"], k.node["contentEncoding"], k.node["pattern"])
	}
	none := form(kind{})
	switch old, next := form(a), form(b); {
	case old == next:
	case next == none && a.node["contentEncoding"] == nil:
		c.moved(side, at, a, b, true)
	case old == none && b.node["contentEncoding"] == nil:
		c.moved(side, at, a, b, false)
	default:
		c.found(side+"-format-changed", at, a.said(), b.said())
	}
}

func (c *comparison) arrays(side, at string, a, b kind) {
	length := func(k kind) string {
		if k.node["minItems"] == nil && k.node["maxItems"] == nil {
			return "any"
		}
		return fmt.Sprint(k.node["minItems"])
	}
	if old, next := length(a), length(b); old != next {
		c.found(side+"-length-changed", at, old, next)
	}
	c.compare(side, at+"[]", sub(a, "items"), sub(b, "items"))
}

// member is one of an object.
type member struct {
	name     string
	required bool
	schema   node
}

func members(k kind) map[string]member {
	all := map[string]member{}
	for name, schema := range sub(k, "properties") {
		schema, _ := schema.(node)
		all[name] = member{name, false, schema}
	}
	required, _ := k.node["required"].([]any)
	for _, name := range required {
		if name, ok := name.(string); ok {
			all[name] = member{name, true, all[name].schema}
		}
	}
	return all
}

func (c *comparison) members(side, at string, a, b kind) {
	old, next := members(a), members(b)
	var gone, come []member
	for _, name := range slices.Sorted(maps.Keys(old)) {
		x, there := old[name], false
		if y, ok := next[name]; ok {
			there = true
			switch {
			case y.required && !x.required:
				c.found(side+"-now-required", at+"."+name, "", "")
			case x.required && !y.required:
				c.found(side+"-now-optional", at+"."+name, "", "")
			}
			c.compare(side, at+"."+name, x.schema, y.schema)
		}
		if !there {
			gone = append(gone, x)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next)) {
		if _, ok := old[name]; !ok {
			come = append(come, next[name])
		}
	}
	gone, come = c.renamed(side, at, gone, come)
	for _, x := range gone {
		c.found(side+cmp.Or(map[bool]string{true: "-required-removed"}[x.required], "-member-removed"), at+"."+x.name, "", "")
	}
	for _, x := range come {
		c.found(side+cmp.Or(map[bool]string{true: "-required-added"}[x.required], "-member-added"), at+"."+x.name, "", "")
	}
}

// renamed finds the members of which one has gone and one has come that say the same,
// and no others.
func (c *comparison) renamed(side, at string, gone, come []member) (_, _ []member) {
	like := func(x member) func(member) bool {
		bare := func(x member) string {
			n := maps.Clone(x.schema)
			delete(n, "description")
			return fmt.Sprint(x.required, text(n))
		}
		return func(y member) bool { return bare(x) == bare(y) }
	}
	count := func(all []member, f func(member) bool) (n int) {
		for _, x := range all {
			if f(x) {
				n++
			}
		}
		return n
	}
	var left []member
	for _, x := range gone {
		same := like(x)
		if count(gone, same) != 1 || count(come, same) != 1 {
			left = append(left, x)
			continue
		}
		i := slices.IndexFunc(come, same)
		c.found(side+"-member-renamed", at+"."+x.name, x.name, come[i].name)
		come = slices.Delete(come, i, i+1)
	}
	return left, come
}
