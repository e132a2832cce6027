package breaking_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/breaking"
)

// base is a schema of every kind. Tests change one place of it.
const base = `{"openrpc":"1.3.2","methods":[
{"name":"get","params":[],"x-typedrpc":{"kind":"method","request":{"$ref":"#/components/schemas/Get"},"response":{"$ref":"#/components/schemas/Order"},"idempotent":true,"timeout":1000,"maxSize":1000,"params":["id","name"]}},
{"name":"pay","params":[],"x-typedrpc":{"kind":"method","request":{"type":"integer","format":"int32"},"response":{"type":"integer","format":"int32"},"keyed":true,"serial":true}},
{"name":"page.ask","params":[],"x-typedrpc":{"kind":"method","handler":"client","request":{"type":"string"},"response":{"type":"string"}}},
{"name":"note","params":[],"x-typedrpc":{"kind":"notification","request":{"type":"string"}}},
{"name":"talk","params":[],"x-typedrpc":{"kind":"bidiStream","request":{"type":"string"},"up":{"type":"string","enum":["a","b"]},"down":{"type":"string","enum":["a","b"]},"restartable":true}},
{"name":"room","params":[{"name":"key","required":true,"schema":{"type":"string"}}],"x-typedrpc":{"kind":"topic","down":{"type":"number","format":"double"},"presence":true,"policy":"DropOldest","history":10,"historyAge":1000,"maxQueued":1000,"safe":true}}
],"components":{"schemas":{
"Get":{"type":"object","properties":{"id":{"type":"string"},"name":{"type":"string","enum":["x","y"]},"tags":{"type":["array","null"],"items":{"type":"integer","format":"int32"}}},"required":["id"]},
"Order":{"type":"object","properties":{"id":{"type":"string"},"state":{"type":"string","enum":["x","y"]},"lines":{"type":"array","items":{"$ref":"#/components/schemas/Line"}},"parent":{"anyOf":[{"$ref":"#/components/schemas/Order"},{"type":"null"}]},"pair":{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":2}},"required":["id","state"]},
"Line":{"type":"object","properties":{"n":{"type":"integer","format":"int64"},"at":{"type":"string","format":"date-time"},"extra":{"type":"object","additionalProperties":{"type":"string"}}},"required":["n"]}
}},"x-typedrpc-faults":[{"name":"gone","code":5,"data":{"type":"string"}}],
"x-typedrpc-sign-in":[{"go":"SignIn","credentials":{"type":"string"},"reply":{"type":"string"}}]}`

// change is an edit of base, and what is said of it.
type change struct {
	name     string
	from, to string // of base
	rule     string
	at       string
}

const (
	getRequest = `"request":{"$ref":"#/components/schemas/Get"}`
	signIns    = `[{"go":"SignIn","credentials":{"type":"string"},"reply":{"type":"string"}}]`
	theFaults  = `[{"name":"gone","code":5,"data":{"type":"string"}}]`
	note       = `{"name":"note","params":[],"x-typedrpc":{"kind":"notification","request":{"type":"string"}}},`
	tags       = `"tags":{"type":["array","null"],"items":{"type":"integer","format":"int32"}}`
	pairOf     = `"pair":{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":2}`
	extra      = `"extra":{"type":"object","additionalProperties":{"type":"string"}}`
	state      = `"state":{"type":"string","enum":["x","y"]}`
	xy         = `"name":{"type":"string","enum":["x","y"]}`
	talkUp     = `"up":{"type":"string","enum":["a","b"]}`
	talkDown   = `"down":{"type":"string","enum":["a","b"]}`
)

