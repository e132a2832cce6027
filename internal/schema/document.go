package schema

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Registered is what a server knows of a name that has a handler.
type Registered struct {
	Name       string
	Kind       string // as a document says it: "method", "serverStream", "topic", …
	Idempotent bool
	Keyed      bool
	Serial     bool
	Safe       bool
	Timeout    time.Duration
	MaxSize    int
	Params     []string

	// Part says that another name's declaration says all that is to be said of it.
	Part bool

	// of a topic
	Restartable bool
	Presence    bool
	Policy      string
	History     int
	HistoryAge  time.Duration
	MaxQueued   int
}

func (r *Registered) facts() facts {
	return facts{
		Kind: r.Kind, Handler: "server", Idempotent: r.Idempotent, Keyed: r.Keyed, Serial: r.Serial, Safe: r.Safe, Restartable: r.Restartable,
		Timeout: millis(r.Timeout), MaxSize: int64(r.MaxSize), Params: r.Params, Presence: r.Presence, Policy: r.Policy,
		History: int64(r.History), HistoryAge: millis(r.HistoryAge), MaxQueued: int64(r.MaxQueued),
	}
}

func millis(d time.Duration) float64 { return float64(d) / 1e6 }

// Document is what a server says of itself: what s says of the names that are
// registered, of topics, and of what the server's clients handle; and kind and traits of
// the names that s does not know. It is the same for the same names, in any order. The
// error is a sentence about s, which is its subject, and which contradicts what is
// registered.
func (s *Schema) Document(all []Registered) ([]byte, error) {
	var methods []*method
	here := map[string]bool{}
	for i := range all {
		r := &all[i]
		here[r.Name] = true
		if r.Part {
			continue
		}
		m := s.find(r.Name)
		if m == nil {
			m = undescribed(r)
		} else {
			if err := m.agrees(r); err != nil {
				return nil, err
			}
			m = m.completed(r)
		}
		methods = append(methods, m)
	}
	if s == nil {
		s = &Schema{}
	}
	for _, m := range s.methods {
		if !here[m.name] && m.elsewhere() {
			methods = append(methods, m)
		}
	}
	slices.SortFunc(methods, func(a, b *method) int { return cmp.Compare(a.name, b.name) })
	return s.document(methods), nil
}

// elsewhere reports whether m is in a server's document although the server has no
// handler of the name.
func (m *method) elsewhere() bool {
	f := &m.facts
	return f.Kind == "topic" || f.Handler == "client" || f.Kind == "notification" && f.Handler != "server"
}

// agrees says where m contradicts what is registered. That it does not mention a
// number, or names, is none: those need not be constants, and then "typedrpc schema" leaves them out.
func (m *method) agrees(r *Registered) error {
	has, is := m.facts, r.facts()
	if m.ext == nil {
		return nil
	}
	if has.Kind != is.Kind {
		return fmt.Errorf("says that %q is a %s, and the handler's is a %s", m.name, has.Kind, is.Kind)
	}
	flags := map[string][2]bool{
		"idempotent": {has.Idempotent, is.Idempotent}, "keyed": {has.Keyed, is.Keyed},
		"serial": {has.Serial, is.Serial}, "safe": {has.Safe, is.Safe}, "presence": {has.Presence, is.Presence},
	}
	values := map[string][2]any{
		"timeout": {has.Timeout, is.Timeout}, "maxSize": {has.MaxSize, is.MaxSize},
		"history": {has.History, is.History}, "historyAge": {has.HistoryAge, is.HistoryAge}, "maxQueued": {has.MaxQueued, is.MaxQueued},
		"params": {strings.Join(has.Params, ", "), strings.Join(is.Params, ", ")},
	}
	if is.Kind == "topic" { // of a stream only its callers know
		flags["restartable"] = [2]bool{has.Restartable, is.Restartable}
		values["policy"] = [2]any{cmp.Or(has.Policy, "Disconnect"), cmp.Or(is.Policy, "Disconnect")}
	}
	for _, name := range traits {
		f, v := flags[name], values[name]
		switch {
		case f[0] != f[1]:
			return fmt.Errorf("says that %s of %q is %t, and the handler's is %t", name, m.name, f[0], f[1])
		case v[0] != v[1] && v[0] != zero(v[0]):
			return fmt.Errorf("says that %s of %q is %v, and the handler's is %v", name, m.name, v[0], v[1])
		}
	}
	return nil
}

// traits are those that agrees compares, in the order in which it does.
var traits = []string{"idempotent", "keyed", "serial", "safe", "restartable", "timeout", "maxSize", "params", "presence", "policy", "history", "historyAge", "maxQueued"}

