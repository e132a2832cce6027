package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// TestLive has Node call a Go server with what is generated, and be called by it: every
// kind of declaration by the client object, and the values of all awkward types both
// ways. live.mjs is the client's half.
func TestLive(t *testing.T) {
	is := is.New(t)
	node := node(t)
	dir := filepath.Join(node, "live")
	is.NoErr(os.RemoveAll(dir))
	is.NoErr(os.Mkdir(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	built, err := os.ReadFile("../../../js/dist/typedrpc.js")
	is.NoErr(err)
	write(t, filepath.Join(dir, "typedrpc.js"), string(built))
	for _, form := range []string{"module.js", "typescript.ts"} {
		generate(t, "ts", "-import", "./typedrpc.js", "-map", pointFlag, "-o", filepath.Join(dir, form), "./awkward")
	}

	// The server's declarations are newer: one name has another fingerprint.
	newer, _ := generate(t, "schema", "-map", pointFlag, "./awkward")
	newer = regexp.MustCompile(`("go": "NestedFind",\s+"fingerprint": ")\w{6}`).ReplaceAllString(newer, "${1}c0ffee")
	s := liveServer(t, newer)
	var samples bytes.Buffer
	for _, x := range awkward.Samples() {
		name, err := json.Marshal(map[string]any{"constant": constant(x.Var), "method": strings.TrimPrefix(x.Name, "echo."), "value": json.RawMessage(x.JSON)})
		is.NoErr(err)
		samples.Write(append(name, '\n'))
	}
	for _, form := range []string{"module", "typescript"} {
		t.Run(form, func(t *testing.T) {
			cmd := exec.Command("node", "live.mjs", form, s)
			cmd.Dir = node
			cmd.Stdin = bytes.NewReader(samples.Bytes())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if want := fmt.Sprintf("%d values each way\n", len(awkward.Samples())); string(out) != want {
				t.Fatalf("%s instead of %s", out, want)
			}
		})
	}
}

// liveServer serves everything that the awkward package declares, and returns its address.
func liveServer(t *testing.T, schema string) string {
	hub := new(topic.Hub)
	server := &typedrpc.Server{Mux: liveMux(hub), Schema: []byte(schema), SignIn: awkward.SignIn.Verify(func(ctx context.Context, _ *http.Request, who *awkward.Shortage) (typedrpc.Identity, *awkward.Untagged, error) {
		return typedrpc.Identity{Subject: fmt.Sprint("visitor ", who.Left)}, &awkward.Untagged{Name: "hello", Count: who.Left}, nil
	})}
	hs := httptest.NewServer(server)
	t.Cleanup(hs.Close)
	t.Cleanup(func() {
		server.Shutdown(context.Background())
		hub.Close()
	})
	return strings.Replace(hs.URL, "http", "ws", 1)
}

// liveMux has handlers of everything that the awkward package declares.
func liveMux(hub *topic.Hub) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	echoed := map[string]bool{}
	for _, s := range awkward.Samples() {
		if !echoed[s.Var] {
			s.Echo(mux)
		}
		echoed[s.Var] = true
	}
	serveStreams(mux)
	typedrpc.Handle(mux, awkward.Typing, func(ctx context.Context, who string) error {
		return typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), awkward.Typing, "you, "+who)
	})
	typedrpc.Handle(mux, awkward.Buy, func(_ context.Context, what awkward.Untagged) (int, error) {
		return what.Count * 2, nil
	})
	topic.Handle(mux, hub, awkward.Room, topic.Everybody)
	topic.Handle(mux, hub, awkward.Prices, topic.Everybody)
	typedrpc.Handle(mux, awkward.Look, func(ctx context.Context, _ struct{}) (awkward.Empty, error) {
		return awkward.Empty{}, topic.Publish(ctx, hub, awkward.Room, "lobby", &awkward.Shortage{Left: 7})
	})
	typedrpc.Handle(mux, awkward.Delete, func(ctx context.Context, what string) (bool, error) {
		return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), awkward.Confirm, "delete "+what+"?")
	})
	typedrpc.Handle(mux, awkward.Nested.Find, find)
	return mux
}

func serveStreams(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, awkward.Ticks, func(_ context.Context, symbol string, send func(awkward.Untagged) error) error {
		for i := range 100 {
			if err := send(awkward.Untagged{Name: symbol, Count: i}); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, awkward.All, func(_ context.Context, _ awkward.Empty, send func(awkward.Color) error) error {
		return send(awkward.ColorBlue)
	})
	typedrpc.Handle(mux, awkward.Fill, func(_ context.Context, _ awkward.Empty, items iter.Seq2[awkward.Color, error]) (n int, err error) {
		for _, err := range items {
			if err != nil {
				return 0, err
			}
			n++
		}
		return n, nil
	})
	typedrpc.Handle(mux, awkward.Pour, func(_ context.Context, _ string, items iter.Seq2[typedrpc.Bytes, error]) (n int, err error) {
		for b, err := range items {
			if err != nil {
				return 0, err
			}
			n += len(b)
		}
		return n, nil
	})
	typedrpc.Handle(mux, awkward.Talk, func(_ context.Context, _ string, stream *typedrpc.Stream[awkward.Kind, awkward.Color]) error {
		for color, err := range stream.All() {
			if err != nil {
				return err
			}
			kind := awkward.KindSmall
			if color == awkward.ColorRed {
				kind = awkward.KindLarge
			}
			if err := stream.Send(kind); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, awkward.Put, func(_ context.Context, name string, r *transfer.Reader) (awkward.Shortage, error) {
		text, err := io.ReadAll(r)
		return awkward.Shortage{Left: len(text) + len(name)}, err
	})
	typedrpc.Handle(mux, awkward.Get, func(_ context.Context, _ awkward.Empty, w *transfer.Writer) error {
		return w.Send(strings.NewReader("a file"), nil)
	})
}

// find does, on the page, what is asked for, and counts.
func find(ctx context.Context, what string) (int, error) {
	page := typedrpc.ConnFrom(ctx)
	switch what {
	case "fault":
		return 0, awkward.NoStock.Errorf(awkward.Shortage{Left: 3}, "none left")
	case "page's fault":
		_, err := typedrpc.Call(ctx, page, awkward.Confirm, "fault")
		shortage, ok := awkward.NoStock.From(err)
		if !ok {
			return 0, typedrpc.Errorf(typedrpc.Internal, "no fault: %v", err)
		}
		return shortage.Left, nil
	case "samples":
		for _, s := range awkward.Samples() {
			if err := s.Ask(ctx, page); err != nil {
				return 0, typedrpc.Errorf(typedrpc.Internal, "%v", err)
			}
		}
		return len(awkward.Samples()), nil
	}
	n := 0
	for color, err := range typedrpc.Receive(ctx, page, awkward.All, awkward.Empty{}) {
		if err != nil {
			return 0, err
		}
		n += len(color)
	}
	filled, err := typedrpc.SendAll(ctx, page, awkward.Fill, awkward.Empty{}, typedrpc.Items(func(yield func(awkward.Color) bool) {
		_ = yield(awkward.ColorRed) && yield(awkward.ColorGreen)
	}))
	if err != nil {
		return 0, err
	}
	stream, err := typedrpc.Open(ctx, page, awkward.Talk, "hello")
	if err != nil {
		return 0, err
	}
	if err := stream.Send(awkward.ColorGreen); err != nil {
		return 0, err
	}
	stream.CloseSend()
	for kind, err := range stream.All() {
		if err != nil {
			return 0, err
		}
		n += int(kind)
	}
	return n + 100*filled, nil
}
