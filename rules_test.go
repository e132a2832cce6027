package typedrpc_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// The rules of docs/design.md that the source itself can prove.

// sources parses every Go file of the root module.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	fset, files := token.NewFileSet(), map[string]*ast.File{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (nestedModule(path) || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		files[filepath.ToSlash(path)] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func nestedModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func imports(f *ast.File) []string {
	var paths []string
	for _, s := range f.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

func TestRules_imports(t *testing.T) {
	is := is.New(t)
	files := sources(t)
	is.True(len(files) > 40) // the walk finds the module
	for path, f := range files {
		for _, p := range imports(f) {
			if p == "reflect" || p == "unsafe" {
				t.Errorf("%s imports %s: the root module does not", path, p)
			}
			first, _, _ := strings.Cut(p, "/")
			test := strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/testkit/")
			switch {
			case !strings.Contains(first, "."): // the standard library
			case strings.HasPrefix(p, "github.com/typedrpc/typedrpc"):
			case p == "github.com/coder/websocket", strings.HasPrefix(p, "golang.org/x/sync/"):
			case p == "github.com/matryer/is" && test:
			default:
				t.Errorf("%s imports %s: the root module depends on coder/websocket, x/sync and, in tests, matryer/is alone", path, p)
			}
		}
	}
}

// layers are all packages of the module that are not tests alone, from the top
// down: what each may import of ours. docs/design.md says what each is for.
var layers = []struct {
	name string
	may  string
}{
	{"typedrpctest", ". buf hook link wire"},
	{"internal/testkit/codecs", ". topic typedrpctest"},
	{"internal/testkit/lab", ". idempotency topic typedrpctest buf hook link session testkit wire"},
	{"topic", ". buf engine flow hook hub jsoncodec schema seam session stats wire"},
	{"transfer", ". schema seam"},
	{".", "idempotency buf client engine flow hook jsoncodec link logs replay schema seam server session stats status wire"},
	{"internal/client", "buf engine flow link logs replay schema session status wire"},
	{"internal/server", "buf engine flow link logs replay schema session stats status wire"},
	{"internal/hub", "buf engine flow logs stats status wire"},
	{"idempotency", "replay seam"},
	{"internal/seam", "engine replay schema session status"},
	{"internal/testkit", "buf hook link session wire"},
	{"internal/engine", "buf flow hook link replay session stats status wire"},
	{"internal/replay", "flow status wire"},
	{"internal/session", "buf flow link stats wire"},
	{"internal/hook", "link"},
	{"internal/link", "buf flow logs"},
	{"internal/flow", "wire"},
	{"internal/jsoncodec", "wire"},
	{"internal/schema", ""},
	{"stats", ""},
	{"internal/status", ""},
	{"internal/wire", ""},
	{"internal/buf", ""},
	{"internal/logs", ""},
	{"internal/testkit/live", ""},
	{"internal/testkit/turns", ""},
	{"js", ""},
	{"codec/jsongen", ""},
}

// TestRules_layers keeps arrows going down: what a package may import is in a
// later line than itself.
func TestRules_layers(t *testing.T) {
	const module = "github.com/typedrpc/typedrpc"
	short := func(dir string) string { return strings.TrimPrefix(dir, "internal/") }
	may := map[string][]string{}
	for i, l := range layers {
		may[l.name] = strings.Fields(l.may)
		for _, below := range may[l.name] {
			if !slices.ContainsFunc(layers[i+1:], func(x struct{ name, may string }) bool { return short(x.name) == below }) && l.name != "typedrpctest" && !strings.HasPrefix(l.name, "internal/testkit/") {
				t.Errorf("%s may import %s, which is no layer below it", l.name, below)
			}
		}
	}
	files := sources(t)
	for path, f := range files {
		dir := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(dir, "examples/") || strings.HasPrefix(dir, "internal/e2e") {
			continue
		}
		allowed, ok := may[dir]
		if !ok {
			t.Errorf("%s is in no layer: give it its place in rules_test.go and docs/design.md", path)
			continue
		}
		for _, p := range imports(f) {
			below, ours := strings.CutPrefix(p, module)
			if !ours {
				continue
			}
			if below = short(strings.TrimPrefix(below, "/")); below == "" {
				below = "."
			}
			if !slices.Contains(allowed, below) {
				t.Errorf("%s imports %s: the layer %q may import %q of ours", path, p, dir, allowed)
			}
		}
	}
}

