package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// discover is OpenRPC's service discovery method.
const discover = "rpc.discover"

// document is what is read of an OpenRPC document, a server's or a file's.
type document struct {
	Methods    []described `json:"methods"`
	Components struct {
		Schemas map[string]*shape `json:"schemas"`
	} `json:"components"`
	Faults []describedFault `json:"x-typedrpc-faults"`

	raw rawDocument
}

// rawDocument is a document's parts as they were written.
type rawDocument struct {
	Methods []json.RawMessage `json:"methods"`
	Faults  []json.RawMessage `json:"x-typedrpc-faults"`
}

// described is a declaration.
type described struct {
	Name        string `json:"name"`
	Summary     string `json:"summary"`
	Description string `json:"description"`
	Deprecated  bool   `json:"deprecated"`
	Structure   string `json:"paramStructure"`
	Params      []struct {
		Name     string `json:"name"`
		Required bool   `json:"required"`
		Schema   *shape `json:"schema"`
	} `json:"params"`
	Result *struct {
		Schema *shape `json:"schema"`
	} `json:"result"`
	X *extension `json:"x-typedrpc"`
}

// extension is what typedrpc says of a declaration.
type extension struct {
	Kind        model.Kind `json:"kind"`
	Handler     string     `json:"handler"`
	Request     *shape     `json:"request"`
	Up          *shape     `json:"up"`
	Down        *shape     `json:"down"`
	Response    *shape     `json:"response"`
	Idempotent  bool       `json:"idempotent"`
	Keyed       bool       `json:"keyed"`
	Serial      bool       `json:"serial"`
	Safe        bool       `json:"safe"`
	Restartable bool       `json:"restartable"`
	Timeout     float64    `json:"timeout"`
	MaxSize     int64      `json:"maxSize"`
	Presence    bool       `json:"presence"`
	Policy      string     `json:"policy"`
	History     int64      `json:"history"`
	HistoryAge  float64    `json:"historyAge"`
}

type describedFault struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Code        int64  `json:"code"`
	Data        *shape `json:"data"`
}

// parse reads a document.
func parse(data []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("it is no OpenRPC document: %w", err)
	}
	if err := json.Unmarshal(data, &d.raw); err != nil || d.raw.Methods == nil {
		return nil, errors.New("it is no OpenRPC document: it has no list of methods")
	}
	for i := range d.Methods {
		if m := &d.Methods[i]; m.X == nil { // of somebody else
			m.X = &extension{Kind: model.Method}
			if m.Result == nil {
				m.X.Kind = model.Notification
			} else {
				m.X.Response = m.Result.Schema
			}
		}
	}
	return &d, nil
}

// find is the declaration of that name, and as it was written; nil: there is none.
func (d *document) find(name string) (*described, json.RawMessage) {
	i := slices.IndexFunc(d.Methods, func(m described) bool { return m.Name == name })
	if i < 0 {
		return nil, nil
	}
	return &d.Methods[i], d.raw.Methods[i]
}

// fault is find for declared errors.
func (d *document) fault(name string) (*describedFault, json.RawMessage) {
	i := slices.IndexFunc(d.Faults, func(f describedFault) bool { return f.Name == name })
	if i < 0 {
		return nil, nil
	}
	return &d.Faults[i], d.raw.Faults[i]
}

// names are those of all declarations and faults.
func (d *document) names() (all []string) {
	for _, m := range d.Methods {
		all = append(all, m.Name)
	}
	for _, f := range d.Faults {
		all = append(all, f.Name)
	}
	return all
}

// document is the file of -schema, or else what the server says of itself.
func (r *remote) document(ctx context.Context, c typedrpc.Caller) (*document, error) {
	if r.schema != "" {
		return r.file()
	}
	if r.codec != "json" {
		return nil, usagef("what the server says of itself is JSON: use -codec json, or -schema")
	}
	raw, err := typedrpc.Call(ctx, c, typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw](discover, typedrpc.Idempotent), nil)
	if err != nil {
		return nil, err
	}
	return parse(raw)
}

// file is the document of -schema.
func (r *remote) file() (*document, error) {
	data, err := os.ReadFile(r.schema)
	if err != nil {
		return nil, usagef("-schema: %w", err)
	}
	d, err := parse(data)
	if err != nil {
		return nil, usagef("-schema: %s: %w", r.schema, err)
	}
	return d, nil
}

