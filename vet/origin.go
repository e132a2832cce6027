package vet

import (
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis"
)

// origins are the expressions that a package assigns to each of its variables. An
// expression that is nil is a value that is not known.
type origins struct {
	info *types.Info
	of   map[*types.Var][]ast.Expr
}

func originsOf(pass *analysis.Pass) origins {
	o := origins{pass.TypesInfo, map[*types.Var][]ast.Expr{}}
	for c := range cursor(pass).Preorder((*ast.AssignStmt)(nil), (*ast.ValueSpec)(nil), (*ast.RangeStmt)(nil), (*ast.UnaryExpr)(nil), (*ast.FuncType)(nil)) {
		switch n := c.Node().(type) {
		case *ast.AssignStmt:
			o.assign(n.Lhs, n.Rhs)
		case *ast.ValueSpec:
			if len(n.Values) > 0 {
				for i, id := range n.Names {
					o.add(id, value(len(n.Names), n.Values, i))
				}
			}
		case *ast.RangeStmt:
			o.add(n.Key, nil)
			o.add(n.Value, nil)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				o.add(n.X, nil)
			}
		case *ast.FuncType:
			for _, field := range n.Params.List {
				for _, id := range field.Names {
					o.add(id, nil)
				}
			}
		}
	}
	return o
}

func (o origins) assign(lhs, rhs []ast.Expr) {
	for i, l := range lhs {
		o.add(l, value(len(lhs), rhs, i))
	}
}

// value is what the i-th of n variables is given.
func value(n int, values []ast.Expr, i int) ast.Expr {
	if n != len(values) {
		return nil // one of the results of a call
	}
	return values[i]
}

func (o origins) add(l, value ast.Expr) {
	if l == nil {
		return
	}
	if v := o.variable(l); v != nil {
		o.of[v] = append(o.of[v], value)
	}
}

func (o origins) variable(x ast.Expr) *types.Var {
	id, ok := ast.Unparen(x).(*ast.Ident)
	if !ok {
		return nil
	}
	v, _ := o.info.ObjectOf(id).(*types.Var)
	return v
}

// all reports whether x is always the result of a call that is accepted, directly
// or by way of variables. accept may ask the same of an argument, with check.
func (o origins) all(x ast.Expr, accept func(call *ast.CallExpr, check func(ast.Expr) bool) bool) bool {
	seen := map[*types.Var]bool{}
	var check func(ast.Expr) bool
	check = func(x ast.Expr) bool {
		if x == nil {
			return false
		}
		if call, ok := ast.Unparen(x).(*ast.CallExpr); ok {
			return accept(call, check)
		}
		v := o.variable(x)
		if v == nil {
			return false
		}
		if seen[v] {
			return true // what else it is given decides
		}
		seen[v] = true
		for _, x := range o.of[v] {
			if !check(x) {
				return false
			}
		}
		return len(o.of[v]) > 0
	}
	return check(x)
}
