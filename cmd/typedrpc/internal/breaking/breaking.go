package breaking

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Change is a change between two schemas.
type Change struct {
	Rule       string   `json:"rule"`
	Names      []string `json:"names"`        // of what it concerns, in order
	At         string   `json:"at,omitempty"` // where in the message
	Old        string   `json:"old,omitempty"`
	New        string   `json:"new,omitempty"`
	Text       string   `json:"text"`
	Advice     string   `json:"advice,omitempty"`
	OldClients Verdict  `json:"oldClients"` // of old clients at new servers
	NewClients Verdict  `json:"newClients"` // of new clients at old servers
}

// Breaks reports whether somebody is hurt.
func (c *Change) Breaks() bool { return c.OldClients == Breaks || c.NewClients == Breaks }

// Compare compares the documents of two schemas. The changes are in order: what breaks
// first, then by their names.
func Compare(before, after []byte) ([]Change, error) {
	old, err := read(before)
	if err != nil {
		return nil, fmt.Errorf("the old schema %w", err)
	}
	next, err := read(after)
	if err != nil {
		return nil, fmt.Errorf("the new schema %w", err)
	}
	c := &comparison{old: old, next: next, at: map[place]*Change{}}
	c.methods()
	c.faults()
	c.signIns()
	var all []Change
	for _, x := range c.order {
		slices.Sort(x.Names)
		x.Names = slices.Compact(x.Names)
		all = append(all, *x)
	}
	slices.SortStableFunc(all, func(a, b Change) int {
		switch worst := int(max(b.OldClients, b.NewClients)) - int(max(a.OldClients, a.NewClients)); {
		case worst != 0:
			return worst
		default:
			return strings.Compare(a.Names[0], b.Names[0])
		}
	})
	return all, nil
}

// document is the part of a schema that is compared.
type document struct {
	Methods    []*method
	Components struct{ Schemas map[string]node }
	Faults     []struct {
		Name string
		Code int64
		Data node
	} `json:"x-typedrpc-faults"`
	SignIns []struct {
		Go                 string
		Credentials, Reply node
	} `json:"x-typedrpc-sign-in"`
}

type method struct {
	Name       string
	Deprecated bool
	Params     []struct {
		Name   string
		Schema node
	}
	X *struct {
		Kind, Handler, Policy       string
		Request, Up, Down, Response node
		Idempotent, Keyed, Serial   bool
		Safe                        bool
		Restartable, Presence       bool
		Timeout, HistoryAge         float64
		MaxSize, History, MaxQueued int64
		Params                      []string
	} `json:"x-typedrpc"`
}

func read(data []byte) (*document, error) {
	d := new(document)
	if err := json.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if d.Methods == nil {
		return nil, errors.New("has no methods; it is to be a document that \"typedrpc schema\" has written")
	}
	for _, m := range d.Methods {
		if m == nil || m.Name == "" || m.X == nil {
			m = cmp.Or(m, new(method))
			return nil, fmt.Errorf("has a method %q without x-typedrpc; it is to be a document that \"typedrpc schema\" has written", m.Name)
		}
	}
	return d, nil
}

// comparison is one that is under way.
type comparison struct {
	old, next *document
	name      string          // whose messages are compared …
	callers   []bool          // … and by whom it is called: by the server, if true
	seen      map[string]bool // pairs of named types that are being compared, or were
	at        map[place]*Change
	order     []*Change
}

// place is where a change is: once for all that use a type.
type place struct {
	rule, at, old, next, roles string
}

// found notes a change.
func (c *comparison) found(rule, at, old, next string) {
	r := rules[rule]
	p := place{rule, at, old, next, fmt.Sprint(c.callers)}
	if at == "" {
		p.at = c.name + "\n" // of no type
	}
	x := c.at[p]
	if x == nil {
		x = &Change{Rule: rule, At: at, Old: old, New: next, Text: r.Text, Advice: r.Advice}
		for _, server := range c.callers {
			oldClient, newClient := r.Old, r.New
			if server { // the caller is the server
				oldClient, newClient = newClient, oldClient
			}
			x.OldClients, x.NewClients = max(x.OldClients, oldClient), max(x.NewClients, newClient)
		}
		c.at[p] = x
		c.order = append(c.order, x)
	}
	x.Names = append(x.Names, c.name)
}

// begin begins with another name.
func (c *comparison) begin(name string, callers ...bool) {
	c.name, c.callers, c.seen = name, callers, map[string]bool{}
}

// callersOf says who calls m: true is the server.
func callersOf(m *method) []bool {
	switch {
	case m.X.Handler == "client":
		return []bool{true}
	case m.X.Handler == "" && m.X.Kind == "notification":
		return []bool{false, true}
	}
	return []bool{false}
}

func (c *comparison) methods() {
	next := map[string]*method{}
	for _, m := range c.next.Methods {
		next[m.Name] = m
	}
	for _, m := range c.old.Methods {
		c.begin(m.Name, callersOf(m)...)
		n := next[m.Name]
		delete(next, m.Name)
		switch {
		case n == nil:
			c.found("name-removed", "", "", "")
		case n.X.Kind != m.X.Kind:
			c.found("kind-changed", "", m.X.Kind, n.X.Kind)
		default:
			c.method(m, n)
		}
	}
	for _, m := range c.next.Methods {
		if next[m.Name] != nil {
			c.begin(m.Name, callersOf(m)...)
			c.found("name-added", "", "", "")
		}
	}
}

