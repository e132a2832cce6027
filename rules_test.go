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
		case d.IsDir() && path != "." && (nestedModule(path) || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
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

// TestRules_layers keeps data going straight down and straight up.
func TestRules_layers(t *testing.T) {
	const module = "github.com/typedrpc/typedrpc/"
	allowed := map[string][]string{
		"internal/buf":     {},
		"internal/wire":    {},
		"internal/hook":    {"internal/link"},
		"internal/link":    {"internal/buf"},
		"internal/session": {"internal/buf", "internal/link", "internal/wire"},
		"typedrpctest":     {"internal/buf", "internal/hook", "internal/link", "internal/wire"},
	}
	files := sources(t)
	for path, f := range files {
		may, ok := allowed[filepath.ToSlash(filepath.Dir(path))]
		if !ok || strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, p := range imports(f) {
			if below, ours := strings.CutPrefix(p, module); ours && !slices.Contains(may, below) {
				t.Errorf("%s imports %s: not a layer below it", path, p)
			}
		}
	}
}

// goStatements are all the goroutines that the library starts, by function, as
// docs/design.md lists them.
var goStatements = map[string]int{
	"internal/link/link.go Wake":             1, // the writer, while there is work
	"internal/link/link.go Fail":             1, // the goodbye, bounded
	"internal/link/ws_native.go Ping":        1, // stands in for coder/websocket, which waits for the pong
	"inbound.go begin":                       1, // one for each call being handled …
	"inbound.go unparkLocked":                1, // … that waited for replies to be read
	"inbound.go AfterFunc":                   1, // as package context does
	"inbound.go cancel":                      1, // as package context does
	"lane.go laneLocked":                     1, // the ordered lane, while there is work
	"lane.go runLane":                        1, // the lane again, when a handler ended its goroutine
	"typedrpc.go wait":                       1, // a Broadcast's wait for one connection that is behind
	"future.go intercept":                    1, // a future whose interceptors wait
	"converse.go open":                       1, // a bidirectional stream whose interceptors wait
	"converse.go forward":                    1, // one direction of a forwarded stream
	"dial.go Dial":                           1, // the supervisor of a dialled connection, which also reads
	"dialer.go changeLocked":                 1, // OnState, while there is something to tell
	"accept.go start":                        1, // an accepted link's reader
	"accept.go Hello":                        1, // authentication, which waits
	"accept.go authenticateLink":             1, // its end when the client leaves
	"accept.go accept":                       1, // OnConnect
	"accept.go renew":                        1, // authentication on a live link
	"conn.go over":                           1, // the end of a connection that has no link
	"internal/session/registry.go endLocked": 1, // the same, for lack of time or room
	"presence.go announceLocked":             1, // what a hub announces, while there is something
	"server.go Shutdown":                     1, // one for each connection being drained
	"typedrpctest/network.go Serve":          1, // a host's http.Server
	"typedrpctest/proxy.go NewProxy":         1, // a proxy's listener
	"typedrpctest/proxy.go accept":           1, // a connection through it …
	"typedrpctest/proxy.go forward":          2, // … and, at either end, what it carries each way
}

func TestRules_goroutines(t *testing.T) {
	found := map[string]int{}
	files := sources(t)
	for path, f := range files {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "examples/") || strings.HasPrefix(path, "internal/testkit/") {
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