// changes are at least one of each rule.
var changes = []change{
	{"name gone", note, "", "name-removed", ""},
	{"name new", note, note + strings.Replace(note, `"note"`, `"note2"`, 1), "name-added", ""},
	{"kind", `"kind":"notification"`, `"kind":"method"`, "kind-changed", ""},
	{"handler", `"kind":"method","handler":"client"`, `"kind":"method","handler":"server"`, "handler-changed", ""},
	{"deprecated", `{"name":"note",`, `{"name":"note","deprecated":true,`, "deprecated", ""},
	{"topic's key", `"schema":{"type":"string"}}]`, `"schema":{"type":"integer"}}]`, "topic-key-changed", ""},

	{"idempotent lost", `"idempotent":true,`, ``, "idempotent-lost", ""},
	{"idempotent", `"kind":"method","handler":"client",`, `"kind":"method","handler":"client","idempotent":true,`, "idempotent-gained", ""},
	{"keyed lost", `"keyed":true,`, ``, "keyed-lost", ""},
	{"keyed", `"kind":"method","handler":"client",`, `"kind":"method","handler":"client","keyed":true,`, "keyed-gained", ""},
	{"serial lost", `,"serial":true`, ``, "serial-lost", ""},
	{"serial", `"kind":"method","handler":"client",`, `"kind":"method","handler":"client","serial":true,`, "serial-gained", ""},
	{"safe lost", `,"safe":true`, ``, "safe-lost", ""},
	{"safe", `"kind":"method","handler":"client",`, `"kind":"method","handler":"client","safe":true,`, "safe-gained", ""},
	{"timeout shorter", `"timeout":1000`, `"timeout":999.5`, "timeout-shorter", ""},
	{"timeout where there was none", `"keyed":true,`, `"keyed":true,"timeout":10,`, "timeout-shorter", ""},
	{"timeout longer", `"timeout":1000`, `"timeout":1001`, "timeout-longer", ""},
	{"no timeout any more", `"timeout":1000,`, ``, "timeout-longer", ""},
	{"size smaller", `"maxSize":1000`, `"maxSize":999`, "size-smaller", ""},
	{"size larger", `"maxSize":1000`, `"maxSize":1001`, "size-larger", ""},
	{"params", `"keyed":true,`, `"keyed":true,"params":["a"],`, "params-added", ""},
	{"no params", `,"params":["id","name"]`, ``, "params-removed", ""},
	{"params more", `"params":["id","name"]`, `"params":["id","name","tags"]`, "params-appended", ""},
	{"params in another order", `"params":["id","name"]`, `"params":["name","id"]`, "params-changed", ""},
	{"params less", `"params":["id","name"]`, `"params":["id"]`, "params-changed", ""},
	{"restartable lost", `,"restartable":true`, ``, "restartable-lost", ""},
	{"restartable", `"kind":"topic",`, `"kind":"topic","restartable":true,`, "restartable-gained", ""},
	{"presence lost", `"presence":true,`, ``, "presence-lost", ""},
	{"policy", `"policy":"DropOldest"`, `"policy":"LatestOnly"`, "policy-changed", ""},
	{"policy by default", `"policy":"DropOldest",`, ``, "policy-changed", ""},
	{"history shorter", `"history":10`, `"history":9`, "history-shorter", ""},
	{"no history", `"history":10,"historyAge":1000,`, ``, "history-shorter", ""},
	{"history longer", `"history":10`, `"history":11`, "history-longer", ""},
	{"history younger", `"historyAge":1000`, `"historyAge":999`, "history-age-shorter", ""},
	{"history older", `"historyAge":1000`, `"historyAge":1001`, "history-age-longer", ""},
	{"queue smaller", `"maxQueued":1000`, `"maxQueued":999`, "queue-smaller", ""},
	{"queue by default", `,"maxQueued":1000`, ``, "queue-larger", ""},

	{"fault gone", theFaults, `[]`, "fault-removed", ""},
	{"fault new", theFaults, `[{"name":"gone","code":5,"data":{"type":"string"}},{"name":"more","code":5,"data":{}}]`, "fault-added", ""},
	{"fault's code", `"code":5`, `"code":6`, "fault-code-changed", ""},
	{"fault's data", `"data":{"type":"string"}`, `"data":{"type":"integer"}`, "reply-type-changed", "data"},
	{"sign-in gone", signIns, `[]`, "sign-in-removed", ""},
	{"sign-in new", signIns, strings.Replace(signIns, "]", `,{"go":"Other","credentials":{},"reply":{}}]`, 1), "sign-in-added", ""},
	{"credentials", `"credentials":{"type":"string"}`, `"credentials":{"type":"boolean"}`, "request-type-changed", "credentials"},
	{"reply to them", `"reply":{"type":"string"}`, `"reply":{"type":"boolean"}`, "reply-type-changed", "reply"},

	{"request's member", tags, tags + `,"more":{"type":"string"}`, "request-member-added", "Get.more"},
	{"request's needed member", tags + `},"required":["id"]`, tags + `,"more":{"type":"boolean"}},"required":["id","more"]`, "request-required-added", "Get.more"},
	{"request's member gone", `,` + tags, ``, "request-member-removed", "Get.tags"},
	{"request's needed member gone", `"Get":{"type":"object","properties":{"id":{"type":"string"},`, `"Get":{"type":"object","properties":{`, "request-now-gone", ""},
	{"request's member by another name", tags, strings.Replace(tags, "tags", "labels", 1), "request-member-renamed", "Get.tags"},
	{"request's member needed", tags + `},"required":["id"]`, tags + `},"required":["id","name"]`, "request-now-required", "Get.name"},
	{"request's member not needed", tags + `},"required":["id"]`, tags + `},"required":[]`, "request-now-optional", "Get.id"},
	{"request null", xy, `"name":{"anyOf":[{"type":"string","enum":["x","y"]},{"type":"null"}]}`, "request-null-allowed", "Get.name"},
	{"request not null", `"type":["array","null"]`, `"type":"array"`, "request-null-refused", "Get.tags"},
	{"request's type", `"request":{"type":"integer","format":"int32"}`, `"request":{"type":"string"}`, "request-type-changed", "request"},
	{"request wider", `"request":{"type":"integer","format":"int32"}`, `"request":{"type":"integer","format":"int64"}`, "request-type-widened", "request"},
	{"request narrower", `"request":{"type":"integer","format":"int32"}`, `"request":{"type":"integer","format":"int8"}`, "request-type-narrowed", "request"},
	{"request anything", `"request":{"type":"integer","format":"int32"}`, `"request":{}`, "request-type-widened", "request"},
	{"request no enumeration", xy, `"name":{"type":"string"}`, "request-type-widened", "Get.name"},
	{"request's form", `"credentials":{"type":"string"}`, `"credentials":{"type":"string","contentEncoding":"base64"}`, "request-format-changed", "credentials"},
	{"request's value", xy, `"name":{"type":"string","enum":["x","y","z"]}`, "request-value-added", "Get.name"},
	{"request's value gone", xy, `"name":{"type":"string","enum":["x"]}`, "request-value-removed", "Get.name"},
	{"item sent", talkUp, `"up":{"type":"string","enum":["a","b","c"]}`, "request-value-added", "items sent"},
	{"item sent gone", talkUp, `"up":{"type":"string","enum":["a"]}`, "request-value-removed", "items sent"},
	{"request's length", `"items":{"type":"integer","format":"int32"}}`, `"items":{"type":"integer","format":"int32"},"minItems":3,"maxItems":3}`, "request-length-changed", "Get.tags"},

	{"reply's member", pairOf, pairOf + `,"more":{"type":"string"}`, "reply-member-added", "Order.more"},
	{"reply's sure member", pairOf + `},"required":["id","state"]`, pairOf + `,"more":{"type":"string"}},"required":["id","state","more"]`, "reply-required-added", "Order.more"},
	{"reply's member gone", `,` + pairOf, ``, "reply-member-removed", "Order.pair"},
	{"reply's sure member gone", `"n":{"type":"integer","format":"int64"},"at"`, `"at"`, "reply-now-gone", ""},
	{"reply's member by another name", pairOf, strings.Replace(pairOf, "pair", "both", 1), "reply-member-renamed", "Order.pair"},
	{"reply's member sure", `"required":["id","state"]`, `"required":["id","state","lines"]`, "reply-now-required", "Order.lines"},
	{"reply's member unsure", `"required":["id","state"]`, `"required":["id"]`, "reply-now-optional", "Order.state"},
	{"reply null", extra, `"extra":{"type":["object","null"],"additionalProperties":{"type":"string"}}`, "reply-null-allowed", "Line.extra"},
	{"reply not null", `"anyOf":[{"$ref":"#/components/schemas/Order"},{"type":"null"}]`, `"anyOf":[{"$ref":"#/components/schemas/Order"}]`, "reply-null-refused", "Order.parent"},
	{"reply's type deep below", extra, `"extra":{"type":"object","additionalProperties":{"type":"boolean"}}`, "reply-type-changed", "Line.extra{}"},
	{"reply wider", `"response":{"type":"integer","format":"int32"}`, `"response":{"type":"number","format":"double"}`, "reply-type-widened", "response"},
	{"reply narrower", `"n":{"type":"integer","format":"int64"}`, `"n":{"type":"integer","format":"int32"}`, "reply-type-narrowed", "Line.n"},
	{"reply's form", `"format":"date-time"`, `"format":"date"`, "reply-format-changed", "Line.at"},
	{"reply's form free", `,"format":"date-time"`, ``, "reply-type-widened", "Line.at"},
	{"reply's value", state, `"state":{"type":"string","enum":["x","y","z"]}`, "reply-value-added", "Order.state"},
	{"reply's value gone", state, `"state":{"type":"string","enum":["x"]}`, "reply-value-removed", "Order.state"},
	{"item received", talkDown, `"down":{"type":"string","enum":["a","b","c"]}`, "reply-value-added", "items received"},
	{"item received gone", talkDown, `"down":{"type":"string","enum":["a"]}`, "reply-value-removed", "items received"},
	{"topic's type", `"down":{"type":"number","format":"double"}`, `"down":{"type":"string"}`, "reply-type-changed", "items received"},
	{"reply's length", `"minItems":2,"maxItems":2`, `"minItems":3,"maxItems":3`, "reply-length-changed", "Order.pair"},
	{"request's type gone", getRequest + `,`, ``, "request-type-changed", "request"},
}

