package test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/matryer/is"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward"
)

const (
	openRPC    = "https://meta.open-rpc.org/"
	jsonSchema = "https://meta.json-schema.tools/"
)

// load is a JSON document of a file.
func load(t *testing.T, path string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(data))
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc.(map[string]any)
}

// TestSchema_openRPC holds a document to OpenRPC's own schema.
func TestSchema_openRPC(t *testing.T) {
	is := is.New(t)
	meta := openRPCMeta(t)
	text, _ := generate(t, "schema", "-title", "Awkward", "-version", "1.2.3", "-map", pointFlag, "./awkward")
	document := parse(t, text)
	is.NoErr(meta.Validate(document))
	document["methods"].([]any)[0].(map[string]any)["params"] = "none"
	is.True(meta.Validate(document) != nil) // a document that is none is refused
}

// openRPCMeta is OpenRPC's own schema.
func openRPCMeta(t *testing.T) *jsonschema.Schema {
	t.Helper()
	is := is.New(t)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	for path, url := range map[string]string{"testdata/openrpc-1.3.json": openRPC, "testdata/json-schema.json": jsonSchema} {
		doc := load(t, path)
		delete(doc, "$schema") // it names another's copy of draft 7
		is.NoErr(c.AddResource(url, doc))
		is.NoErr(c.AddResource(strings.TrimSuffix(url, "/"), doc))
	}
	meta, err := c.Compile(openRPC)
	is.NoErr(err)
	return meta
}

// TestSchema_values holds the values of awkward types to the schemas of their methods.
func TestSchema_values(t *testing.T) {
	text, _ := generate(t, "schema", "-map", pointFlag, "./awkward")
	document := parse(t, text)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	if err := c.AddResource("file:///api.json", document); err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, m := range document["methods"].([]any) {
		at[m.(map[string]any)["x-typedrpc"].(map[string]any)["go"].(string)] = i
	}
	for _, s := range awkward.Samples() {
		i, ok := at[s.Var]
		if !ok {
			t.Errorf("%s is not in the document", s.Var)
			continue
		}
		pointer, _ := json.Marshal(i)
		schema, err := c.Compile("file:///api.json#/methods/" + string(pointer) + "/x-typedrpc/request")
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(s.JSON)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: %s: %v", s.Var, s.JSON, err)
		}
	}
}
