package jsoncodec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// probe looks for what encoding/json cannot decode in a message's type, without
// reflection of ours: it offers numbers where none fit, one place after another, and
// encoding/json's errors say which type is there. What decodes itself is not looked
// into.
type probe struct {
	v    any
	seen map[any]bool // types that were looked into
}

// Probe says which part of the type of what v points to cannot be decoded, by its path;
// nil: all can be. What v points to is changed.
func Probe(v any) error {
	p := probe{v, map[any]bool{}}
	return p.look(place{})
}

// place is somewhere in a message: the JSON in front of it and behind, and what programs
// call it.
type place struct {
	before, after string
	path          string // of fields, ""; it is the message
	depth         int
}

func (at place) in(before, after, field string) place {
	at.before += before
	at.after = after + at.after
	switch {
	case at.path != "" && field != "":
		at.path += "." + field
	case field != "":
		at.path = field
	}
	at.depth++
	return at
}

// mostDepth bounds how deep types are looked into; those that repeat are seen once.
const mostDepth = 100

// try decodes a value at a place. It returns what does not fit there, nil: something
// does, or decodes itself.
func (p *probe) try(at place, value string) (does *json.UnmarshalTypeError, err error) {
	defer func() {
		if recover() != nil { // of a program's UnmarshalJSON
			does, err = nil, nil
		}
	}()
	err = json.Unmarshal([]byte(at.before+value+at.after), p.v)
	errors.As(err, &does)
	return does, err
}

func (p *probe) look(at place) error {
	if at.depth > mostDepth {
		return nil
	}
	found, err := p.try(at, "0")
	if found == nil || found.Value != "number" {
		if err != nil && strings.HasPrefix(err.Error(), "json: cannot set embedded pointer") {
			return fmt.Errorf("%s cannot be decoded: %s", at.name(), strings.TrimPrefix(err.Error(), "json: "))
		}
		return nil
	}
	t := found.Type
	kind := t.Kind().String()
	switch kind {
	case "interface", "chan", "func", "complex64", "complex128":
		if kind == "interface" {
			kind = "an interface"
		}
		text := fmt.Sprintf("%s is %s", at.name(), t)
		if kind != t.String() {
			text += " (" + kind + ")"
		}
		return errors.New(text + ", which cannot be decoded")
	case "struct", "map", "slice", "array":
	default:
		return nil // "0" decodes into the rest, but for strings and booleans
	}
	if p.seen[t] {
		return nil
	}
	p.seen[t] = true
	switch kind {
	case "slice", "array":
		return p.look(at.in("[", "]", ""))
	case "map":
		if bad, _ := p.try(at, `{"0":null}`); bad != nil && bad.Value == "object" && bad.Type == t {
			return fmt.Errorf("%s is %s, whose keys cannot be decoded", at.name(), t)
		}
		if err := p.look(at.in(`{"":`, "}", "")); err != nil {
			return err
		}
		return p.look(at.in(`{"0":`, "}", ""))
	}
	return p.fields(at, found)
}

// fields looks into those of a struct that was found, and of what it embeds.
func (p *probe) fields(at place, found *json.UnmarshalTypeError) error {
	structs, met := listOf(found.Type), map[any]bool{}
	for n := 0; n < len(structs); n++ {
		for i := range structs[n].NumField() {
			f := structs[n].Field(i)
			tag := f.Tag.Get("json")
			name, _, _ := strings.Cut(tag, ",")
			if f.Anonymous && name == "" {
				t := f.Type
				if t.Kind().String() == "ptr" {
					t = t.Elem()
				}
				if t.Kind().String() == "struct" {
					if !met[t] {
						met[t] = true
						structs = append(structs, t)
					}
					continue
				}
			}
			if tag == "-" || !f.IsExported() {
				continue
			}
			if name == "" || strings.ContainsAny(name, "\\\"'`") { // which encoding/json does not take
				name = f.Name
			}
			if err := p.look(at.in("{"+string(wire.AppendString(nil, name))+":", "}", f.Name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// listOf begins a list of a type that cannot be named here.
func listOf[T any](x T) []T { return []T{x} }

// name is what a place is called in an error.
func (at place) name() string {
	if at.path == "" {
		if at.depth > 0 {
			return "an element"
		}
		return "it"
	}
	return "field " + at.path
}