// edited is base with a change. One of the rule "…-now-gone" has the member out of what is
// required as well.
func (x *change) edited(t *testing.T) string {
	t.Helper()
	if strings.Count(base, x.from) == 0 {
		t.Fatalf("%s is not in the document", x.from)
	}
	text := strings.Replace(base, x.from, x.to, 1)
	switch x.rule {
	case "request-now-gone":
		x.rule, x.at = "request-required-removed", "Get.id"
		text = strings.Replace(text, tags+`},"required":["id"]`, tags+`},"required":[]`, 1)
	case "reply-now-gone":
		x.rule, x.at = "reply-required-removed", "Line.n"
		text = strings.Replace(text, `"required":["n"]`, `"required":[]`, 1)
	}
	if !json.Valid([]byte(text)) {
		t.Fatalf("no JSON: %s", text)
	}
	return text
}

func rule(id string) breaking.Rule {
	for _, r := range breaking.Rules {
		if r.ID == id {
			return r
		}
	}
	return breaking.Rule{}
}

// TestCompare makes each change, and looks up what the table says of it.
func TestCompare(t *testing.T) {
	made := map[string]bool{}
	for _, x := range changes {
		t.Run(x.name, func(t *testing.T) {
			is := is.New(t)
			text := x.edited(t)
			got, err := breaking.Compare([]byte(base), []byte(text))
			is.NoErr(err)
			if len(got) != 1 {
				t.Fatalf("%d changes: %+v", len(got), got)
			}
			r := rule(x.rule)
			is.Equal(got[0].Rule, x.rule)
			is.Equal(got[0].At, x.at)
			old, next := r.Old, r.New
			if got[0].Names[0] == "page.ask" { // the server calls it
				old, next = next, old
			}
			if strings.HasPrefix(got[0].Names[0], "note") { // both may
				old = max(old, next)
				next = old
			}
			is.Equal(got[0].OldClients, old)
			is.Equal(got[0].NewClients, next)
			made[x.rule] = true
		})
	}
	for _, r := range breaking.Rules {
		if !made[r.ID] && r.ID != "presence-gained" { // which is presence-lost the other way round
			t.Errorf("no change is tried for %s", r.ID)
		}
	}
	if len(breaking.Rules) < 40 {
		t.Errorf("there are %d rules", len(breaking.Rules))
	}
}