func (c *comparison) method(m, n *method) {
	a, b := m.X, n.X
	if a.Handler != b.Handler && a.Handler != "" && b.Handler != "" {
		c.found("handler-changed", "", a.Handler, b.Handler)
		return
	}
	if a.Handler != b.Handler { // one of them does not say it
		c.callers = callersOf(n)
		if len(callersOf(m)) > len(c.callers) {
			c.callers = callersOf(m)
		}
	}
	if n.Deprecated && !m.Deprecated {
		c.found("deprecated", "", "", "")
	}
	c.flag(a.Idempotent, b.Idempotent, "idempotent")
	c.flag(a.Keyed, b.Keyed, "keyed")
	c.flag(a.Serial, b.Serial, "serial")
	c.flag(a.Safe, b.Safe, "safe")
	c.flag(a.Restartable, b.Restartable, "restartable")
	c.flag(a.Presence, b.Presence, "presence")
	c.bound(a.Timeout, b.Timeout, 0, "timeout-shorter", "timeout-longer", " ms")
	c.bound(float64(a.MaxSize), float64(b.MaxSize), 0, "size-smaller", "size-larger", " bytes")
	c.params(a.Params, b.Params)
	if a.Kind == "topic" {
		c.topic(m, n)
	}
	c.message("request", "request", a.Request, b.Request)
	c.message("request", "items sent", a.Up, b.Up)
	c.message("reply", "items received", a.Down, b.Down)
	c.message("reply", "response", a.Response, b.Response)
}

func (c *comparison) topic(m, n *method) {
	a, b := m.X, n.X
	if len(m.Params) == 1 && len(n.Params) == 1 {
		if old, next := text(m.Params[0].Schema), text(n.Params[0].Schema); old != next {
			c.found("topic-key-changed", "", old, next)
		}
	}
	const silent = "Disconnect"
	if old, next := or(a.Policy, silent), or(b.Policy, silent); old != next {
		c.found("policy-changed", "", old, next)
	}
	switch had, has := a.History > 0 || a.HistoryAge > 0, b.History > 0 || b.HistoryAge > 0; {
	case had && !has:
		c.found("history-shorter", "", "", "none")
	case !had && has:
		c.found("history-longer", "", "none", "")
	default:
		c.bound(float64(a.History), float64(b.History), 0, "history-shorter", "history-longer", " messages")
		c.bound(a.HistoryAge, b.HistoryAge, 0, "history-age-shorter", "history-age-longer", " ms")
	}
	c.bound(float64(a.MaxQueued), float64(b.MaxQueued), 256<<10, "queue-smaller", "queue-larger", " bytes")
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (c *comparison) flag(old, next bool, name string) {
	switch {
	case old && !next:
		c.found(name+"-lost", "", "", "")
	case next && !old:
		c.found(name+"-gained", "", "", "")
	}
}

// bound compares two bounds, of which 0 is without, or what it is by default.
func (c *comparison) bound(old, next, without float64, smaller, larger, unit string) {
	said := func(v float64) string {
		if v == 0 {
			return "none"
		}
		return fmt.Sprintf("%v%s", v, unit)
	}
	was, is := old, next
	if was == 0 {
		was = without
	}
	if is == 0 {
		is = without
	}
	switch {
	case was == is:
	case is != 0 && (was == 0 || is < was):
		c.found(smaller, "", said(old), said(next))
	default:
		c.found(larger, "", said(old), said(next))
	}
}

func (c *comparison) params(old, next []string) {
	was, is := strings.Join(old, ", "), strings.Join(next, ", ")
	switch {
	case was == is:
	case len(old) == 0:
		c.found("params-added", "", "", is)
	case len(next) == 0:
		c.found("params-removed", "", was, "")
	case len(next) > len(old) && slices.Equal(next[:len(old)], old):
		c.found("params-appended", "", was, is)
	default:
		c.found("params-changed", "", was, is)
	}
}

func (c *comparison) faults() {
	for _, f := range c.old.Faults {
		c.begin("fault "+f.Name, false)
		there := false
		for _, g := range c.next.Faults {
			if g.Name != f.Name {
				continue
			}
			there = true
			if g.Code != f.Code {
				c.found("fault-code-changed", "", fmt.Sprint(f.Code), fmt.Sprint(g.Code))
			}
			c.message("reply", "data", f.Data, g.Data)
		}
		if !there {
			c.found("fault-removed", "", "", "")
		}
	}
	for _, g := range c.next.Faults {
		if !slices.ContainsFunc(c.old.Faults, func(f struct {
			Name string
			Code int64
			Data node
		}) bool {
			return f.Name == g.Name
		}) {
			c.begin("fault "+g.Name, false)
			c.found("fault-added", "", "", "")
		}
	}
}

// signIns compares those of one variable, or the only ones that there are.
func (c *comparison) signIns() {
	old, next := c.old.SignIns, c.next.SignIns
	if len(old) == 1 && len(next) == 1 {
		next[0].Go = old[0].Go
	}
	rest := map[string]bool{}
	for _, n := range next {
		rest[n.Go] = true
	}
	for _, s := range old {
		c.begin("sign-in "+s.Go, false)
		if !rest[s.Go] {
			c.found("sign-in-removed", "", "", "")
		}
		delete(rest, s.Go)
		for _, n := range next {
			if n.Go == s.Go {
				c.message("request", "credentials", s.Credentials, n.Credentials)
				c.message("reply", "reply", s.Reply, n.Reply)
			}
		}
	}
	for _, n := range next {
		if rest[n.Go] {
			c.begin("sign-in "+n.Go, false)
			c.found("sign-in-added", "", "", "")
		}
	}
}