// ask is the document of -schema, or else that of the server at the first of args, and the
// other arguments.
func (r *remote) ask(ctx context.Context, args []string) (d *document, url string, rest []string, err error) {
	if r.schema != "" && (len(args) == 0 || !isURL(args[0])) {
		d, err = r.file()
		return d, "", args, err
	}
	if len(args) == 0 {
		return nil, "", nil, usagef("it needs the server's URL, or -schema file")
	}
	if r.schema != "" {
		d, err = r.file()
		return d, args[0], args[1:], err
	}
	within, cancel := r.within(ctx)
	defer cancel()
	conn, err := r.dial(within, args[0])
	if err != nil {
		return nil, "", nil, err
	}
	defer hangUp(ctx, conn)
	d, err = r.document(within, conn)
	var e *typedrpc.Error
	if errors.As(err, &e) && e.Code == typedrpc.Unimplemented {
		return nil, "", nil, fmt.Errorf("%w: the server does not tell what it has (Server.Describe lets it); -schema reads a file that typedrpc schema wrote", err)
	}
	return d, args[0], args[1:], err
}

// isURL tells a server's address from a declaration's name.
func isURL(arg string) bool { return strings.ContainsAny(arg, ":/") }

// Which kinds a command is for.
var (
	methods       = []model.Kind{model.Method}
	notifications = []model.Kind{model.Notification}
	serverStreams = []model.Kind{model.ServerStream}
	clientStreams = []model.Kind{model.ClientStream}
	bidiStreams   = []model.Kind{model.BidiStream}
	topics        = []model.Kind{model.Topic}
	uploads       = []model.Kind{model.Upload}
	downloads     = []model.Kind{model.Download}
	anything      []model.Kind
)

// commandFor is the command that a kind is for.
var commandFor = map[model.Kind]string{
	model.Method: "call", model.Notification: "notify", model.ServerStream: "receive",
	model.ClientStream: "send", model.BidiStream: "open", model.Topic: "subscribe",
	model.Upload: "upload", model.Download: "download",
}

// kindNames are the kinds in words.
var kindNames = map[model.Kind]string{
	model.ServerStream: "server stream", model.ClientStream: "client stream", model.BidiStream: "bidirectional stream",
}

func kindName(k model.Kind) string {
	if name := kindNames[k]; name != "" {
		return name
	}
	return string(k)
}

// kind is what m is, in words.
func (m *described) kind() string {
	if m.X.Handler == "client" {
		return kindName(m.X.Kind) + " of clients"
	}
	return kindName(m.X.Kind)
}

// hints are what may have been meant by a name that the server does not know as what the
// command is for.
func (r *remote) hints(ctx context.Context, c typedrpc.Caller, name, command string) []string {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	d, err := r.document(ctx, c)
	if err != nil {
		return nil
	}
	if m, _ := d.find(name); m != nil {
		if m.X.Handler == "client" {
			return []string{fmt.Sprintf("another name (%s is for the server to call)", name)}
		}
		if right := commandFor[m.X.Kind]; right != command && right != "" && command != "bench" {
			article := "a"
			if m.X.Kind == model.Upload {
				article = "an"
			}
			return []string{fmt.Sprintf("typedrpc %s (%s is %s %s)", right, name, article, kindName(m.X.Kind))}
		}
		return nil
	}
	return d.like(name)
}

// complete returns the function that completes arguments: behind the URL the names of
// declarations of these kinds.
func (r *remote) complete(kinds []model.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		first := len(args) == 0
		if len(args) > 1 || first && r.schema == "" {
			return nil, cobra.ShellCompDirectiveDefault // a file, as of @file
		}
		if first && (cmd.Name() != "describe" && cmd.Name() != "list") {
			return nil, cobra.ShellCompDirectiveNoFileComp // the URL
		}
		r.timeout, r.Env = lookTimeout, r.quiet()
		d, _, _, err := r.ask(cmd.Context(), args[:min(len(args), 1)])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, m := range d.Methods {
			if quote(m.Name) != m.Name || strings.HasPrefix(m.Name, "-") { // the shell would take it for something else
				continue
			}
			if kinds == nil || slices.Contains(kinds, m.X.Kind) && m.X.Handler != "client" {
				summary, _, _ := strings.Cut(m.Summary, "\n")
				names = append(names, cobra.CompletionWithDesc(m.Name, printable(summary)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
