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
	p.handlers(served)
	p.line("/** The API over a connection, as one object. */")
	p.line("export const newClient = (conn: typedrpc.Conn) => ({")
	p.depth++
	p.line("/** The connection itself. */")
	p.line("conn,")
	for _, b := range top.below {
		p.branch(b)
	}
	if len(served) > 0 {
		p.line("/** Has handlers take what the server calls: do so as soon as there is a connection, before anything is waited for. */")
		p.line("serve: (handlers: Handlers): void => {")
		p.depth++
		for _, d := range served {
			p.line("if (handlers.%s) typedrpc.serve(conn, typedrpc.%s(%s, handlers.%s));", p.consts[d], handlers[d.Kind], p.consts[d], p.consts[d])
		}
		p.depth--
		p.line("},")
	}
	p.depth--
	p.line("});")
	p.line("")
	p.line("/** The API over a connection, as {@link newClient} makes it. */")
	p.line("export type Client = ReturnType<typeof newClient>;")
	p.line("")
}

// served are the declarations that this side may handle: those that say so, or, where
// none does, all that do not say that the server does.
func (p *printer) served() []*model.Decl {
	told := slices.ContainsFunc(p.api.Decls, func(d *model.Decl) bool { return d.Handler == "client" })
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
	if b.decl == nil {
		p.line("%s: {", key(b.name))
		p.members(b)
		p.line("},")
		return
	}
	p.doc(b.decl.Doc)
	if len(b.below) == 0 && !b.decl.Presence {
		p.line("%s: %s,", key(b.name), p.function(b.decl))
		return
	}
	p.line("%s: Object.assign(%s, {", key(b.name), p.function(b.decl))
	if b.decl.Presence {
		p.line("  /** Tells who subscribes to a key. */")
		p.line("  presence: (key: string, options?: typedrpc.ReceiveOptions): AsyncIterableIterator<typedrpc.Member> => typedrpc.watch(conn, %s, key, options),", p.consts[b.decl])
	}
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

// function is what the client object has for a declaration.
func (p *printer) function(d *model.Decl) string {
	name := p.consts[d]
	if d.Kind == model.Topic {
		return fmt.Sprintf("(key: string, options?: typedrpc.ReceiveOptions): AsyncIterableIterator<typedrpc.TopicEvent<%s>> => typedrpc.subscribe(conn, %s, key, options)", p.text(d.Down), name)
	}
	request, value := "request: "+p.text(d.Request)+", ", "request"
	if d.Request.IsEmpty() {
		request, value = "", "{}"
	}
	arrow := func(params, options, result, call string) string {
		return fmt.Sprintf("(%s%soptions?: %s): %s => typedrpc.%s", request, params, options, result, call)
	}
	plain := func(verb string) string { return fmt.Sprintf("%s(conn, %s, %s, options)", verb, name, value) }
	switch d.Kind {
	case model.Notification:
		return arrow("", `Pick<typedrpc.CallOptions, "signal" | "metadata" | "withoutLink">`, "Promise<void>", plain("notify"))
	case model.ServerStream:
		result := "AsyncIterableIterator<" + p.text(d.Down) + ">"
		if d.Restartable {
			t := p.text(d.Request)
			options := fmt.Sprintf("typedrpc.ReceiveOptions & { restart?: (request: %s, last: %s | undefined) => %s }", t, p.text(d.Down), t)
			return arrow("", options, result, fmt.Sprintf("receive(conn, { ...%s, traits: { ...%s.traits, restart: options?.restart } }, %s, options)", name, name, value))
		}
		return arrow("", "typedrpc.ReceiveOptions", result, plain("receive"))
	case model.ClientStream:
		t := p.text(d.Up)
		return arrow(fmt.Sprintf("items: Iterable<%s> | AsyncIterable<%s>, ", t, t), "typedrpc.CallOptions", "Promise<"+p.text(d.Response)+">",
			fmt.Sprintf("sendAll(conn, %s, %s, items, options)", name, value))
	case model.BidiStream:
		return arrow("", "typedrpc.CallOptions", fmt.Sprintf("typedrpc.Duplex<%s, %s>", p.text(d.Up), p.text(d.Down)), plain("open"))
	case model.Upload:
		return arrow("source: typedrpc.Source, ", "typedrpc.UploadOptions", "Promise<"+p.text(d.Response)+">",
			fmt.Sprintf("upload(conn, %s, %s, source, options)", name, value))
	case model.Download:
		return arrow("", "typedrpc.DownloadOptions", "Promise<typedrpc.IncomingFile>", plain("download"))
	}
	return arrow("", "typedrpc.CallOptions", "Promise<"+p.text(d.Response)+">", plain("call"))
}

// fault writes a declared error: how one is known, and made.
func (p *printer) fault(f *model.Fault) {
	data, name := p.text(f.Data), quote(f.Name)
	p.doc(f.Doc)
	p.line("export const %s = {", p.consts[f])
	p.depth++
	p.line("name: %s,", name)
	p.line("code: %d,", f.Code)
	p.line("/** The data of an error, if it is of this fault. */")
	p.line("from: (error: unknown): %s | undefined => (error instanceof typedrpc.RpcError && error.fault === %s ? (error.data as %s) : undefined),", data, name, data)
	p.line("/** An error of this fault, for a handler to throw. */")
	p.line("error: (data: %s, message = %s): typedrpc.RpcError => new typedrpc.RpcError(%d, message, { fault: %s, data }),", data, name, f.Code, name)
	p.depth--
	p.line("} as const;")
	p.line("")
}

// signIn writes how a client says who it is.
func (p *printer) signIn(s *model.SignIn) {
	creds, reply := p.text(s.Creds), p.text(s.Reply)
	p.doc(s.Doc)
	p.line("export const %s = (present: () => %s | Promise<%s>): typedrpc.SignedIn<%s> => typedrpc.signIn<%s, %s>(present);", p.consts[s], creds, creds, reply, creds, reply)
	p.line("")
}

func milliseconds(d time.Duration) string {
	return strings.TrimSuffix(strconv.FormatFloat(float64(d)/1e6, 'f', -1, 64), ".0")
}
