// Package openrpc writes an API as an OpenRPC document, with extensions for what
// OpenRPC does not know: streams, topics, transfers, traits, faults.
package openrpc

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/fingerprint"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// Options say what the document says of itself.
type Options struct{ Title, Version string }

type document struct {
	OpenRPC    string     `json:"openrpc"`
	Info       info       `json:"info"`
	Methods    []method   `json:"methods"`
	Components components `json:"components"`
	Faults     []fault    `json:"x-typedrpc-faults,omitempty"`
	SignIns    []signIn   `json:"x-typedrpc-sign-in,omitempty"`
}

type info struct {
	Title   string `json:"title"`
	Version string `json:"version"`
}

type components struct {
	Schemas map[string]*schema `json:"schemas"`
}

type method struct {
	Name           string    `json:"name"`
	Summary        string    `json:"summary,omitempty"`
	Description    string    `json:"description,omitempty"`
	Deprecated     bool      `json:"deprecated,omitempty"`
	ParamStructure string    `json:"paramStructure,omitempty"`
	Params         []content `json:"params"`
	Result         *content  `json:"result,omitempty"`
	Extension      extension `json:"x-typedrpc"`
}

// content is what OpenRPC calls a content descriptor.
type content struct {
	Name     string  `json:"name"`
	Required bool    `json:"required,omitempty"`
	Schema   *schema `json:"schema"`
}

// extension is what typedrpc knows of a declaration.
type extension struct {
	Kind        model.Kind `json:"kind"`
	Go          string     `json:"go"`
	Fingerprint string     `json:"fingerprint"` // of the rest, as far as it changes what is sent
	Handler     string     `json:"handler,omitempty"`
	Request     *schema    `json:"request,omitempty"`
	Up          *schema    `json:"up,omitempty"`
	Down        *schema    `json:"down,omitempty"`
	Response    *schema    `json:"response,omitempty"`
	Idempotent  bool       `json:"idempotent,omitempty"`
	Keyed       bool       `json:"keyed,omitempty"`
	Serial      bool       `json:"serial,omitempty"`
	Safe        bool       `json:"safe,omitempty"`
	Restartable bool       `json:"restartable,omitempty"`
	Timeout     float64    `json:"timeout,omitempty"` // milliseconds
	MaxSize     int64      `json:"maxSize,omitempty"`
	Params      []string   `json:"params,omitempty"`
	Presence    bool       `json:"presence,omitempty"`
	Policy      string     `json:"policy,omitempty"`
	History     int64      `json:"history,omitempty"`
	HistoryAge  float64    `json:"historyAge,omitempty"` // milliseconds
	MaxQueued   int64      `json:"maxQueued,omitempty"`
}

type fault struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	Code        int64   `json:"code"`
	Go          string  `json:"go"`
	Data        *schema `json:"data"`
}

type signIn struct {
	Description string  `json:"description,omitempty"`
	Go          string  `json:"go"`
	Credentials *schema `json:"credentials"`
	Reply       *schema `json:"reply"`
}

// Document is api as the text of a document.
func Document(api *model.API, o Options) (string, error) {
	d := document{OpenRPC: "1.3.2", Info: info(o), Methods: []method{}, Components: components{map[string]*schema{}}}
	if d.Info.Title == "" {
		d.Info.Title = api.Title
	}
	for _, t := range api.Types {
		d.Components.Schemas[t.Name] = namedSchema(t)
	}
	sums := fingerprint.Of(api)
	for _, x := range api.Decls {
		m := methodOf(x)
		m.Extension.Fingerprint = sums.Decl(x)
		d.Methods = append(d.Methods, m)
	}
	for _, f := range api.Faults {
		d.Faults = append(d.Faults, fault{f.Name, clean(f.Doc), f.Code, f.Var, schemaOf(f.Data)})
	}
	for _, s := range api.SignIns {
		d.SignIns = append(d.SignIns, signIn{clean(s.Doc), s.Var, schemaOf(s.Creds), schemaOf(s.Reply)})
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(d)
	return out.String(), err
}

func methodOf(d *model.Decl) method {
	m := method{Name: d.Name, Description: clean(d.Doc), Deprecated: deprecated(d.Doc), Params: []content{}}
	m.Summary, _, _ = strings.Cut(m.Description, "\n\n")
	m.Summary = strings.ReplaceAll(m.Summary, "\n", " ")
	if m.Summary == m.Description {
		m.Description = ""
	}
	m.ParamStructure, m.Params = params(d)
	if d.Response != nil {
		m.Result = &content{Name: "response", Required: true, Schema: schemaOf(d.Response)}
	} else if d.Kind != model.Notification { // a stream, which ends with nothing
		m.Result = &content{Name: "end", Schema: &schema{Type: []string{"null"}}}
	}
	m.Extension = extension{
		Kind: d.Kind, Go: d.Var, Handler: d.Handler,
		Request: schemaOf(d.Request), Up: schemaOf(d.Up), Down: schemaOf(d.Down), Response: schemaOf(d.Response),
		Idempotent: d.Idempotent, Keyed: d.Keyed, Serial: d.Serial, Safe: d.Safe, Restartable: d.Restartable,
		Timeout: float64(d.Timeout) / 1e6, MaxSize: d.MaxSize, Params: d.Params,
		Presence: d.Presence, Policy: d.Policy, History: d.History, HistoryAge: float64(d.HistoryAge) / 1e6, MaxQueued: d.MaxQueued,
	}
	return m
}

// params are a request as JSON-RPC has it: the members of an object by their names,
// anything else as the only element of a list.
func params(d *model.Decl) (structure string, all []content) {
	all = []content{}
	if d.Kind == model.Topic {
		return "by-position", append(all, content{"key", true, &schema{Type: []string{"string"}}})
	}
	r := d.Request.Resolve()
	if r.Kind != model.Object || d.Request.Null {
		return "by-position", append(all, content{"request", true, schemaOf(d.Request)})
	}
	// OpenRPC wants what is required before what is not.
	for _, optional := range []bool{false, true} {
		for _, f := range r.Fields {
			if f.Optional == optional {
				all = append(all, content{f.Name, !optional, schemaOf(f.Type)})
			}
		}
	}
	if len(d.Params) > 0 {
		return "either", byNames(all, d.Params)
	}
	return "by-name", all
}

// byNames puts those first that a list may give, in its order.
func byNames(all []content, names []string) []content {
	var out []content
	for _, n := range names {
		for _, c := range all {
			if c.Name == n {
				out = append(out, c)
			}
		}
	}
	for _, c := range all {
		found := false
		for _, n := range names {
			found = found || c.Name == n
		}
		if !found {
			out = append(out, c)
		}
	}
	return out
}

func clean(doc string) string { return strings.TrimSpace(doc) }

func deprecated(doc string) bool {
	return strings.HasPrefix(doc, "Deprecated: ") || strings.Contains(doc, "\n\nDeprecated: ")
}
