package typedrpc_test

import (
	"go/ast"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// TestRules_logs keeps docs/logs.md and the source in step: every message, with its
// level and its attributes, and nothing that goes past internal/logs.
func TestRules_logs(t *testing.T) {
	is := is.New(t)
	listed := listedLogs(t)
	is.True(len(listed) > 10) // the table is found
	found := map[string]string{}
	files := sources(t)
	wrappers := map[string]logCall{}
	for path, f := range files {
		if logsHere(path) {
			pastLogs(t, path, f)
			eachLogCall(f, func(fn string, c logCall) {
				if _, ok := c.message.(*ast.Ident); ok {
					wrappers[fn] = c
				}
			})
		}
	}
	for path, f := range files {
		if !logsHere(path) {
			continue
		}
		take := func(c logCall) {
			text, ok := literal(c.message)
			if !ok || !strings.HasPrefix(text, "typedrpc: ") {
				t.Errorf("%s: a message that is no literal with \"typedrpc: \" before it cannot be listed, nor is it a cause", path)
				return
			}
			found[text+" | "+c.level+" | "+c.attrs(t, path)] = path
		}
		eachLogCall(f, func(fn string, c logCall) {
			if _, wraps := c.message.(*ast.Ident); !wraps {
				take(c)
			}
		})
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if s, ok := call.Fun.(*ast.SelectorExpr); ok {
					if w, ok := wrappers[s.Sel.Name]; ok {
						w.message = call.Args[0]
						take(w)
					}
				}
			}
			return true
		})
	}
	for line, path := range found {
		if !listed[line] {
			t.Errorf("%s logs %q: docs/logs.md does not list it so", path, line)
		}
	}
	for line := range listed {
		if found[line] == "" {
			t.Errorf("docs/logs.md lists %q: nobody logs it so", line)
		}
	}
}

// logsHere reports whether a file is the library's, and logs through internal/logs.
func logsHere(path string) bool {
	for _, other := range []string{"examples/", "internal/testkit/", "internal/e2e/", "internal/logs/", "typedrpctest/"} {
		if strings.HasPrefix(path, other) {
			return false
		}
	}
	return !strings.HasSuffix(path, "_test.go")
}

// listedLogs are the lines of the table: message, level, attributes.
func listedLogs(t *testing.T) map[string]bool {
	text, err := os.ReadFile("docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `typedrpc: ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 5 {
			t.Errorf("docs/logs.md: %q has %d cells, not message, level, attributes, when, what to do", line, len(cells))
			continue
		}
		listed[strings.Trim(cells[0], "`")+" | "+cells[1]+" | "+cells[2]] = true
	}
	return listed
}

// pastLogs finds what would not be bounded.
func pastLogs(t *testing.T, path string, f *ast.File) {
	for _, p := range imports(f) {
		if p == "log" {
			t.Errorf("%s imports log: what the library logs goes through internal/logs", path)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, _ := s.X.(*ast.Ident)
		switch {
		case x == nil:
		case x.Name == "slog" && s.Sel.Name != "Logger",
			x.Name == "os" && (s.Sel.Name == "Stderr" || s.Sel.Name == "Stdout"),
			x.Name == "fmt" && strings.HasPrefix(s.Sel.Name, "Print"):
			t.Errorf("%s uses %s.%s: what the library logs goes through internal/logs", path, x.Name, s.Sel.Name)
		}
		return true
	})
}

// logCall is one call of a *slog.Logger.
type logCall struct {
	level   string
	message ast.Expr
	rest    []ast.Expr
}

// attrs are the names of its attributes.
func (c logCall) attrs(t *testing.T, path string) string {
	var keys []string
	for i := 0; i < len(c.rest); i += 2 {
		key, ok := literal(c.rest[i])
		if !ok {
			t.Errorf("%s: an attribute's name is no literal", path)
		}
		keys = append(keys, key)
	}
	return strings.Join(keys, ", ")
}

// eachLogCall finds calls by the names of the methods: none else of the library's
// that are called so have arguments.
func eachLogCall(f *ast.File, do func(fn string, c logCall)) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "http" {
				return true // http.Error answers
			}
			level, inContext := strings.CutSuffix(s.Sel.Name, "Context")
			at := 0
			if inContext {
				at = 1
			}
			switch level {
			case "Debug", "Info", "Warn", "Error":
			case "Log", "LogAttrs": // their level is an argument, which the list could not have
				level, at = "any", 2
			default:
				return true
			}
			if len(call.Args) > at {
				do(fn.Name.Name, logCall{strings.ToUpper(level), call.Args[at], call.Args[at+1:]})
			}
			return true
		})
	}
}

func literal(x ast.Expr) (string, bool) {
	l, ok := x.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}
