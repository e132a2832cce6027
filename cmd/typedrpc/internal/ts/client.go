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
	model.Method: "method", model.Notification: "notification",
	model.ServerStream: "serverStream", model.ClientStream: "clientStream", model.BidiStream: "bidiStream",
	model.Topic: "topic", model.Upload: "uploadOf", model.Download: "downloadOf",
}

// makes are the types of what they make.
var makes = map[model.Kind]string{
	model.Method: "Method", model.Notification: "Notification",
	model.ServerStream: "ServerStream", model.ClientStream: "ClientStream", model.BidiStream: "BidiStream",
	model.Topic: "Topic", model.Upload: "Upload", model.Download: "Download",
}

// handlers are the functions of the client that handle what the server calls.
var handlers = map[model.Kind]string{
	model.Method: "handle", model.Notification: "handleNotification",
	model.ServerStream: "handleServerStream", model.ClientStream: "handleClientStream", model.BidiStream: "handleBidiStream",
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
	for _, b := range top.below {
		if b.name == "conn" || b.name == "serve" {
			d := b.first()
			return nil, fmt.Errorf("%s: %q would be at %s in the client object, which has that already: give it another place with //typedrpc:name", d.Pos, d.Name, b.name)
		}
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
	if len(p.api.Decls) == 0 {
		return
	}
	served := p.served()
	if p.form != javascript {
		p.handlers(served)
	}
	p.note("The API over a connection, as " + map[bool]string{true: "{@link newClient} makes it.", false: "one object."}[p.form == declarations])
	switch p.form {
	case typescript:
		p.line("export const newClient = (conn: typedrpc.Conn) => ({")
	case javascript:
		p.line("export const newClient = (conn) => ({")
	case declarations:
		p.line("export interface Client {")
	}
	p.depth++
	p.note("The connection itself.")
	p.line("conn%s", map[form]string{typescript: ",", javascript: ",", declarations: ": typedrpc.Conn;"}[p.form])
	for _, b := range top.below {
		p.branch(b)
	}
	if len(served) > 0 {
		p.serve(served)
	}
	p.depth--
	if p.form == declarations {
		p.line("}")
		p.line("")
		p.note("Makes the API over a connection, as one object.")
		p.line("export declare const newClient: (conn: typedrpc.Conn) => Client;")
		p.line("")
		return
	}
	p.line("});")
	p.line("")
	if p.form == typescript {
		p.note("The API over a connection, as {@link newClient} makes it.")
		p.line("export type Client = ReturnType<typeof newClient>;")
		p.line("")
	}
}

// serve writes the member of the client object that takes handlers.
func (p *printer) serve(served []*model.Decl) {
	p.note("Has handlers take what the server calls: do so as soon as there is a connection, before anything is waited for.")
	switch p.form {
	case declarations:
		p.line("serve: (handlers: Handlers) => void;")
		return
	case javascript:
		p.line("serve: (handlers) => {")
	case typescript:
		p.line("serve: (handlers: Handlers): void => {")
	}
	p.depth++
	for _, d := range served {
		p.line("if (handlers.%s) typedrpc.serve(conn, typedrpc.%s(%s, handlers.%s));", p.consts[d], handlers[d.Kind], p.consts[d], p.consts[d])
	}
	p.depth--
	p.line("},")
}

// served are the declarations that this side may handle: those that say so, or all where
// no declaration says who handles it.
func (p *printer) served() []*model.Decl {
	told := slices.ContainsFunc(p.api.Decls, func(d *model.Decl) bool { return d.Handler != "" })
	var served []*model.Decl
	for _, d := range p.api.Decls {
		if handlers[d.Kind] != "" && (d.Handler == "client" || d.Handler == "" && !told) {
			served = append(served, d)
		}
	}
	return served
}

// handlers writes the type of what handles calls of the server's.
func (p *printer) handlers(served []*model.Decl) {
	if len(served) == 0 {
		return
	}
	p.line("/** What this side may handle of what the server calls. */")
	p.line("export interface Handlers {")
	p.depth++
	for _, d := range served {
		p.doc(d.Doc)
		takes, gives := "", "void | Promise<void>"
		switch d.Kind {
		case model.Method:
			gives = awaitable(p.text(d.Response))
		case model.ServerStream:
			gives = fmt.Sprintf("AsyncIterable<%s> | Iterable<%s>", p.text(d.Down), p.text(d.Down))
		case model.ClientStream:
			takes = "items: AsyncIterable<" + p.text(d.Up) + ">, "
			gives = awaitable(p.text(d.Response))
		case model.BidiStream:
			takes = fmt.Sprintf("stream: typedrpc.Duplex<%s, %s>, ", p.text(d.Down), p.text(d.Up))
		}
		p.line("%s?: (request: %s, %scontext: typedrpc.Context) => %s;", p.consts[d], p.text(d.Request), takes, gives)
	}
	p.depth--
	p.line("}")
	p.line("")
}

func (p *printer) branch(b *branch) {
	end := ","
	if p.form == declarations {
		end = ";"
	}
	if b.decl == nil {
		p.line("%s: {", key(b.name))
		p.members(b)
		p.line("}%s", end)
		return
	}
	p.doc(b.decl.Doc)
	own := p.arrow(p.function(b.decl))
	if len(b.below) == 0 && !b.decl.Presence {
		p.line("%s: %s%s", key(b.name), own, end)
		return
	}
	open, shut := "Object.assign("+own+", {", "})"
	if p.form == declarations {
		open, shut = "("+own+") & {", "}"
	}
	p.line("%s: %s", key(b.name), open)
	if b.decl.Presence {
		p.depth++
		p.note("Tells who subscribes to a key.")
		p.line("presence: %s%s", p.arrow(function{
			params: []param{{"key", "string"}, {"options?", "typedrpc.ReceiveOptions"}},
			result: "AsyncIterableIterator<typedrpc.Member>",
			body:   fmt.Sprintf("watch(conn, %s, key, options)", p.consts[b.decl]),
		}), end)
		p.depth--
	}
	p.members(b)
	p.line("%s%s", shut, end)
}

func (p *printer) members(b *branch) {
	p.depth++
	for _, x := range b.below {
		p.branch(x)
	}
	p.depth--
}

// awaitable is what a handler may return, now or later.
func awaitable(t string) string {
	if t == "unknown" {
		return t
	}
	return t + " | Promise<" + t + ">"
}

// key is a member of an object literal, where __proto__ is something else.
func key(name string) string {
	if name == "__proto__" {
		return `["__proto__"]`
	}
	return property(name)
}

func milliseconds(d time.Duration) string {
	return strings.TrimSuffix(strconv.FormatFloat(float64(d)/1e6, 'f', -1, 64), ".0")
}
