package schema_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/schema"
)

const written = `{
  "openrpc": "1.3.2",
  "info": {"title": "shop", "version": "1.0.0"},
  "methods": [
    {"name": "admin.wipe", "params": [], "result": {"name": "response", "schema": {"$ref": "#/components/schemas/Secret"}}, "x-typedrpc": {"kind": "method", "go": "Wipe"}},
    {"name": "orders.changed", "params": [], "x-typedrpc": {"kind": "notification", "go": "Changed"}},
    {"name": "orders.get", "summary": "Get <one>.", "params": [{"name": "id", "schema": {"$ref": "#/components/schemas/ID"}}], "result": {"name": "response", "schema": {"anyOf": [{"$ref": "#/components/schemas/Order"}, {"type": "null"}]}}, "x-typedrpc": {"kind": "method", "go": "Get", "idempotent": true, "safe": true}},
    {"name": "orders.left", "params": [], "x-typedrpc": {"kind": "notification", "go": "Left", "handler": "server"}},
    {"name": "orders.prices", "params": [], "x-typedrpc": {"kind": "topic", "go": "Prices"}},
    {"name": "page.show", "params": [], "x-typedrpc": {"kind": "method", "go": "Show", "handler": "client"}}
  ],
  "components": {
    "schemas": {
      "Buried": {"type": "string"},
      "Fault/Data~": {"type": "string"},
      "ID": {"type": "string"},
      "Line": {"properties": {"parent": {"$ref": "#/components/schemas/Order"}}},
      "Order": {"properties": {"lines": {"items": {"$ref": "#/components/schemas/Line"}}}},
      "Secret": {"properties": {"x": {"$ref": "#/components/schemas/Buried"}}}
    }
  },
  "x-typedrpc-faults": [{"name": "f", "data": {"$ref": "#/components/schemas/Fault~1Data~0/type"}}]
}`

const served = `{"openrpc":"1.3.2","info":{"title":"shop","version":"1.0.0"},"methods":[` +
	`{"name":"orders.changed","params":[],"x-typedrpc":{"kind":"notification","go":"Changed"}},` +
	`{"name":"orders.get","summary":"Get <one>.","params":[{"name":"id","schema":{"$ref":"#/components/schemas/ID"}}],"result":{"name":"response","schema":{"anyOf":[{"$ref":"#/components/schemas/Order"},{"type":"null"}]}},"x-typedrpc":{"kind":"method","go":"Get","idempotent":true,"safe":true,"handler":"server","maxSize":7}},` +
	`{"name":"orders.new","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"result":{"name":"response","required":true,"schema":{}},"x-typedrpc":{"kind":"method","handler":"server"}},` +
	`{"name":"orders.prices","params":[],"x-typedrpc":{"kind":"topic","go":"Prices"}},` +
	`{"name":"page.show","params":[],"x-typedrpc":{"kind":"method","go":"Show","handler":"client"}}` +
	`],"components":{"schemas":{"Fault/Data~":{"type":"string"},"ID":{"type":"string"},"Line":{"properties":{"parent":{"$ref":"#/components/schemas/Order"}}},"Order":{"properties":{"lines":{"items":{"$ref":"#/components/schemas/Line"}}}}}},` +
	`"x-typedrpc-faults":[{"name":"f","data":{"$ref":"#/components/schemas/Fault~1Data~0/type"}}]}`

// The document has what is served, what the server sends and what clients handle, with
// those types alone that they refer to.
func TestDocument(t *testing.T) {
	is := is.New(t)
	s, err := schema.Parse([]byte(written))
	is.NoErr(err)
	all := []schema.Registered{
		{Name: "orders.new", Kind: "method"}, {Name: "orders.get", Kind: "method", Idempotent: true, Safe: true, MaxSize: 7},
		{Name: "orders.hidden", Part: true},
	}
	doc, err := s.Document(all)
	is.NoErr(err)
	is.Equal(string(doc), served)
	is.True(json.Valid(doc))

	slices.Reverse(all)
	again, err := s.Document(all)
	is.NoErr(err)
	is.Equal(string(again), served) // whatever the order
	for _, word := range []string{"Secret", "Buried", "wipe", "hidden", "orders.left"} {
		is.True(!strings.Contains(string(doc), word)) // of what is not served
	}
}
