package read

import (
	"go/ast"
	"testing"

	"github.com/matryer/is"
)

// TestLoad reads what was asked for as it is, and of the library below it what it declares.
func TestLoad(t *testing.T) {
	is := is.New(t)
	r := newReader(Options{})
	_, err := r.load([]string{"path"}, nil)
	is.NoErr(err)
	most := func(pkg string) (n int) {
		for _, f := range r.packages[pkg].Syntax {
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
					n = max(n, len(d.Body.List))
				}
			}
		}
		return n
	}
	is.True(most("path") > 1)
	is.True(most("internal/bytealg") > 1)

	r = newReader(Options{})
	_, err = r.load([]string{"."}, nil)
	is.NoErr(err)
	is.True(most(root+"/cmd/typedrpc/internal/read") > 1)
	is.Equal(most("path"), 1)
}
