package jsoncodec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// probe looks for what encoding/json cannot decode in a message's type, without
// reflection of ours: it offers numbers where none fit, one place after another, and
// encoding/json's errors say which type is there. What decodes itself is not looked
// into.
type probe struct {
	v     any
	whole bool         // encoding/json can encode a zero message, and will
	seen  map[any]bool // types that were looked into
}

// Probe says which part of the type of what v points to cannot be decoded, by its path;
// nil: all can be. What v points to is changed.
func Probe(v any) error {
	p := probe{v: v, seen: map[any]bool{}}
	_, appends := v.(jsonAppender)
	p.whole = !appends && p.unsupported() == nil
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
	if found == nil || found.Value != "number" || p.own(at, found) {
		if err != nil && strings.HasPrefix(err.Error(), "json: cannot set embedded pointer") {
			return fmt.Errorf("%s cannot be decoded: %s", at.name(), strings.TrimPrefix(err.Error(), "json: "))
		}
		return p.encodes(at)
	}
	t := found.Type
	kind := t.Kind().String()
	switch kind {
	case "chan", "func", "complex64", "complex128":
		if bad, _ := p.try(at, `""`); bad == nil || bad.Value != "string" {
			return p.encodes(at) // it decodes itself, from a text
		}
		return at.undecodable(t.String(), kind)
	case "interface":
		return at.undecodable(t.String(), kind)
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
		return p.entries(at, found)
	}
	return p.fields(at, found)
}

// undecodable says of a place that no message of its type can be.
func (at place) undecodable(name, kind string) error {
	if kind == "interface" {
		kind = "an interface"
	}
	text := fmt.Sprintf("%s is %s", at.name(), name)
	if kind != name {
		text += " (" + kind + ")"
	}
	return errors.New(text + ", which cannot be decoded")
}

// own reports whether what was found was said by a program's UnmarshalJSON, of what it
// decodes inside: it does not know how far into the message it is.
func (p *probe) own(at place, found *json.UnmarshalTypeError) bool {
	at.before = "  " + at.before
	again, _ := p.try(at, "0")
	return again == nil || again.Offset == found.Offset
}

// encodes finds what can be decoded, and was, and cannot be encoded again.
func (p *probe) encodes(at place) error {
	if !p.whole {
		return nil // whatever it is, it is not here
	}
	if bad := p.unsupported(); bad != nil {
		return fmt.Errorf("%s is %s, which cannot be encoded", at.name(), bad.Type)
	}
	return nil
}

// unsupported is what encoding/json says of a type in the message as it is now.
func (p *probe) unsupported() (bad *json.UnsupportedTypeError) {
	defer func() {
		if recover() != nil { // of a program's MarshalJSON
			bad = nil
		}
	}()
	_, err := json.Marshal(p.v)
	errors.As(err, &bad)
	return bad
}

// keys are texts of which one is a key, whatever its type is.
var keys = []string{"", "0", "a", "0001-01-01T00:00:00Z", "::/0", "[::]:0", "00000000-0000-0000-0000-000000000000"}

// entries looks into a map that was found.
func (p *probe) entries(at place, found *json.UnmarshalTypeError) error {
	t := found.Type
	if bad, _ := p.try(at, `{"0":null}`); bad != nil && bad.Value == "object" && bad.Type == t {
		return fmt.Errorf("%s is %s, whose keys cannot be decoded", at.name(), t)
	}
	if bad := p.unsupported(); bad != nil && bad.Type == t {
		return fmt.Errorf("%s is %s, whose keys cannot be encoded", at.name(), t)
	}
	for _, key := range keys {
		if err := p.look(at.in(`{"`+key+`":`, "}", "")); err != nil {
			return err
		}
	}
	// A type that reads its keys itself may take none of these: then its error is all that
	// encoding/json returns, and what can be said is what needs no decoding.
	for e := t.Elem(); ; e = e.Elem() {
		switch kind := e.Kind().String(); {
		case kind == "interface" && e.NumMethod() > 0, e.PkgPath() == "" && (kind == "chan" || kind == "func" || strings.HasPrefix(kind, "complex")):
			return at.in("", "", "").undecodable(e.String(), kind)
		case e.Name() != "" || kind != "ptr" && kind != "slice" && kind != "array" && kind != "map":
			return nil
		}
	}
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
			if name == "" || strings.ContainsFunc(name, unfit) {
				name = f.Name
			}
			if err := p.look(at.in("{"+string(wire.AppendString(nil, name))+":", "}", f.Name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unfit reports whether encoding/json takes no name with r in it.
func unfit(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r)
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
