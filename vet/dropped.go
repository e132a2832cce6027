package vet

import (
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/types/typeutil"
)

// Dropped reports calls that begin a stream or a connection and drop the only
// value by which it can be ended.
var Dropped = &analysis.Analyzer{
	Name: "dropped",
	Doc: `find streams and connections that nobody can end

A statement that opens a stream or dials a connection drops the value by which it
is used and ended, and the error beside it:

	typedrpc.Open(ctx, conn, Chat, req)

Assigned to _, a stream is reported only when its context never ends either:

	_, err := typedrpc.Open(context.Background(), conn, Chat, req)

Futures are not reported: a call ends with its answer, awaited or not.`,
	URL:      "https://pkg.go.dev/github.com/typedrpc/typedrpc/vet#Dropped",
	Requires: []*analysis.Analyzer{inspect.Analyzer},
	Run:      runDropped,
}

func runDropped(pass *analysis.Pass) (any, error) {
	for call, f := range statements(pass) {
		if begun := begins(f, "Cancel", "Close"); begun != nil {
			pass.ReportRangef(call, "the %s that %s returns is dropped: nobody can end it", begun.Obj().Name(), name(f))
		}
	}
	var from origins // made for the first call that is in question
	for c := range cursor(pass).Preorder((*ast.AssignStmt)(nil), (*ast.ValueSpec)(nil)) {
		call := toBlank(c.Node())
		if call == nil {
			continue
		}
		f := callee(pass, call)
		if f == nil {
			continue
		}
		begun := begins(f, "Cancel")
		if begun == nil {
			continue
		}
		if from.of == nil {
			from = originsOf(pass)
		}
		if endless(pass, from, contextOf(pass, call)) {
			pass.ReportRangef(call, "the %s that %s returns is dropped and its context never ends: nobody can end it", begun.Obj().Name(), name(f))
		}
	}
	return nil, nil
}

// begins returns the type of f's first result, if f takes a context and returns an
// error beside it, and the result has one of the methods by which such things are
// ended. Otherwise it returns nil.
func begins(f *types.Func, methods ...string) *types.Named {
	results := f.Signature().Results()
	if results.Len() != 2 || !takesContext(f) {
		return nil
	}
	n := named(results.At(0).Type())
	if n == nil || !ours(n.Obj().Pkg()) {
		return nil
	}
	for _, m := range methods {
		if o, _, _ := types.LookupFieldOrMethod(n, true, nil, m); o != nil {
			return n
		}
	}
	return nil
}

// toBlank returns the call whose first result n assigns to _, or nil.
func toBlank(n ast.Node) *ast.CallExpr {
	var first ast.Expr
	var values []ast.Expr
	switch n := n.(type) {
	case *ast.AssignStmt:
		first, values = n.Lhs[0], n.Rhs
	case *ast.ValueSpec:
		first, values = n.Names[0], n.Values
	}
	if len(values) != 1 || !blank(first) {
		return nil
	}
	call, _ := ast.Unparen(values[0]).(*ast.CallExpr)
	return call
}

func contextOf(pass *analysis.Pass, call *ast.CallExpr) ast.Expr {
	for _, arg := range call.Args {
		if isNamed(pass.TypesInfo.TypeOf(arg), "context", "Context") {
			return arg
		}
	}
	return nil
}

// endless reports whether ctx is a context that never ends.
func endless(pass *analysis.Pass, from origins, ctx ast.Expr) bool {
	return from.all(ctx, func(call *ast.CallExpr, check func(ast.Expr) bool) bool {
		f := typeutil.StaticCallee(pass.TypesInfo, call)
		if f == nil || f.Pkg() == nil || f.Pkg().Path() != "context" {
			return false
		}
		switch f.Name() {
		case "Background", "TODO", "WithoutCancel":
			return true
		case "WithValue":
			return check(call.Args[0])
		}
		return false
	})
}
