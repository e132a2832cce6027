package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// hostile writes a document with a method whose request is that schema, and T.
func hostile(t *testing.T, request, named string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.json")
	text := fmt.Sprintf(`{"methods":[null,{"name":"m","params":[],"x-typedrpc":{"kind":"method","request":%s,"response":%[1]s}}],"components":{"schemas":{"T":%s}}}`, request, named)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Whatever a server says of itself, describing it ends, and is short.
func TestDescribe_hostile(t *testing.T) {
	var wide []string
	for c := 'a'; c <= 'z'; c++ {
		wide = append(wide, fmt.Sprintf(`%q:{"$ref":"#/components/schemas/T"}`, string(c)))
	}
	const ref = `{"$ref":"#/components/schemas/T"}`
	nested := func(open string, n int, end string) string {
		return strings.Repeat(open, n) + `{}` + strings.Repeat(end, n)
	}
	for name, path := range map[string]string{
		"no schema of a member":       hostile(t, ref, `{"type":"object","properties":{"a":null}}`),
		"members that are not there":  hostile(t, ref, `{"type":"object","properties":{"a":{}},"x-order":["b"],"required":["c"]}`),
		"a schema that is itself":     hostile(t, ref, ref),
		"nulls":                       hostile(t, `{"anyOf":[null],"items":null,"properties":{"x":null}}`, `null`),
		"many of itself":              hostile(t, ref, `{"type":"object","properties":{`+strings.Join(wide, ",")+`}}`),
		"a type twice, deeply":        hostile(t, nested(`{"type":["array","array"],"items":`, 60, `}`), `{}`),
		"types of types":              hostile(t, nested(`{"type":"array","items":`, 4000, `}`), `{}`),
		"maps of maps":                hostile(t, nested(`{"type":"object","additionalProperties":`, 4000, `}`), `{}`),
		"objects in objects in words": hostile(t, nested(`{"type":["object","object"],"properties":{"x":`, 60, `}}`), `{}`),
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			for _, command := range []string{"describe", "list"} {
				var r session
				is.Equal(r.run(t.Context(), command, "-schema", path), 0)
				is.True(len(r.out.String()) < 1<<20)
			}
		})
	}
}

// What others write moves no cursor, and is no other line.
func TestPrintable(t *testing.T) {
	const evil = "\\u001b]0;owned\\u0007\\u009b2J\\r"
	document := `{"methods":[{"name":"m` + evil + `","summary":"s` + evil + `","params":[],"x-typedrpc":{"kind":"method","request":{"$ref":"#/components/schemas/T"}}},{"name":"-token=@file","params":[],"x-typedrpc":{"kind":"method"}}],
		"components":{"schemas":{"T":{"type":"object","properties":{"k` + evil + `":{"type":"string","description":"d` + evil + `","enum":["` + "e\u009b\u007f" + `"]}}}}}}`
	path := filepath.Join(t.TempDir(), "api.json")
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := func(s string) bool { return strings.ContainsAny(s, "\x1b\a\r\u009b\u007f") }
	for _, args := range [][]string{{"list"}, {"describe"}, {"describe", "-json"}, {"list", "-json"}, {"__complete", "call", "URL", ""}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			is := is.New(t)
			var r session
			if args[0] == "__complete" {
				is.Equal(r.run(t.Context(), "__complete", "call", "-schema", path, "localhost:1/", ""), 0)
				is.Equal(r.out.String(), ":4\n") // nothing that a shell would have to quote
				return
			}
			is.Equal(r.run(t.Context(), append(args, "-schema", path)...), 0)
			is.True(strings.Contains(r.out.String(), "owned"))
			is.True(!bad(r.out.String()))
		})
	}
	t.Run("errors", func(t *testing.T) {
		is := is.New(t)
		var out text
		env := &Env{Err: &out}
		e := typedrpc.Errorf(typedrpc.NotFound, "no \x1b[2J\u009b\xff")
		is.Equal(env.report(t.Context(), failure{hinted{e, []string{"x\x1b"}}}), 64+32+5)
		env.note("the link is lost: %v", e)
		is.True(!bad(out.String()) && !strings.Contains(out.String(), "\xff"))
	})
	t.Run("values", func(t *testing.T) {
		is := is.New(t)
		is.Equal(string(oneLine([]byte("{\"a\": \"ü\u009b\u007f\"}"))), `{"a":"ü\u009b\u007f"}`)
	})
}

// A link that was cut while something was written is no reader of the output that left.
func TestReport_cutLink(t *testing.T) {
	is := is.New(t)
	env := &Env{Err: io.Discard}
	is.Equal(env.report(t.Context(), failure{typedrpc.Errorf(typedrpc.Unavailable, "link: %w", syscall.EPIPE)}), 64+32+14)
	is.Equal(env.report(t.Context(), failure{syscall.EPIPE}), statusPipe)
}

// A line of watch is one line.
func TestWatch_lineIsOne(t *testing.T) {
	is := is.New(t)
	var out text
	w := &watcher{remote: &remote{Env: &Env{Out: &out}}}
	w.print(1, "server", frame{Type: "CLOSE", Text: "1000 bye\n00:00:00.000 #2 > CALL\x1b[2J"})
	is.Equal(strings.Count(out.String(), "\n"), 1)
	is.True(!strings.Contains(out.String(), "\x1b"))
}

// A comment's first sentence is told whole, on however many lines it was written.
func TestAside(t *testing.T) {
	is := is.New(t)
	is.Equal(aside("Rounds is work\nfor a page. More.\n\nAnd more."), "  // Rounds is work for a page.")
	is.Equal(aside("One\n\nanother"), "  // One")
	is.Equal(aside(" \n"), "")
}
