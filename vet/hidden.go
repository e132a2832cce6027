package vet

import (
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
)

// HiddenError reports loops that take the items of a sequence of typedrpc's, and
// have no variable for the error: they end silently when the connection breaks or
// the handler fails.
var HiddenError = &analysis.Analyzer{
	Name: "hiddenerror",
	Doc: `find loops over streams that do not see the stream's error

A sequence that typedrpc returns, or gives to a handler, ends with a pair whose
error says why the stream ended early. A loop with one variable, or with _ for the
error, takes that pair for an item, and then for a good end:

	for price := range typedrpc.Receive(ctx, conn, Prices, req) { // wrong
	for price, err := range typedrpc.Receive(ctx, conn, Prices, req) {

So does a loop over typedrpc.CallAll without a variable for the futures, which have the
answers and the errors. A loop without variables, which only waits for the end, is not reported.`,
	URL:      "https://pkg.go.dev/github.com/typedrpc/typedrpc/vet#HiddenError",
	Requires: []*analysis.Analyzer{inspect.Analyzer},
	Run:      runHidden,
}

func runHidden(pass *analysis.Pass) (any, error) {
	var from origins // made for the first loop that is in question
	var given map[*types.Var]bool
	for c := range cursor(pass).Preorder((*ast.RangeStmt)(nil)) {
		loop := c.Node().(*ast.RangeStmt)
		if blank(loop.Key) || !blank(loop.Value) || !withErrors(pass.TypesInfo.TypeOf(loop.X)) {
			continue
		}
		if given == nil {
			from = originsOf(pass)
			given = handlers(pass, from)
		}
		v := from.variable(loop.X)
		if v != nil && given[v] && len(from.of[v]) == 1 || from.all(loop.X, func(call *ast.CallExpr, _ func(ast.Expr) bool) bool { return streams(pass, call) }) {
			pass.ReportRangef(loop.X, "the loop hides errors, a stream's last one or those of the calls that failed: range over it with two variables, and look at the second")
		}
	}
	return nil, nil
}

// blank reports whether nothing is assigned to x: it is _, or not there.
func blank(x ast.Expr) bool {
	id, ok := x.(*ast.Ident)
	return x == nil || ok && id.Name == "_"
}

// withErrors reports whether t is an iter.Seq2[_, error], or one of futures.
func withErrors(t types.Type) bool {
	return isNamed(t, "iter", "Seq2") && (ofFutures(t) || types.Identical(named(t).TypeArgs().At(1), types.Universe.Lookup("error").Type()))
}

// ofFutures reports whether the second values of t, an iter.Seq2, are futures.
func ofFutures(t types.Type) bool {
	return isNamed(named(t).TypeArgs().At(1), "github.com/typedrpc/typedrpc", "Future")
}

// streams reports whether call returns a sequence of ours that can end with an
// error. One that is made of a sequence without errors has none, but for CallAll's, of
// futures: each of those it asks may fail.
func streams(pass *analysis.Pass, call *ast.CallExpr) bool {
	f := callee(pass, call)
	if t := pass.TypesInfo.TypeOf(call); f == nil || !withErrors(t) {
		return false
	} else if ofFutures(t) {
		return true
	}
	for p := range f.Signature().Params().Variables() {
		if isNamed(p.Type(), "iter", "Seq") {
			return false
		}
	}
	return true
}

// handlers are the parameters, of functions that are given to ours, that are
// sequences with errors: what a handler of a stream receives. A function may be given
// by a variable.
func handlers(pass *analysis.Pass, from origins) map[*types.Var]bool {
	given := map[*types.Var]bool{}
	for c := range cursor(pass).Preorder((*ast.CallExpr)(nil)) {
		call := c.Node().(*ast.CallExpr)
		if callee(pass, call) == nil {
			continue
		}
		for _, arg := range call.Args {
			functions := []ast.Expr{arg}
			if v := from.variable(arg); v != nil {
				functions = from.of[v]
			}
			for _, f := range functions {
				for v := range parameters(pass, f) {
					if withErrors(v.Type()) {
						given[v] = true
					}
				}
			}
		}
	}
	return given
}

// parameters are those of the function that x is: a literal, or the name of a
// function or of a method.
func parameters(pass *analysis.Pass, x ast.Expr) func(yield func(*types.Var) bool) {
	var sig *types.Signature
	switch x := ast.Unparen(x).(type) {
	case *ast.FuncLit:
		sig, _ = pass.TypesInfo.TypeOf(x).(*types.Signature)
	case *ast.Ident:
		sig = signature(pass.TypesInfo.Uses[x])
	case *ast.SelectorExpr:
		sig = signature(pass.TypesInfo.Uses[x.Sel])
	}
	if sig == nil {
		return func(func(*types.Var) bool) {}
	}
	return sig.Params().Variables()
}

func signature(o types.Object) *types.Signature {
	if f, ok := o.(*types.Func); ok {
		return f.Origin().Signature()
	}
	return nil
}
