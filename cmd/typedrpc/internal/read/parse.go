package read

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
)

// others tells the files of the standard library and of modules that were fetched. Only what
// they declare is wanted, and their functions' bodies are most of what there is to check:
// without them a run takes a third of the time.
func (r *reader) others() func(path string) bool {
	env := exec.Command("go", "env", "GOROOT", "GOMODCACHE")
	env.Dir = r.options.Dir
	out, err := env.Output()
	if err != nil {
		return func(string) bool { return false } // loading will say why
	}
	var dirs []string
	for dir := range strings.Lines(string(out)) {
		if dir = strings.TrimSpace(dir); dir != "" {
			dirs = append(dirs, filepath.Clean(dir)+string(filepath.Separator))
		}
	}
	return func(path string) bool {
		for _, dir := range dirs {
			if strings.HasPrefix(path, dir) {
				return true
			}
		}
		return false
	}
}

// parse parses files, those that are empty without their functions' bodies.
func parse(empty func(path string) bool) func(*token.FileSet, string, []byte) (*ast.File, error) {
	return func(fset *token.FileSet, path string, src []byte) (*ast.File, error) {
		f, err := parser.ParseFile(fset, path, src, parser.AllErrors|parser.ParseComments|parser.SkipObjectResolution)
		if f == nil || !empty(path) {
			return f, err
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
				forever := &ast.ForStmt{For: d.Body.Lbrace, Body: &ast.BlockStmt{Lbrace: d.Body.Lbrace, Rbrace: d.Body.Rbrace}}
				d.Body.List = []ast.Stmt{forever} // it need not return anything
			}
		}
		return f, err
	}
}