// TestRules keeps the table whole: what hurts has advice.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range breaking.Rules {
		if seen[r.ID] || r.Text == "" || (r.Advice == "") != (r.Old == breaking.Safe && r.New == breaking.Safe) {
			t.Errorf("%+v", r)
		}
		seen[r.ID] = true
	}
}

// TestCompare_additive are changes that teams make every day, and that hurt nobody.
func TestCompare_additive(t *testing.T) {
	additive := []string{
		"name new", "deprecated", "idempotent", "keyed", "serial", "safe", "timeout longer", "no timeout any more", "size larger",
		"params", "params more", "restartable", "history longer", "history older", "queue by default", "fault new",
		"request's member", "request's member not needed", "request null", "request wider", "request anything", "request no enumeration",
		"request's value", "item sent", "reply's member", "reply's sure member", "reply's member sure", "reply not null", "reply's value gone",
	}
	for _, name := range additive {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			for _, x := range changes {
				if x.name != name {
					continue
				}
				got, err := breaking.Compare([]byte(base), []byte(x.edited(t)))
				is.NoErr(err)
				for _, c := range got {
					is.True(!c.Breaks()) // or it is a false alarm
				}
				return
			}
			t.Fatal("there is no such change")
		})
	}
	for name, edit := range map[string][2]string{
		"a comment":              {`"idempotent":true`, `"idempotent":true,"description":"better"`},
		"a member's comment":     {`"id":{"type":"string"},"state"`, `"id":{"type":"string","description":"better"},"state"`},
		"a comment over a type":  {`"items":{"$ref":"#/components/schemas/Line"}`, `"items":{"description":"x","anyOf":[{"$ref":"#/components/schemas/Line"}]}`},
		"another fingerprint":    {`"kind":"topic"`, `"kind":"topic","fingerprint":"01020304"`},
		"Go's names":             {`"kind":"topic"`, `"kind":"topic","go":"Room"`},
		"a type that is unused":  {`"Line":{`, `"Unused":{"type":"string"},"Line":{`},
		"members in other order": {`"name":{"type":"string","enum":["x","y"]},` + tags, tags + `,"name":{"type":"string","enum":["x","y"]}`},
		"values in other order":  {`"state":{"type":"string","enum":["x","y"]}`, `"state":{"type":"string","enum":["y","x"]}`},
		"the default queue":      {`"restartable":true`, `"restartable":true,"maxQueued":0`},
		"a handler that is told": {`"kind":"bidiStream",`, `"kind":"bidiStream","handler":"server",`},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			got, err := breaking.Compare([]byte(base), []byte(strings.Replace(base, edit[0], edit[1], 1)))
			is.NoErr(err)
			is.Equal(len(got), 0)
		})
	}
}

