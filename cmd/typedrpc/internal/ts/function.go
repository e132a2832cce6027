package ts

import (
	"fmt"
	"strings"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// A function is what the client object has for a declaration: it calls one of the
// client's functions.
type function struct {
	params []param
	result string
	body   string
}

// A param of a function; the name of one that may be left out ends in a question mark.
type param struct{ name, typ string }

// arrow is f as the form has it, or its type.
func (p *printer) arrow(f function) string {
	var params []string
	for _, x := range f.params {
		if p.form == javascript {
			params = append(params, strings.TrimSuffix(x.name, "?"))
		} else {
			params = append(params, x.name+": "+x.typ)
		}
	}
	list := "(" + strings.Join(params, ", ") + ")"
	switch p.form {
	case javascript:
		return list + " => typedrpc." + f.body
	case declarations:
		return list + " => " + f.result
	}
	return list + ": " + f.result + " => typedrpc." + f.body
}

// function is what the client object has for d.
func (p *printer) function(d *model.Decl) function {
	name := p.consts[d]
	if d.Kind == model.Topic {
		return function{
			[]param{{"key", "string"}, {"options?", "typedrpc.ReceiveOptions"}},
			"AsyncIterableIterator<typedrpc.TopicEvent<" + p.text(d.Down) + ">>",
			fmt.Sprintf("subscribe(conn, %s, key, options)", name),
		}
	}
	var request []param
	value := "{}"
	if !d.Request.IsEmpty() {
		request, value = []param{{"request", p.text(d.Request)}}, "request"
	}
	make := func(options, result, call string, more ...param) function {
		return function{append(append(request, more...), param{"options?", options}), result, call}
	}
	plain := func(verb string) string { return fmt.Sprintf("%s(conn, %s, %s, options)", verb, name, value) }
	switch d.Kind {
	case model.Notification:
		return make(`Pick<typedrpc.CallOptions, "signal" | "metadata" | "withoutLink">`, "Promise<void>", plain("notify"))
	case model.ServerStream:
		result := "AsyncIterableIterator<" + p.text(d.Down) + ">"
		if d.Restartable {
			t := p.text(d.Request)
			options := fmt.Sprintf("typedrpc.ReceiveOptions & { restart?: (request: %s, last: %s | undefined) => %s }", t, p.text(d.Down), t)
			return make(options, result, fmt.Sprintf("receive(conn, { ...%s, traits: { ...%s.traits, restart: options?.restart } }, %s, options)", name, name, value))
		}
		return make("typedrpc.ReceiveOptions", result, plain("receive"))
	case model.ClientStream:
		t := p.text(d.Up)
		return make("typedrpc.CallOptions", "Promise<"+p.text(d.Response)+">", fmt.Sprintf("sendAll(conn, %s, %s, items, options)", name, value),
			param{"items", fmt.Sprintf("Iterable<%s> | AsyncIterable<%s>", t, t)})
	case model.BidiStream:
		return make("typedrpc.CallOptions", fmt.Sprintf("typedrpc.Duplex<%s, %s>", p.text(d.Up), p.text(d.Down)), plain("open"))
	case model.Upload:
		return make("typedrpc.UploadOptions", "Promise<"+p.text(d.Response)+">", fmt.Sprintf("upload(conn, %s, %s, source, options)", name, value),
			param{"source", "typedrpc.Source"})
	case model.Download:
		return make("typedrpc.DownloadOptions", "Promise<typedrpc.IncomingFile>", plain("download"))
	}
	return make("typedrpc.CallOptions", "Promise<"+p.text(d.Response)+">", plain("call"))
}

// fault writes a declared error: how one is known, and made.
func (p *printer) fault(f *model.Fault) {
	data, name := p.text(f.Data), quote(f.Name)
	p.doc(f.Doc)
	p.open(p.consts[f])
	p.member("name", name)
	p.member("code", fmt.Sprint(f.Code))
	p.note("The data of an error, if it is of this fault.")
	switch p.form {
	case typescript:
		p.line("from: (error: unknown): %s | undefined => (error instanceof typedrpc.RpcError && error.fault === %s ? (error.data as %s) : undefined),", data, name, data)
	case javascript:
		p.line("from: (error) => (error instanceof typedrpc.RpcError && error.fault === %s ? error.data : undefined),", name)
	case declarations:
		p.line("readonly from: (error: unknown) => %s | undefined;", data)
	}
	p.note("An error of this fault, for a handler to throw.")
	switch p.form {
	case typescript:
		p.line("error: (data: %s, message = %s): typedrpc.RpcError => new typedrpc.RpcError(%d, message, { fault: %s, data }),", data, name, f.Code, name)
	case javascript:
		p.line("error: (data, message = %s) => new typedrpc.RpcError(%d, message, { fault: %s, data }),", name, f.Code, name)
	case declarations:
		p.line("readonly error: (data: %s, message?: string) => typedrpc.RpcError;", data)
	}
	p.close()
	p.line("")
}

// signIn writes how a client says who it is.
func (p *printer) signIn(s *model.SignIn) {
	creds, reply := p.text(s.Creds), p.text(s.Reply)
	p.doc(s.Doc)
	switch name := p.consts[s]; p.form {
	case typescript:
		p.line("export const %s = (present: () => %s | Promise<%s>): typedrpc.SignedIn<%s> => typedrpc.signIn<%s, %s>(present);", name, creds, creds, reply, creds, reply)
	case javascript:
		p.line("export const %s = (present) => typedrpc.signIn(present);", name)
	case declarations:
		p.line("export declare const %s: (present: () => %s | Promise<%s>) => typedrpc.SignedIn<%s>;", name, creds, creds, reply)
	}
	p.line("")
}
