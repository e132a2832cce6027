package ts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// makers are the functions of the client that make declarations, by what they make.
var makers = map[model.Kind]string{
	model.Method: "method",
}

// A branch is a part of the client object: what is declared there, and what is below.
type branch struct {
	name  string
	decl  *model.Decl
	below []*branch
}

// grow makes the client object of the declarations that the server handles.
func grow(api *model.API) (*branch, error) {
	top := new(branch)
	for _, d := range api.Decls {
		if d.Handler == "client" {
			continue
		}
		b := top
		for _, part := range d.Path {
			i := slices.IndexFunc(b.below, func(x *branch) bool { return x.name == part })
			if i < 0 {
				b.below = append(b.below, &branch{name: part})
				i = len(b.below) - 1
			}
			b = b.below[i]
		}
		if b.decl != nil {
			return nil, fmt.Errorf("%s: %q is at the same place of the client object as %q of %s: give one another place with //typedrpc:name", d.Pos, d.Name, b.decl.Name, b.decl.Pos)
		}
		b.decl = d
	}
	if err := check(top); err != nil {
		return nil, err
	}
	return top, nil
}

// ofFunctions are members of all functions, which a function's declarations cannot be called.
var ofFunctions = words("name length arguments caller prototype apply bind call toString")

func check(b *branch) error {
	for _, x := range b.below {
		if b.decl != nil && ofFunctions[x.name] {
			d := x.first()
			return fmt.Errorf("%s: %q cannot be below %q in the client object, as functions have a member %q of their own: give it another place with //typedrpc:name", d.Pos, d.Name, b.decl.Name, x.name)
		}
		if err := check(x); err != nil {
			return err
		}
	}
	return nil
}

// first is a declaration of the branch.
func (b *branch) first() *model.Decl {
	for b.decl == nil {
		b = b.below[0]
	}
	return b.decl
}

// client writes the typed client object.
func (p *printer) client(top *branch) {
	if len(p.consts) == 0 {
		return
	}
	p.line("/** The API over a connection, as one object. */")
	p.line("export const newClient = (conn: typedrpc.Conn) => ({")
	p.depth++
	p.line("/** The connection itself. */")
	p.line("conn,")
	for _, b := range top.below {
		p.branch(b)
	}
	p.depth--
	p.line("});")
	p.line("")
	p.line("/** The API over a connection, as {@link newClient} makes it. */")
	p.line("export type Client = ReturnType<typeof newClient>;")
	p.line("")
}

func (p *printer) branch(b *branch) {
	if !b.written() {
		return
	}
	if b.decl == nil || makers[b.decl.Kind] == "" {
		p.line("%s: {", key(b.name))
		p.members(b)
		p.line("},")
		return
	}
	p.doc(b.decl.Doc)
	if !slices.ContainsFunc(b.below, (*branch).written) {
		p.line("%s: %s,", key(b.name), p.function(b.decl))
		return
	}
	p.line("%s: Object.assign(%s, {", key(b.name), p.function(b.decl))
	p.members(b)
	p.line("}),")
}

func (p *printer) members(b *branch) {
	p.depth++
	for _, x := range b.below {
		p.branch(x)
	}
	p.depth--
}

// written reports whether anything of the branch is in the output.
func (b *branch) written() bool {
	return b.decl != nil && makers[b.decl.Kind] != "" || slices.ContainsFunc(b.below, (*branch).written)
}

// key is a member of an object literal, where __proto__ is something else.
func key(name string) string {
	if name == "__proto__" {
		return `["__proto__"]`
	}
	return property(name)
}

// function is what the client object has for a declaration.
func (p *printer) function(d *model.Decl) string {
	request, value := "request: "+p.text(d.Request)+", ", "request"
	if d.Request.IsEmpty() {
		request, value = "", "{}"
	}
	return fmt.Sprintf("(%soptions?: typedrpc.CallOptions): Promise<%s> => typedrpc.call(conn, %s, %s, options)", request, p.text(d.Response), p.consts[d], value)
}

// fault writes a declared error.
func (p *printer) fault(f *model.Fault) {
	if makers["fault"] == "" {
		return
	}
	p.doc(f.Doc)
	p.line("export const %s = typedrpc.%s<%s>(%s, %d);", p.consts[f], makers["fault"], p.text(f.Data), quote(f.Name), f.Code)
	p.line("")
}

// signIn writes how a client says who it is.
func (p *printer) signIn(s *model.SignIn) {
	if makers["signIn"] == "" {
		return
	}
	p.doc(s.Doc)
	p.line("export const %s = typedrpc.%s<%s, %s>;", p.consts[s], makers["signIn"], p.text(s.Creds), p.text(s.Reply))
	p.line("")
}

func milliseconds(d time.Duration) string {
	return strings.TrimSuffix(strconv.FormatFloat(float64(d)/1e6, 'f', -1, 64), ".0")
}
