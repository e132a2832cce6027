package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

func (env *Env) listCommand() *cobra.Command {
	r := &remote{Env: env}
	cmd := &cobra.Command{
		GroupID: groupLook, Use: "list [url]", Short: "list what a server has, or a schema",
		Long: `typedrpc list lists names, kinds and summaries of what a server has, as far as it tells that
(Server.Describe), or a file that typedrpc schema wrote. With -json it prints an object for each.`,
		Example: `  typedrpc list localhost:8080/rpc
  typedrpc list -schema api.json
  typedrpc list localhost:8080/rpc -json | jq -r 'select(.kind == "topic").name'`,
		Args: takes(0, 1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		d, _, _, err := r.ask(cmd.Context(), args)
		if err != nil {
			return err
		}
		var b strings.Builder
		var rows [][3]string
		for _, m := range d.Methods {
			if env.json {
				err := env.object(struct {
					Name    string     `json:"name"`
					Kind    model.Kind `json:"kind"`
					Summary string     `json:"summary,omitempty"`
				}{m.Name, m.X.Kind, m.Summary})
				if err != nil {
					return err
				}
				continue
			}
			rows = append(rows, [3]string{m.Name, m.kind(), "  " + firstSentence(m.Summary)})
		}
		table(&b, rows)
		_, err = fmt.Fprint(env.Out, printable(strings.ReplaceAll("\n"+b.String(), "\n  ", "\n")[1:]))
		return err
	})
	r.flags(cmd, soon)
	return cmd
}

// firstSentence is the beginning of a comment.
func firstSentence(doc string) string {
	if i := strings.Index(doc, ". "); i >= 0 {
		return doc[:i+1]
	}
	return doc
}

func (env *Env) describeCommand() *cobra.Command {
	r := &remote{Env: env}
	cmd := &cobra.Command{
		GroupID: groupLook, Use: "describe [url] [name...]", Short: "say what a name is, with a command line that calls it",
		Long: `typedrpc describe says what names are: kind, request, items, response, traits and types, with a
command line that can be pasted. It asks the server, as far as that tells (Server.Describe), or
reads a file that typedrpc schema wrote. Without a name it says it of all. With -json it
prints the objects of the OpenRPC document.`,
		Example: `  typedrpc describe localhost:8080/rpc shop.buy
  typedrpc describe -schema api.json shop.buy
  typedrpc describe localhost:8080/rpc shop.buy -json | jq .params`,
		ValidArgsFunction: r.complete(anything),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		d, url, names, err := r.ask(cmd.Context(), args)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			names = d.names()
		}
		for i, name := range names {
			if i > 0 && !env.json {
				fmt.Fprintln(env.Out)
			}
			if err := env.describe(d, name, url); err != nil {
				return err
			}
		}
		return nil
	})
	r.flags(cmd, soon)
	return cmd
}

// describe prints what a name is.
func (env *Env) describe(d *document, name, url string) error {
	m, raw := d.find(name)
	f, rawFault := d.fault(name)
	text := ""
	switch {
	case m != nil:
		text = d.describe(m, url)
	case f != nil:
		text, raw = d.describeFault(f), rawFault
	default:
		e := typedrpc.Errorf(typedrpc.Unimplemented, "there is no %q", name)
		e.Outcome = typedrpc.Answered
		return hinted{e, like(name, d.names())}
	}
	if env.json {
		return env.value(raw)
	}
	_, err := fmt.Fprint(env.Out, printable(text))
	return err
}

// describeFault is what a declared error is, in words.
func (d *document) describeFault(f *describedFault) string {
	var b strings.Builder
	p := printer{document: d}
	fmt.Fprintf(&b, "%s  fault, %v\n", f.Name, typedrpc.Code(f.Code))
	if f.Description != "" {
		fmt.Fprintf(&b, "\n  %s\n", strings.ReplaceAll(f.Description, "\n", "\n  "))
	}
	fmt.Fprintf(&b, "\n  data  %s\n", p.of(f.Data))
	p.details(&b)
	return b.String()
}

