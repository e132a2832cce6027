package typedrpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// The documents' code is code: the README's program runs and prints what the
// README says, and every other fragment of it and of the guide compiles. What
// fragments use without declaring it is in documentPrelude.

const documentPrelude = `var (
	ctx  context.Context
	conn *typedrpc.Conn
	mux  *typedrpc.Mux
	srv  *typedrpc.Server
	hs   *http.Server
	t    *testing.T
)
`

// documentPackages are what fragments may import, by name.
var documentPackages = map[string]string{
	"context": "context", "errors": "errors", "fmt": "fmt", "log": "log", "slog": "log/slog",
	"io": "io", "iter": "iter", "os": "os", "slices": "slices", "strings": "strings",
	"http": "net/http", "testing": "testing", "synctest": "testing/synctest", "time": "time",
	"typedrpc": "github.com/typedrpc/typedrpc", "typedrpctest": "github.com/typedrpc/typedrpc/typedrpctest",
	"idempotency": "github.com/typedrpc/typedrpc/idempotency", "topic": "github.com/typedrpc/typedrpc/topic", "stats": "github.com/typedrpc/typedrpc/stats", "atomic": "sync/atomic", "transfer": "github.com/typedrpc/typedrpc/transfer",
}

// block is one fenced block of a Markdown document.
type block struct{ info, text string }

func blocks(t *testing.T, path string) []block {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for _, m := range regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$").FindAllSubmatch(data, -1) {
		all = append(all, block{string(m[1]), string(m[2])})
	}
	return all
}

func TestREADME_program(t *testing.T) {
	is := is.New(t)
	all := blocks(t, "README.md")
	at := slices.IndexFunc(all, func(b block) bool { return strings.HasPrefix(b.text, "package main\n") })
	is.True(at >= 0 && all[at+1].info == "output") // a program and then its output

	file := filepath.Join(t.TempDir(), "main.go")
	is.NoErr(os.WriteFile(file, []byte(all[at].text), 0o600))
	got := runGo(t, "run", file)
	is.Equal(got, all[at+1].text)
}

func TestREADME_fragments(t *testing.T) {
	for path, least := range map[string]int{"README.md": 4, "docs/guide.md": 4, "docs/grpc.md": 1} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			var fragments []string
			for _, b := range blocks(t, path) {
				if b.info == "go" && !strings.HasPrefix(b.text, "package ") {
					fragments = append(fragments, b.text)
				}
			}
			is.True(len(fragments) >= least)
			compile(t, fragments)
		})
	}
}

// TestREADME_guide does for doc.go's comment what the tests above do for the
// README.
func TestREADME_guide(t *testing.T) {
	is := is.New(t)
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	is.NoErr(err)
	var p comment.Parser
	var fragments []string
	for _, part := range p.Parse(f.Doc.Text()).Content {
		if code, ok := part.(*comment.Code); ok {
			fragments = append(fragments, code.Text)
		}
	}
	is.True(len(fragments) > 3)
	compile(t, fragments)
}

// compile compiles fragments, declarations or statements, as one package.
func compile(t *testing.T, fragments []string) {
	t.Helper()
	is := is.New(t)
	dir := t.TempDir()
	args := []string{"build", "-o", os.DevNull}
	for i, text := range append(fragments, documentPrelude) {
		if pretty, err := format.Source([]byte(text)); err == nil && string(pretty) != text {
			t.Errorf("gofmt would write this fragment as:\n%s", pretty)
		}
		name := filepath.Join(dir, fmt.Sprintf("fragment%d.go", i))
		is.NoErr(os.WriteFile(name, goFile(t, i, text), 0o600))
		args = append(args, name)
	}
	runGo(t, args...)
}

// goFile makes a file of a fragment.
func goFile(t *testing.T, i int, text string) []byte {
	t.Helper()
	body := text
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+body, 0)
	if err != nil {
		body = fmt.Sprintf("func fragment%d() {\n%s\n}\n", i, text)
		if f, err = parser.ParseFile(token.NewFileSet(), "", "package p\n"+body, 0); err != nil {
			t.Fatalf("neither declarations nor statements: %v\n%s", err, text)
		}
		// What a fragment only shows being assigned counts as used.
		used := ""
		for _, stmt := range f.Decls[0].(*ast.FuncDecl).Body.List {
			if a, ok := stmt.(*ast.AssignStmt); ok && a.Tok == token.DEFINE {
				for _, v := range a.Lhs {
					if id := v.(*ast.Ident); id.Name != "_" {
						used += "\t_ = " + id.Name + "\n"
					}
				}
			}
		}
		body = strings.TrimSuffix(body, "}\n") + used + "}\n"
	}
	var file bytes.Buffer
	file.WriteString("package p\n\nimport (\n")
	imported := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := s.X.(*ast.Ident); ok && documentPackages[id.Name] != "" && !imported[id.Name] {
				imported[id.Name] = true
				fmt.Fprintf(&file, "\t%q\n", documentPackages[id.Name])
			}
		}
		return true
	})
	file.WriteString(")\n\n" + body)
	return file.Bytes()
}