// TestRules_api keeps types of internal packages out of what the packages export:
// their documentation would not show them.
func TestRules_api(t *testing.T) {
	files := sources(t)
	for path, f := range files {
		if dir := filepath.ToSlash(filepath.Dir(path)); !slices.Contains([]string{".", "idempotency", "stats", "topic", "transfer"}, dir) || strings.HasSuffix(path, "_test.go") {
			continue
		}
		internal := map[string]bool{}
		for _, p := range imports(f) {
			if strings.Contains(p, "/internal/") {
				internal[p[strings.LastIndex(p, "/")+1:]] = true
			}
		}
		check := func(what string, n ast.Node) {
			ast.Inspect(n, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok && internal[x.Name] {
						t.Errorf("%s: %s shows %s.%s, a type of an internal package", path, what, x.Name, s.Sel.Name)
					}
				}
				return true
			})
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) {
					check(d.Name.Name, d.Type)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					checkSpec(s, check)
				}
			}
		}
	}
}

// exportedReceiver reports whether d is a function, or a method of an exported
// type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	exported := false
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.IsExported() && len(id.Name) > 2 {
			exported = true
		}
		return true
	})
	return exported
}

func checkSpec(s ast.Spec, check func(string, ast.Node)) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		st, ok := s.Type.(*ast.StructType)
		if !ok {
			if it, ok := s.Type.(*ast.InterfaceType); ok {
				for _, m := range it.Methods.List {
					if len(m.Names) == 0 || m.Names[0].IsExported() {
						check(s.Name.Name, m.Type)
					}
				}
				return
			}
			check(s.Name.Name, s.Type) // an alias too
			return
		}
		for _, field := range st.Fields.List {
			if len(field.Names) == 0 || field.Names[0].IsExported() {
				check(s.Name.Name, field.Type)
			}
		}
	case *ast.ValueSpec:
		if s.Type != nil && s.Names[0].IsExported() {
			check(s.Names[0].Name, s.Type)
		}
	}
}

// goStatements are all the goroutines that the library starts, by function, as
// docs/design.md lists them.
var goStatements = map[string]int{
	"internal/link/link.go Wake":                 1, // the writer, while there is work
	"internal/link/link.go Fail":                 1, // the goodbye, bounded
	"internal/link/ws_native.go Ping":            1, // stands in for coder/websocket, which waits for the pong
	"internal/engine/incoming.go beginLocked":    1, // one for each call being handled …
	"internal/engine/bought.go unparkSomeLocked": 1, // … that waited for replies to be read …
	"internal/engine/bought.go unparkLocked":     1, // … and what begins many of those in turns
	"internal/engine/rest.go Wake":               1, // … and one that rested, whose items somebody looks at
	"internal/engine/rest.go add":                1, // … and all others of a connection that rested
	"internal/engine/rest.go run":                1, // … which go on when one has ended their goroutine
	"internal/engine/plain.go tellLocked":        1, // what follows the answer to an array …
	"internal/engine/reply.go finish":            1, // … and to what the reader has run
	"internal/client/client.go run":              1, // the supervisor again, when a handler ended its goroutine
	"internal/engine/inbound.go AfterFunc":       1, // as package context does
	"internal/engine/inbound.go unlockEnded":     1, // as package context does
	"internal/engine/lane.go laneLocked":         1, // the ordered lane, while there is work
	"internal/engine/lane.go runLane":            1, // the lane again, when a handler ended its goroutine
	"typedrpc.go wait":                           1, // a Broadcast's wait for one connection that is behind
	"future.go intercept":                        1, // a future whose interceptors wait
	"converse.go open":                           1, // a bidirectional stream whose interceptors wait
	"request.go forward":                         1, // one direction of a forwarded stream
	"internal/client/client.go Run":              1, // the supervisor of a dialled connection, which also reads
	"internal/engine/teller.go Tell":             1, // OnState, while there is something to tell
	"internal/server/link.go Start":              1, // an accepted link's reader
	"internal/server/link.go Hello":              1, // authentication, which waits
	"internal/server/auth.go authenticate":       1, // the program's function, which may end its goroutine
	"closing.go refusal":                         1, // the encoding of a fault's data, which may end its goroutine
	"internal/hub/feed.go apart":                 1, // the broker's, which may end its goroutine
	"internal/server/accepted.go end":            1, // OnDisconnect, which may end its goroutine
	"internal/client/opening.go apart":           1, // the program's functions of a handshake, which may
	"internal/engine/teller.go tell":             1, // OnState again, when it ended its goroutine
	"internal/server/link.go accept":             1, // OnConnect
	"internal/server/renew.go Auth":              1, // authentication on a live link
	"internal/server/accepted.go Over":           1, // the end of a connection that has no link
	"internal/session/kept.go endLocked":         1, // the same, for lack of time or room
	"internal/flow/ledger.go relieveLocked":      1, // ends whoever holds the most
	"internal/flow/ledger.go lookLocked":         1, // asks the collector
	"internal/hub/announcer.go announceLocked":   1, // what a hub announces, while there is something
	"internal/server/server.go Shutdown":         1, // one for each connection being drained
	"typedrpctest/context.go Context":            1, // none: it is a future
	"typedrpctest/network.go Serve":              1, // a host's http.Server
	"typedrpctest/proxy.go NewProxy":             1, // a proxy's listener
	"typedrpctest/proxy.go accept":               1, // a connection through it …
	"typedrpctest/proxy.go forward":              2, // … and, at either end, what it carries each way
}