// A type is told once, with all that use it; what clients handle is the other way round.
func TestCompare_once(t *testing.T) {
	is := is.New(t)
	old := `{"methods":[
{"name":"b","x-typedrpc":{"kind":"method","request":{"$ref":"#/components/schemas/T"},"response":{}}},
{"name":"a","x-typedrpc":{"kind":"method","request":{"type":"array","items":{"$ref":"#/components/schemas/T"}},"response":{}}},
{"name":"c","x-typedrpc":{"kind":"method","handler":"client","request":{"$ref":"#/components/schemas/T"},"response":{}}}
],"components":{"schemas":{"T":{"type":"object","properties":{"x":{"type":"string"},"t":{"$ref":"#/components/schemas/T"}}}}}}`
	got, err := breaking.Compare([]byte(old), []byte(strings.Replace(old, `"x":{"type":"string"}`, `"x":{"type":"boolean"}`, 1)))
	is.NoErr(err)
	is.Equal(len(got), 2)
	is.Equal(got[0].Names, []string{"a", "b"})
	is.Equal(got[0].At, "T.x")
	is.Equal(got[1].Names, []string{"c"})

	got, err = breaking.Compare([]byte(old), []byte(strings.Replace(old, `"x":{"type":"string"},`, ``, 1)))
	is.NoErr(err)
	is.Equal(got[0].OldClients, breaking.Breaks) // who sends it
	is.Equal(got[0].NewClients, breaking.Safe)
	is.Equal(got[1].NewClients, breaking.Breaks) // an old server does
	is.Equal(got[1].OldClients, breaking.Safe)
}