// runGo runs the go command in the module's root, as a reader would.
func runGo(t *testing.T, args ...string) (output string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command here")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// TestREADME_defaults keeps the table of defaults true.
func TestREADME_defaults(t *testing.T) {
	is := is.New(t)
	l, err := flow.Limits{}.WithDefaults()
	is.NoErr(err)
	text, err := os.ReadFile("docs/limits.md")
	is.NoErr(err)
	b := flow.Backoff{}.WithDefaults()
	p := RetryPolicy{}.ready()
	for _, want := range []string{
		"| `MaxMessage` | " + mebibytes(l.MaxMessage) + " |",
		"| `MaxCalls` | " + thousands(l.MaxCalls) + " |",
		"| `MaxBuffered` | " + mebibytes(l.MaxBuffered) + " |",
		"| `Window` | " + kibibytes(l.Window) + " |",
		fmt.Sprintf("| `MaxDepth` | %d |", l.MaxDepth),
		"| `HandshakeTimeout` | " + seconds(l.HandshakeTimeout) + " |",
		"| `KeepAlive` | " + seconds(l.KeepAlive) + " |",
		"| `WriteTimeout` | " + seconds(l.WriteTimeout) + " |",
		fmt.Sprintf("| %d ms to %s, factor %v, full jitter, starts over after %s of a link |", b.Min.Milliseconds(), seconds(b.Max), b.Factor, seconds(client.Lived)),
		fmt.Sprintf("with a policy %d attempts, for `Unavailable`", p.MaxAttempts),
		"| `Close` | flushes for " + seconds(engine.ClosePatience) + ", and says goodbye for 1 s |",
		"| typed data of an error, and its text | " + kibibytes(engine.MaxErrorData) + ", " + kibibytes(status.MaxText) + " |",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("docs/limits.md does not say %q", want)
		}
	}
	is.True(strings.Contains(string(text), "(`MaxPlainConns`) | "+thousands(defaultPlainConns)+" |"))
	is.True(strings.Contains(string(text), "(`ReconnectSpread`) | "+seconds(defaultReconnectSpread)+" |"))
}

func mebibytes(n int) string         { return fmt.Sprintf("%d MiB", n>>20) }
func kibibytes(n int) string         { return fmt.Sprintf("%d KiB", n>>10) }
func seconds(d time.Duration) string { return fmt.Sprintf("%v s", d.Seconds()) }
func thousands(n int) string         { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }

// TestREADME_links finds links within the repository that lead nowhere.
func TestREADME_links(t *testing.T) {
	var docs []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, found...)
	}
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile("(?ms)^```.*?^```$|`[^`\n]*`").ReplaceAll(text, nil)
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), string(m[1]))); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
	}
}

// The examples and tables of PROTOCOL.md, held against internal/wire. Fenced
// blocks say by their first line what they are:
//
//	hex                frames of the binary dialect, with comments after #
//	json hello         the frame of the last hex block, to a peer with HELLO
//	json plain         the same, to a plain peer
//	json hello alone   a message of its own
//	json body NAME     the body of a frame of the handshake

func TestProtocol_examples(t *testing.T) {
	var last wire.Frame
	seen := map[string]int{}
	types := map[wire.Type]bool{}
	for _, b := range blocks(t, "PROTOCOL.md") {
		kind, name, _ := strings.Cut(strings.TrimPrefix(b.info, "json "), " ")
		text := strings.TrimSuffix(b.text, "\n")
		seen[kind]++
		t.Run(fmt.Sprintf("%s %d", strings.ReplaceAll(b.info, " ", "_"), seen[kind]), func(t *testing.T) {
			switch {
			case b.info == "hex":
				for _, f := range protocolBinary(t, text) {
					last, types[f.Type] = f, true
				}
			case b.info == "json hello alone":
				protocolMessage(t, text)
			case kind == "hello":
				protocolJSON(t, text, last, true)
			case kind == "plain":
				protocolJSON(t, text, last, false)
			case kind == "body":
				protocolBody(t, name, text)
			default:
				t.Errorf("a block that nobody checks: %q", b.info)
			}
		})
	}
	for typ := wire.Hello; typ <= wire.Head; typ++ {
		if !types[typ] && typ != wire.Auth {
			t.Errorf("no example of %v", typ)
		}
	}
}

// protocolBinary decodes the frames of a hex block and encodes them again.
func protocolBinary(t *testing.T, text string) (frames []wire.Frame) {
	is := is.New(t)
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	data, err := hex.DecodeString(digits.String())
	is.NoErr(err)
	var again []byte
	for rest := data; len(rest) > 0; {
		var f wire.Frame
		n, err := wire.DecodeBinary(rest, &f, nil)
		is.NoErr(err)
		rest = rest[n:]
		again, err = wire.AppendBinary(again, &f)
		is.NoErr(err)
		frames = append(frames, f)
	}
	is.Equal(hex.EncodeToString(again), hex.EncodeToString(data)) // encoded as it was
	return frames
}

