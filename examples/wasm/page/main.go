//go:build js

// Command page is the web page's program: Go, compiled to WebAssembly. It calls the server
// as any Go program does, with the declarations that the server handles.
package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall/js"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/wasm/api"
)

func main() {
	if err := run(context.Background()); err != nil {
		show("error", err.Error())
	}
}

// page is what the page shows of its connection.
type page struct {
	conn     *typedrpc.Conn
	links    int
	resumes  int
	sessions int
}

func run(ctx context.Context) error {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, api.About, func(context.Context, string) (api.Machine, error) { return machine(), nil })

	p := new(page)
	conn, err := typedrpc.Dial(ctx, js.Global().Get("location").Get("origin").String()+"/rpc", &typedrpc.DialOptions{
		Mux:     mux,
		Backoff: typedrpc.Backoff{Max: 2 * time.Second},
		OnState: p.state,
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	p.conn = conn

	on("form", "submit", func() { p.factor(ctx) })
	on("give-up", "click", conn.Reconnect)
	js.Global().Get("document").Get("body").Get("dataset").Set("ready", "true")

	server, err := typedrpc.Call(ctx, conn, api.Meet, "")
	if err != nil {
		return err
	}
	show("server", text(server))
	show("client", text(machine()))
	return p.count(ctx)
}

// state shows what the connection is doing.
func (p *page) state(s typedrpc.StateChange) {
	words := string(s.State)
	if s.State == typedrpc.StateConnected {
		p.links++
		if s.Resumed {
			p.resumes++
		} else {
			p.sessions++
		}
	}
	show("status", words)
	element("status").Get("dataset").Set("state", words)
	show("links", strconv.Itoa(p.links))
	show("resumes", strconv.Itoa(p.resumes))
	show("sessions", strconv.Itoa(p.sessions))
}

// factor calls the server with what the visitor has typed.
func (p *page) factor(ctx context.Context) {
	show("error", "")
	show("result", "")
	n, err := strconv.Atoi(strings.TrimSpace(element("number").Get("value").String()))
	if err != nil {
		show("error", "That is no number.")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	factors, err := typedrpc.Call(ctx, p.conn, api.Factor, n)
	if err != nil {
		show("error", err.Error())
		return
	}
	show("result", fmt.Sprintf("%d = %s", n, strings.Trim(strings.ReplaceAll(fmt.Sprint(factors), " ", " × "), "[]")))
}

// count receives numbers, and looks whether one is missing or came before.
func (p *page) count(ctx context.Context) error {
	last, gaps, duplicates := 0, 0, 0
	for n, err := range typedrpc.Receive(ctx, p.conn, api.Ticks, 0) {
		if errors.Is(err, typedrpc.Gap) {
			continue // it is opened again
		}
		if err != nil {
			return err
		}
		if n <= last {
			duplicates++
		} else {
			gaps += n - last - 1
			last = n
		}
		show("received", strconv.Itoa(n))
		show("gaps", strconv.Itoa(gaps))
		show("duplicates", strconv.Itoa(duplicates))
	}
	return nil
}

func machine() api.Machine {
	return api.Machine{Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
}

func text(m api.Machine) string { return fmt.Sprintf("%s, %s/%s", m.Go, m.OS, m.Arch) }

// What follows is the page's document.

func element(id string) js.Value { return js.Global().Get("document").Call("getElementById", id) }

func show(id, text string) {
	e := element(id)
	e.Set("textContent", text)
	if id == "error" {
		e.Set("hidden", text == "")
	}
}

// on has f run when something happens, on a goroutine of its own: the browser's one thread
// must not wait.
func on(id, event string, f func()) {
	element(id).Call("addEventListener", event, js.FuncOf(func(_ js.Value, args []js.Value) any {
		args[0].Call("preventDefault")
		go f()
		return nil
	}))
}