// A schema of all types that there are is like itself, and everything of it can go.
func TestCompare_awkward(t *testing.T) {
	is := is.New(t)
	text, err := os.ReadFile("../../test/golden/awkward.json")
	is.NoErr(err)
	got, err := breaking.Compare(text, text)
	is.NoErr(err)
	is.Equal(len(got), 0)
	got, err = breaking.Compare(text, []byte(`{"methods":[]}`))
	is.NoErr(err)
	is.True(len(got) > 100)
	for _, c := range got {
		is.True(c.Breaks() || c.Rule == "fault-added")
	}
}

// TestRun is what a person, and a program, is told, and of what is no schema.
func TestRun(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := file("old.json", base)
	next := file("new.json", strings.NewReplacer(`"policy":"DropOldest"`, `"policy":"LatestOnly"`, `"timeout":1000`, `"timeout":500`, state, `"state":{"type":"string","enum":["x"]}`, `"history":10`, `"history":20`).Replace(base))
	var out bytes.Buffer
	breaks, err := breaking.Run(breaking.Options{Old: old, New: next, For: "both"}, &out)
	is.NoErr(err)
	is.True(breaks)
	is.Equal(out.String(), `get
  its Timeout is shorter: it was 1000 ms, and is 500 ms [timeout-shorter]
  BREAKS new clients at old servers
  what to do: see that old handlers are fast enough, or update the handlers first

room
  slow subscribers are treated otherwise: it was DropOldest, and is LatestOnly [policy-changed]
  BREAKS old clients at new servers
  what to do: see that all subscribers know what the policy does, or add a topic

get
  Order.state: it has one value less: "y" [reply-value-removed]
  not yet for new clients at old servers
  what to do: old handlers may still send it

changes: 4; breaking: 2, not yet for all: 1, safe: 1
`)
	out.Reset()
	_, err = breaking.Run(breaking.Options{Old: old, New: next, For: "old-clients", JSON: true}, &out)
	is.NoErr(err)
	var told struct {
		Breaks  bool
		Changes []struct{ Rule, OldClients, NewClients string }
	}
	is.NoErr(json.Unmarshal(out.Bytes(), &told))
	is.True(told.Breaks)
	for _, c := range told.Changes {
		is.Equal(c.NewClients, "safe")
	}
	out.Reset()
	breaks, err = breaking.Run(breaking.Options{Old: old, New: old, For: "both", JSON: true}, &out)
	is.NoErr(err)
	is.True(!breaks)
	is.Equal(out.String(), "{\n  \"breaks\": false,\n  \"changes\": []\n}\n")

	for _, bad := range []string{"", "[]", "{}", `{"methods":[{"name":"a"}]}`, `{"methods":[{"x-typedrpc":{}}]}`} {
		_, err := breaking.Run(breaking.Options{Old: old, New: file("bad.json", bad), For: "both"}, &out)
		is.True(err != nil)
		is.True(strings.HasPrefix(err.Error(), "the new schema "))
	}
	_, err = breaking.Run(breaking.Options{Old: filepath.Join(dir, "none"), New: next, For: "both"}, &out)
	is.True(err != nil)
	is.True((&breaking.Options{For: "x"}).Check() != nil)
}

// Schemas that nobody has written by hand are told of, or compared: nothing panics.
func TestCompare_hostile(t *testing.T) {
	is := is.New(t)
	_, err := breaking.Compare([]byte(`{"methods":[null]}`), []byte(`{"methods":[null]}`))
	is.True(err != nil)
	of := func(schema string) []byte {
		return []byte(`{"methods":[{"name":"a","x-typedrpc":{"kind":"method","request":` + schema + `}}],"components":{"schemas":{"T":{"anyOf":[{"$ref":"#/components/schemas/T"},{"type":"null"}]}}}}`)
	}
	for old, n := range map[string]int{`{"enum":[{"x":1},[2]]}`: 0, `{"enum":[{"x":2},[2]]}`: 2, `{"$ref":"#/components/schemas/T"}`: 1} {
		changes, err := breaking.Compare(of(old), of(`{"enum":[{"x":1},[2]]}`))
		is.NoErr(err)
		is.True(len(changes) >= min(n, 1))
		is.True(n > 0 || len(changes) == 0)
	}
}