// protocolJSON holds one object against the frame that it shows.
func protocolJSON(t *testing.T, text string, want wire.Frame, hello bool) {
	is := is.New(t)
	got, err := wire.AppendJSON(nil, &want, hello)
	is.NoErr(err)
	is.Equal(string(got), text) // written

	r := wire.Reader{Hello: hello}
	frames, array, err := r.Read([]byte(text))
	is.NoErr(err)
	is.True(!array && len(frames) == 1)
	if hello {
		sameFrame(t, frames[0], want) // read
		return
	}
	is.Equal(frames[0].Type, want.Type)
	is.Equal(frames[0].ID, want.ID)
	is.Equal(string(frames[0].Payload), string(want.Payload))
}

func sameFrame(t *testing.T, a, b wire.Frame) {
	t.Helper()
	ok := a.Type == b.Type && a.Flags == b.Flags && a.Kind == b.Kind && a.ID == b.ID && a.Method == b.Method &&
		a.TimeLeft == b.TimeLeft && maps.Equal(a.Meta, b.Meta) && bytes.Equal(a.Payload, b.Payload) &&
		a.Code == b.Code && a.Message == b.Message && a.RetryAfter == b.RetryAfter && a.Position == b.Position &&
		a.Items == b.Items && a.Window == b.Window && a.Dropped == b.Dropped
	if !ok {
		t.Errorf("the two dialects differ:\n%+v\n%+v", a, b)
	}
}

// protocolMessage reads a message of several frames and writes it again.
func protocolMessage(t *testing.T, text string) {
	is := is.New(t)
	r := wire.Reader{Hello: true}
	frames, array, err := r.Read([]byte(text))
	is.NoErr(err)
	is.True(array)
	again := []byte{'['}
	for i := range frames {
		if i > 0 {
			again = append(again, ',')
		}
		again, err = wire.AppendJSON(again, &frames[i], true)
		is.NoErr(err)
	}
	is.Equal(string(append(again, ']')), text)
}

// protocolBody reads a body and writes it again.
func protocolBody(t *testing.T, name, text string) {
	is := is.New(t)
	var again []byte
	switch name {
	case "HELLO":
		b, err := wire.ParseHello([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	case "WELCOME":
		b, err := wire.ParseWelcome([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	case "AUTH_OK":
		b, err := wire.ParseAuthOK([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	case "GOAWAY":
		b, err := wire.ParseGoAway([]byte(text))
		is.NoErr(err)
		again = b.Append(nil)
	default:
		t.Fatalf("no body %q", name)
	}
	is.Equal(string(again), text)
}

func TestProtocol_tables(t *testing.T) {
	data, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	says := func(want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("PROTOCOL.md does not say %q", want)
		}
	}
	for typ := wire.Hello; typ <= wire.Head; typ++ {
		row := fmt.Sprintf("\n| %d | %v | ", typ, typ)
		says(row)
		_, rest, _ := strings.Cut(text, row)
		line, _, _ := strings.Cut(rest, "\n")
		if strings.HasSuffix(line, "| yes |") != typ.Counted() {
			t.Errorf("PROTOCOL.md and Counted differ about %v", typ)
		}
	}
	for _, code := range []int{
		session.CloseDone, session.CloseGoingAway, session.CloseRestart, session.CloseOverload,
		session.CloseProtocol, session.CloseUnauthed, session.CloseForbidden, session.CloseTimeout,
		session.CloseSuperseded, session.CloseFlood,
	} {
		says(fmt.Sprintf("\n| %d | ", code))
	}
	says(fmt.Sprintf("| a method's name | %d bytes", wire.MaxMethod))
	says("metadata together | " + kibibytes(wire.MaxMeta))
	says("before WELCOME | " + kibibytes(wire.MaxBuffered))
	says("a plain peer's batch | " + thousands(wire.MaxBatch))
	says(fmt.Sprintf("a plain peer's id | %d bytes", wire.MaxRawID))
	says(fmt.Sprintf("nesting of JSON in the JSON-RPC dialect | %d |", wire.MaxDepth))
	says(fmt.Sprintf("%s at once, and %s a second", thousands(flow.FloodBurst), thousands(flow.FloodRate)))
	says("\n| `message` | bytes in the payload of one request, response, notification or item | 4 MiB; at most 16 MiB less 64 KiB |")
	if flow.MaxMessageCeiling != 16<<20-64<<10 {
		t.Error("the ceiling of Limits.MaxMessage is another one now")
	}
	for _, name := range append([]string{"typedrpc.v1.json", session.HelloProtocol}, session.PlainProtocols...) {
		says("`" + name + "`")
	}
	says(`"` + session.ReasonUnknown + `"`)
	says(`"` + session.ReasonEnded + `"`)
	says(`"` + session.ReasonDiffers + `"`)
}
