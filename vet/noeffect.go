package vet

import (
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
)

// NoEffect reports calls as statements that do nothing but return something: a
// trait, a declaration, a changed copy, a sequence.
var NoEffect = &analysis.Analyzer{
	Name: "noeffect",
	Doc: `find calls whose result is dropped although they do nothing else

Traits, declarations and what is made from them are values, and nothing is called
before its sequence is ranged over. So each of these statements does nothing:

	Prices.Restartable(next)
	conn.With(typedrpc.CallOptions{FailFast: true})
	mux.Group(logged)
	typedrpc.Timeout(time.Second)
	typedrpc.Receive(ctx, conn, Prices, req)

A function literal with no other statement, and a function that recovers, are
taken for tests of panics.`,
	URL:      "https://pkg.go.dev/github.com/typedrpc/typedrpc/vet#NoEffect",
	Requires: []*analysis.Analyzer{inspect.Analyzer},
	Run:      runNoEffect,
}

func runNoEffect(pass *analysis.Pass) (any, error) {
	for call, f := range statements(pass) {
		n := named(pass.TypesInfo.TypeOf(call))
		switch {
		case n == nil:
		case n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == "iter":
			pass.ReportRangef(call, "%s returns a sequence, and does nothing until a loop ranges over it", name(f))
		case !ours(n.Obj().Pkg()) || takesContext(f):
		case isTrait(n):
			pass.ReportRangef(call, "%s returns a trait, which has no effect until a declaration is given it", name(f))
		default:
			pass.ReportRangef(call, "the result of %s is dropped: the call has no other effect", name(f))
		}
	}
	return nil, nil
}

// isTrait reports whether n is one of the interfaces that declarations take, or
// implements one of its package.
func isTrait(n *types.Named) bool {
	scope := n.Obj().Pkg().Scope()
	for _, name := range scope.Names() {
		if !strings.HasSuffix(name, "Trait") {
			continue
		}
		if i, ok := scope.Lookup(name).Type().Underlying().(*types.Interface); ok && types.Implements(n, i) {
			return true
		}
	}
	return false
}
