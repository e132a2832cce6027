package test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

// described is what a server tells by rpc.discover of everything that the awkward package
// declares, and its extensions by name.
func described(t *testing.T, schema string) (document map[string]any, extensions map[string]map[string]any) {
	t.Helper()
	is := is.New(t)
	hub := new(topic.Hub)
	defer hub.Close()
	srv := &typedrpc.Server{Mux: liveMux(hub), Describe: func(context.Context) error { return nil }, Schema: []byte(schema)}
	is.NoErr(srv.Check()) // what was written is what is registered
	r := httptest.NewRequest("POST", "/", strings.NewReader(`{"jsonrpc":"2.0","method":"rpc.discover","id":1}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	var answer struct{ Result json.RawMessage }
	is.NoErr(json.Unmarshal(w.Body.Bytes(), &answer))
	document = parse(t, string(answer.Result))
	return document, extensionsOf(document)
}

func extensionsOf(document map[string]any) map[string]map[string]any {
	all := map[string]map[string]any{}
	for _, m := range document["methods"].([]any) {
		m := m.(map[string]any)
		all[m["name"].(string)] = m["x-typedrpc"].(map[string]any)
	}
	return all
}

// TestDescribe holds what servers tell to OpenRPC's own schema, and to what is written of
// the same API.
func TestDescribe(t *testing.T) {
	is := is.New(t)
	text, _ := generate(t, "schema", "-map", pointFlag, "./awkward")
	written := extensionsOf(parse(t, text))
	meta := openRPCMeta(t)

	told, whole := described(t, text)
	is.NoErr(meta.Validate(told))
	told, bare := described(t, "")
	is.NoErr(meta.Validate(told))
	is.True(len(bare) > 50)

	for name, known := range bare {
		is.Equal(known["handler"], "server")
		for member, value := range known {
			if member == "handler" {
				continue
			}
			is.Equal(value, written[name][member]) // as the command says it
		}
		for member, value := range written[name] {
			is.Equal(whole[name][member], value)
		}
		is.Equal(whole[name]["handler"], "server")
		is.Equal(len(whole[name]), len(written[name])+1)
	}
	for name := range whole { // what clients handle has no handler here
		if bare[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
	for name := range written {
		if whole[name] == nil && name != "ask.confirm" && name != "page.confirm" {
			t.Errorf("%s is served, and not told", name)
		}
	}
}