func TestRules_goroutines(t *testing.T) {
	found := map[string]int{}
	files := sources(t)
	for path, f := range files {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "examples/") || strings.HasPrefix(path, "internal/testkit/") || strings.HasPrefix(path, "internal/e2e/") {
			continue
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				where := path + " " + fn.Name.Name
				switch n := n.(type) {
				case *ast.GoStmt:
					found[where]++
				case *ast.CallExpr: // WaitGroup.Go, errgroup.Group.Go
					if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" {
						found[where]++
					}
				}
				return true
			})
		}
	}
	for where, n := range found {
		if goStatements[where] != n {
			t.Errorf("%s starts %d goroutines, %d are listed: add it here and to docs/design.md, with who ends it", where, n, goStatements[where])
		}
	}
	for where := range goStatements {
		if found[where] == 0 {
			t.Errorf("%s starts no goroutine any more: take it off the list", where)
		}
	}
}

// longFunctions are those that may have more than sixty lines, by file, receiver's
// type and name, and why.
var longFunctions = map[string]string{
	"internal/jsoncodec/codec.go Decode":         "one flat switch over types",
	"internal/wire/scan.go scanner.value":        "one loop over bytes, without recursion",
	"codec/jsongen/skip.go Scanner.Raw":          "the same",
	"examples/quickstart/main.go run":            "a tour, to be read from top to bottom",
	"examples/ticker/main.go run":                "the same",
	"examples/resume/soak/service.go serviceMux": "a list of handlers",
}

// TestRules_sizes keeps rooms small enough to be read at once: a file has at most
// 400 lines, one of tests 600, and a function 60. Nobody reads what was generated from top to
// bottom.
func TestRules_sizes(t *testing.T) {
	found := map[string]bool{}
	for path := range sources(t) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if ast.IsGenerated(f) {
			continue
		}
		test := strings.HasSuffix(path, "_test.go")
		most := 400
		if test {
			most = 600
		}
		if n := fset.File(f.Pos()).LineCount(); n > most {
			t.Errorf("%s has %d lines, at most %d are allowed: two rooms in one?", path, n, most)
		}
		if test || strings.HasPrefix(path, "internal/testkit/") {
			continue
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			where := path + " " + receiver(fn) + fn.Name.Name
			switch long := longFunctions[where] != ""; {
			case n > 60 && !long:
				t.Errorf("%s has %d lines, at most 60 are allowed", where, n)
			case n > 60:
				found[where] = true
			}
		}
	}
	for where := range longFunctions {
		if !found[where] {
			t.Errorf("%s has at most 60 lines, or is no more: take it off the list", where)
		}
	}
}

// receiver is the type of a method's receiver and a dot, nothing for a function.
func receiver(d *ast.FuncDecl) string {
	name := ""
	if d.Recv != nil {
		ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && name == "" { // the first one: type parameters come later
				name = id.Name + "."
			}
			return true
		})
	}
	return name
}
