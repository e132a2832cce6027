// Package schema reads the documents that "typedrpc schema" writes, and makes of one,
// and of what is registered, the document that a server says of itself. It knows JSON
// and the names of members; no declaration, and nothing that is on its way.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Extension is the member of a method's object that has what OpenRPC does not know.
const Extension = "x-typedrpc"

// Schema is a document that was read. It is not changed, and may be shared. nil is one
// that says nothing.
type Schema struct {
	top     object // but for methods and components
	methods []*method
	parts   []part // of the components
}

// method is one of a document's methods.
type method struct {
	name  string
	whole object
	ext   object // the extension; nil: there is none
	facts facts
}

// part is a kind of components: schemas, mostly.
type part struct {
	kind string
	all  object
}

// facts are what an extension says that a registration says too.
type facts struct {
	Kind        string   `json:"kind,omitempty"`
	Fingerprint string   `json:"fingerprint,omitempty"`
	Handler     string   `json:"handler,omitempty"`
	Idempotent  bool     `json:"idempotent,omitempty"`
	Keyed       bool     `json:"keyed,omitempty"`
	Serial      bool     `json:"serial,omitempty"`
	Safe        bool     `json:"safe,omitempty"`
	Restartable bool     `json:"restartable,omitempty"`
	Timeout     float64  `json:"timeout,omitempty"` // milliseconds
	MaxSize     int64    `json:"maxSize,omitempty"`
	Params      []string `json:"params,omitempty"`
	Presence    bool     `json:"presence,omitempty"`
	Policy      string   `json:"policy,omitempty"`
	History     int64    `json:"history,omitempty"`
	HistoryAge  float64  `json:"historyAge,omitempty"` // milliseconds
	MaxQueued   int64    `json:"maxQueued,omitempty"`
}

// Parse reads a document. Without data there is none. An error is a sentence about
// the document, which is its subject.
func Parse(data []byte) (*Schema, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if !json.Valid(data) {
		err := json.Unmarshal(data, new(json.RawMessage))
		return nil, fmt.Errorf("is no JSON: %w", err)
	}
	top, err := read(data)
	if err != nil {
		return nil, errors.New("is no JSON object; it is the document that \"typedrpc schema\" writes")
	}
	s := &Schema{}
	for _, m := range top {
		switch m.name {
		case "methods":
			err = s.read(m.value)
		case "components":
			err = s.components(m.value)
		default:
			s.top = append(s.top, m)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Schema) read(data json.RawMessage) error {
	var all []json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return errors.New("has methods that are no list")
	}
	known := map[string]bool{}
	for i, data := range all {
		m := &method{}
		var err error
		if m.whole, err = read(data); err == nil {
			err = json.Unmarshal(m.whole.get("name"), &m.name)
		}
		switch {
		case err != nil || m.name == "":
			return fmt.Errorf("has a method without a name: number %d of the list", i+1)
		case known[m.name]:
			return fmt.Errorf("has two methods of the name %q", m.name)
		}
		known[m.name] = true
		if ext := m.whole.get(Extension); ext != nil {
			if m.ext, err = read(ext); err == nil {
				err = json.Unmarshal(ext, &m.facts)
			}
			if err != nil {
				return fmt.Errorf("has an %s of %q that cannot be read: %w", Extension, m.name, err)
			}
		}
		s.methods = append(s.methods, m)
	}
	return nil
}

func (s *Schema) components(data json.RawMessage) error {
	kinds, err := read(data)
	if err != nil {
		return errors.New("has components that are no object")
	}
	for _, k := range kinds {
		all, err := read(k.value)
		if err != nil {
			return fmt.Errorf("has components/%s that are no object", k.name)
		}
		s.parts = append(s.parts, part{k.name, all})
	}
	return nil
}

// find is the method of a name, nil if there is none.
func (s *Schema) find(name string) *method {
	if s == nil {
		return nil
	}
	if i := slices.IndexFunc(s.methods, func(m *method) bool { return m.name == name }); i >= 0 {
		return s.methods[i]
	}
	return nil
}

// object is a JSON object whose members have an order.
type object []member

type member struct {
	name  string
	value json.RawMessage
}

// read reads an object, and leaves the values as they are.
func read(data []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no object")
	}
	all := object{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: name.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// get is a member's value, nil if there is none.
func (o object) get(name string) json.RawMessage {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// with is o with another value of a member, behind all others if it had none.
func (o object) with(name string, value json.RawMessage) object {
	o = slices.Clone(o)
	for i := range o {
		if o[i].name == name {
			o[i].value = value
			return o
		}
	}
	return append(o, member{name, value})
}

// MarshalJSON has the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, encoded(m.name)...), ':')
		out = append(out, m.value...)
	}
	return append(out, '}'), nil
}

// encoded is v, whose type is one of ours that has an encoding.
func encoded(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // it is not one of ours
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
