// Package vet finds what compiles in a program that uses typedrpc and cannot be
// meant: errors that a loop does not look at, results that are dropped although
// the call does nothing but return them, streams that nobody can end, messages that
// cannot be decoded.
//
// Its analyzers know the library by the paths of its packages and by the types
// of what they return, and import nothing of it. The command cmd/typedrpcvet runs
// them, alone or for go vet.
package vet

import (
	"go/ast"
	"go/types"
	"iter"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/types/typeutil"
)

// ours reports whether p is one of the packages that programs use. The path of one
// that is compiled for a test is followed by the test's, in brackets.
func ours(p *types.Package) bool {
	if p == nil {
		return false
	}
	path, _, _ := strings.Cut(p.Path(), " ")
	switch path {
	case "github.com/typedrpc/typedrpc", "github.com/typedrpc/typedrpc/idempotency", "github.com/typedrpc/typedrpc/topic", "github.com/typedrpc/typedrpc/transfer":
		return true
	}
	return false
}

// callee returns the function or method of ours that is called, or nil.
func callee(pass *analysis.Pass, call *ast.CallExpr) *types.Func {
	if f, ok := typeutil.Callee(pass.TypesInfo, call).(*types.Func); ok && ours(f.Pkg()) {
		return f
	}
	return nil
}

// name is how f is called in a message: typedrpc.Receive, Stream.All.
func name(f *types.Func) string {
	if recv := f.Signature().Recv(); recv != nil {
		if n := named(recv.Type()); n != nil {
			return n.Obj().Name() + "." + f.Name()
		}
	}
	return f.Pkg().Name() + "." + f.Name()
}

// named returns the type that has a name behind t, which may be a pointer to it,
// or nil.
func named(t types.Type) *types.Named {
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		t = p.Elem()
	}
	n, _ := types.Unalias(t).(*types.Named)
	return n
}

func isNamed(t types.Type, path, name string) bool {
	n := named(t)
	return n != nil && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == path && n.Obj().Name() == name
}

func takesContext(f *types.Func) bool {
	for p := range f.Signature().Params().Variables() {
		if isNamed(p.Type(), "context", "Context") {
			return true
		}
	}
	return false
}

func cursor(pass *analysis.Pass) inspector.Cursor {
	return pass.ResultOf[inspect.Analyzer].(*inspector.Inspector).Root()
}

// statements are the calls of ours that are statements, so that nothing takes
// what they return. Those from which only a panic can be expected are left out:
// the whole of a function literal, as tests of panics have them, and what stands
// in a function that recovers.
func statements(pass *analysis.Pass) iter.Seq2[*ast.CallExpr, *types.Func] {
	return func(yield func(*ast.CallExpr, *types.Func) bool) {
		for c := range cursor(pass).Preorder((*ast.ExprStmt)(nil), (*ast.GoStmt)(nil), (*ast.DeferStmt)(nil)) {
			var call *ast.CallExpr
			switch s := c.Node().(type) {
			case *ast.ExprStmt:
				call, _ = ast.Unparen(s.X).(*ast.CallExpr)
			case *ast.GoStmt:
				call = s.Call
			case *ast.DeferStmt:
				call = s.Call
			}
			if call == nil {
				continue
			}
			if f := callee(pass, call); f != nil && !forPanic(pass, c) && !yield(call, f) {
				return
			}
		}
	}
}

func forPanic(pass *analysis.Pass, c inspector.Cursor) bool {
	for f := range c.Enclosing((*ast.FuncLit)(nil), (*ast.FuncDecl)(nil)) {
		if lit, ok := f.Node().(*ast.FuncLit); ok && len(lit.Body.List) == 1 && lit.Body.List[0] == c.Node() {
			return true
		}
		for call := range f.Preorder((*ast.CallExpr)(nil)) {
			if b, ok := typeutil.Callee(pass.TypesInfo, call.Node().(*ast.CallExpr)).(*types.Builtin); ok && b.Name() == "recover" {
				return true
			}
		}
		return false // the functions around that one are others
	}
	return false
}
