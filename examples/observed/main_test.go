package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/observed/api"
)

// serve starts a site without visitors. stop ends it, and returns its traces.
func serve(t *testing.T) (s *site, url string, stop func() string) {
	t.Helper()
	var traces bytes.Buffer
	s, err := newSite(options{traces: &traces, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(s.routes)
	var once sync.Once
	stop = func() string {
		once.Do(func() {
			ctx := context.WithoutCancel(t.Context())
			hs.Close()
			if err := errors.Join(s.inspector.Shutdown(ctx), s.rpc.Shutdown(ctx), s.close(ctx)); err != nil {
				t.Error(err)
			}
		})
		return traces.String()
	}
	t.Cleanup(func() { stop() })
	return s, hs.URL, stop
}

func get(t *testing.T, url string, header http.Header) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestObserved_calls is told to everybody who observes: in the metrics, and as two spans of
// one trace.
func TestObserved_calls(t *testing.T) {
	is := is.New(t)
	s, url, stop := serve(t)
	conn, err := typedrpc.Dial(t.Context(), url+"/rpc", &typedrpc.DialOptions{OutgoingInterceptors: []typedrpc.Interceptor{s.tel.Intercept}})
	is.NoErr(err)
	d, err := typedrpc.Call(t.Context(), conn, api.Sum, api.Text{Text: "abc"})
	is.NoErr(err)
	is.Equal(d.SHA256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") // FIPS 180-2, B.1
	_, err = typedrpc.Call(t.Context(), conn, api.Sum, api.Text{Rounds: mostRounds + 1})
	most, ok := api.TooMany.From(err)
	is.True(ok && most.Rounds == mostRounds)
	for sample, err := range typedrpc.Receive(t.Context(), conn, api.Memory, api.Every{Millis: 100}) {
		is.NoErr(err)
		is.True(sample.Heap > 0 && sample.Goroutines > 0)
		break
	}
	status, metrics := get(t, url+"/metrics", nil)
	is.Equal(status, http.StatusOK)
	for _, want := range []string{`rpc_method="text.sum"`, `rpc_response_status_code="OK"`, `rpc_response_status_code="INVALID_ARGUMENT"`} {
		is.True(strings.Contains(metrics, want))
	}
	is.NoErr(conn.Close())
	kinds := map[string]int{} // by trace
	dec := json.NewDecoder(strings.NewReader(stop()))
	for {
		var span struct {
			Name        string
			SpanContext struct{ TraceID string }
			SpanKind    int
		}
		if err := dec.Decode(&span); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if span.Name == "text.sum" {
			kinds[span.SpanContext.TraceID] |= 1 << span.SpanKind
		}
	}
	is.Equal(len(kinds), 2)
	for _, k := range kinds {
		is.Equal(k, 1<<2|1<<3) // a server's and a client's
	}
}

// TestObserved_forWhom shows what there is to those on this machine, and to nobody who comes
// through a proxy.
func TestObserved_forWhom(t *testing.T) {
	is := is.New(t)
	_, url, _ := serve(t)
	status, page := get(t, url+"/inspect/", nil)
	is.Equal(status, http.StatusOK)
	is.True(strings.Contains(page, "<html"))
	status, _ = get(t, url+"/inspect/", http.Header{"X-Forwarded-For": {"192.0.2.1"}})
	is.Equal(status, http.StatusForbidden)
	resp, err := http.Post(url+"/rpc", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`))
	is.NoErr(err)
	defer resp.Body.Close()
	var answer struct {
		Result struct {
			Methods []struct{ Name string }
		}
	}
	is.NoErr(json.NewDecoder(resp.Body).Decode(&answer))
	var names []string
	for _, m := range answer.Result.Methods {
		names = append(names, m.Name)
	}
	for _, want := range []string{"notes", "notes.post", "server.memory", "text.sum"} {
		is.True(strings.Contains(strings.Join(names, " "), want))
	}
}

// TestObserved_visitors come, call, post, and leave when they are told to.
func TestObserved_visitors(t *testing.T) {
	is := is.New(t)
	s, url, _ := serve(t)
	conn, err := typedrpc.Dial(t.Context(), url+"/rpc", nil)
	is.NoErr(err)
	defer conn.Close()
	left := make(chan error, 1)
	go func() { left <- visit(t.Context(), url+"/rpc", "ann", s.tel) }()
	for {
		n := 0
		for c := range s.rpc.ConnsOf("ann") {
			n++
			name, err := typedrpc.Call(t.Context(), c, api.Hello, struct{}{})
			is.NoErr(err)
			is.Equal(name, "ann")
		}
		if n > 0 {
			break
		}
	}
	is.Equal(s.rpc.Revoke("ann", &typedrpc.CloseOptions{Err: typedrpc.Errorf(typedrpc.PermissionDenied, "enough"), StayAway: true}), 1)
	is.True(errors.Is(<-left, typedrpc.PermissionDenied))
}