// describe is what a declaration is, in words.
func (d *document) describe(m *described, url string) string {
	var b strings.Builder
	p := printer{document: d}
	fmt.Fprintf(&b, "%s  %s\n", m.Name, strings.Join(append([]string{m.kind()}, m.traits()...), ", "))
	if text := cmp.Or(m.Description, m.Summary); text != "" { // the summary is the beginning
		fmt.Fprintf(&b, "\n  %s\n", strings.ReplaceAll(text, "\n", "\n  "))
	}
	b.WriteString("\n")
	var rows [][3]string
	row := func(name string, s *shape) {
		if s != nil {
			rows = append(rows, [3]string{name, p.of(s)})
		}
	}
	if m.X.Kind == model.Topic {
		rows = append(rows, [3]string{"key", "string"})
	}
	row("request", d.requestOf(m))
	row("items to it", m.X.Up)
	row("items from it", m.X.Down)
	row("response", m.X.Response)
	if len(rows) == 0 {
		b.WriteString("  (its types are not told)\n")
	}
	table(&b, rows)
	p.details(&b)
	fmt.Fprintf(&b, "\n  %s\n", d.line(m, url))
	return b.String()
}

// requestOf is the shape of the request, nil if there is none, or nothing is known of it.
func (d *document) requestOf(m *described) *shape {
	if m.X.Request != nil || len(m.Params) == 0 || m.X.Kind == model.Topic || m.untold() {
		return m.X.Request
	}
	s := &shape{Type: oneOrMore{"object"}, Properties: map[string]*shape{}}
	for _, p := range m.Params {
		s.Properties[p.Name] = p.Schema
		s.Order = append(s.Order, p.Name)
		if p.Required {
			s.Required = append(s.Required, p.Name)
		}
	}
	return s
}

// untold reports whether there is a request, of which a server without a schema knows no more.
func (m *described) untold() bool {
	if m.X.Request != nil || len(m.Params) != 1 || m.Structure != "by-position" || m.X.Kind == model.Topic {
		return false
	}
	s := m.Params[0].Schema
	return m.Params[0].Name == "request" && s != nil && s.Ref == "" && len(s.Type)+len(s.AnyOf)+len(s.Enum) == 0
}

// traits are what is said of a declaration beside its types.
func (m *described) traits() (all []string) {
	add := func(is bool, format string, args ...any) {
		if is {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	x := m.X
	millis := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	add(m.Deprecated, "deprecated")
	add(x.Idempotent, "idempotent")
	add(x.Keyed, "keyed")
	add(x.Serial, "serial")
	add(x.Safe, "safe")
	add(x.Restartable, "restartable")
	add(x.Timeout > 0, "at most %v", millis(x.Timeout))
	add(x.MaxSize > 0, "messages of at most %d bytes", x.MaxSize)
	add(x.Presence, "presence")
	add(x.Policy != "", "%s", x.Policy)
	add(x.History > 0, "remembers %d", x.History)
	add(x.HistoryAge > 0, "remembers %v", millis(x.HistoryAge))
	return all
}

// line is a command line that calls m, for people to paste and to change.
func (d *document) line(m *described, url string) string {
	if url == "" {
		url = "localhost:8080/rpc"
	}
	if m.X.Handler == "client" {
		return "(the server calls it)"
	}
	if commandFor[m.X.Kind] == "" { // of a later version
		return "(a program calls it)"
	}
	flags := ""
	if m.X.Kind == model.Download {
		flags = "-o FILE "
	}
	if strings.HasPrefix(m.Name, "-") { // or it would be a flag
		flags += "-- "
	}
	line := fmt.Sprintf("typedrpc %s %s%s %s", commandFor[m.X.Kind], flags, quote(url), quote(m.Name))
	if m.X.Kind == model.Topic {
		return line + " KEY"
	}
	request := d.requestOf(m)
	if m.untold() {
		line += " REQUEST"
	}
	if s := d.resolve(request); s != nil && !(len(s.Type) == 1 && s.Type[0] == "object" && len(s.Properties) == 0) {
		line += " " + quote(d.example(request))
	}
	if m.X.Kind == model.Upload {
		line += " FILE"
	}
	if up := m.X.Up; up != nil && (m.X.Kind == model.ClientStream || m.X.Kind == model.BidiStream) {
		line = "echo " + quote(d.example(up)) + " | " + line
	}
	return line
}

// quote is an argument as a shell wants it.
func quote(arg string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("./:_-@%+,", r)
	}
	if arg != "" && strings.IndexFunc(arg, func(r rune) bool { return !plain(r) }) < 0 {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}