// zero is the value that v's type begins with.
func zero(v any) any {
	switch v.(type) {
	case float64:
		return float64(0)
	case int64:
		return int64(0)
	case string:
		return ""
	}
	return nil
}

// completed is m with what only the registration says.
func (m *method) completed(r *Registered) *method {
	known, _ := read(encoded(r.facts())) // an object
	ext := m.ext
	for _, fact := range known {
		if m.ext.get(fact.name) == nil {
			ext = ext.with(fact.name, fact.value)
		}
	}
	return &method{name: m.name, whole: m.whole.with(Extension, encoded(ext))}
}

// descriptor is what OpenRPC calls a content descriptor.
type descriptor struct {
	Name     string `json:"name"`
	Required bool   `json:"required,omitempty"`
	Schema   object `json:"schema"`
}

var (
	anything = object{}
	text     = object{{"type", json.RawMessage(`"string"`)}}
	nothing  = object{{"type", json.RawMessage(`"null"`)}}
)

// undescribed is what there is to say of a name without a schema. Its messages may be
// anything.
func undescribed(r *Registered) *method {
	structure, params := "by-position", []descriptor{{Name: "request", Schema: anything}}
	switch {
	case r.Kind == "topic":
		params = []descriptor{{"key", true, text}}
	case len(r.Params) > 0:
		structure, params = "either", nil
		for _, name := range r.Params {
			params = append(params, descriptor{Name: name, Schema: anything})
		}
	}
	m := &method{name: r.Name}
	m.whole = object{{"name", encoded(r.Name)}, {"paramStructure", encoded(structure)}, {"params", encoded(params)}}
	switch r.Kind {
	case "notification":
	case "method", "clientStream", "upload":
		m.whole = m.whole.with("result", encoded(descriptor{"response", true, anything}))
	default: // a stream, which ends with nothing
		m.whole = m.whole.with("result", encoded(descriptor{Name: "end", Schema: nothing}))
	}
	m.whole = m.whole.with(Extension, encoded(r.facts()))
	return m
}

// document puts the parts together: with those components that are referred to, since
// the others are of what is not served here.
func (s *Schema) document(methods []*method) []byte {
	top := s.top
	if top.get("openrpc") == nil {
		top = slices.Concat(object{{"openrpc", json.RawMessage(`"1.3.2"`)}}, top)
	}
	if top.get("info") == nil {
		top = top.with("info", json.RawMessage(`{"title":"typedrpc","version":"0.0.0"}`))
	}
	list := []object{}
	seen := references{s: s, of: map[[2]string]bool{}}
	for _, m := range methods {
		list = append(list, m.whole)
		for _, part := range m.whole {
			seen.in(part.value)
		}
	}
	for _, m := range top {
		seen.in(m.value)
	}
	components := object{}
	for _, p := range s.parts {
		used := object{}
		for _, m := range p.all {
			if seen.of[[2]string{p.kind, m.name}] {
				used = append(used, m)
			}
		}
		components = append(components, member{p.kind, encoded(used)})
	}
	if len(components) == 0 {
		components = object{{"schemas", json.RawMessage(`{}`)}}
	}
	// In the order in which "typedrpc schema" has them.
	var out object
	for _, m := range top {
		if out = append(out, m); m.name == "info" {
			out = append(out, member{"methods", encoded(list)}, member{"components", encoded(components)})
		}
	}
	var b bytes.Buffer
	json.Compact(&b, encoded(out)) // which is valid
	return b.Bytes()
}

// references are the components that something refers to, by kind and name.
type references struct {
	s  *Schema
	of map[[2]string]bool
}

// in adds those that a value refers to, and what they refer to.
func (r references) in(data json.RawMessage) {
	var v any
	if json.Unmarshal(data, &v) == nil {
		r.walk(v)
	}
}

func (r references) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			r.walk(x)
		}
	case map[string]any:
		for name, x := range v {
			if ref, ok := x.(string); ok && name == "$ref" {
				r.follow(ref)
			}
			r.walk(x)
		}
	}
}

func (r references) follow(ref string) {
	rest, ok := strings.CutPrefix(ref, "#/components/")
	if !ok {
		return
	}
	steps := strings.SplitN(rest, "/", 3)
	if len(steps) < 2 {
		return
	}
	for i, step := range steps {
		if plain, err := url.PathUnescape(step); err == nil {
			step = plain
		}
		steps[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
	}
	at := [2]string{steps[0], steps[1]}
	if r.of[at] {
		return
	}
	r.of[at] = true
	for _, p := range r.s.parts {
		if p.kind == at[0] {
			r.in(p.all.get(at[1]))
		}
	}
}
