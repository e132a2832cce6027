package read

import (
	"cmp"
	"fmt"
	"go/types"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/tools/go/packages"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// own returns the package if it belongs to the module that is being worked on, so
// that what it says can be changed.
func (r *reader) own(p *types.Package) *packages.Package {
	if p == nil {
		return nil
	}
	pkg := r.packages[p.Path()]
	if pkg == nil || pkg.Module == nil || !pkg.Module.Main {
		return nil
	}
	return pkg
}

// typeName is t in messages: with the names of packages.
func (r *reader) typeName(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string { return p.Name() })
}

// goName is t with the paths of packages.
func (r *reader) goName(t types.Type) string { return types.TypeString(t, nil) }

// tsName is a first name for t: that of the Go type, followed by what it was
// instantiated with.
func (r *reader) tsName(t types.Type) string {
	t = types.Unalias(t)
	switch t := t.(type) {
	case *types.Named:
		name := upper(t.Obj().Name())
		for arg := range t.TypeArgs().Types() {
			name += r.tsName(arg)
		}
		return name
	case *types.Basic:
		return upper(t.Name())
	case *types.Pointer:
		return r.tsName(t.Elem()) + "Pointer"
	case *types.Slice:
		if r.isByte(t.Elem()) {
			return "Bytes"
		}
		return r.tsName(t.Elem()) + "List"
	case *types.Array:
		return fmt.Sprintf("%sArray%d", r.tsName(t.Elem()), t.Len())
	case *types.Map:
		return r.tsName(t.Elem()) + "By" + r.tsName(t.Key())
	case *types.Struct:
		if t.NumFields() == 0 {
			return "Empty"
		}
		return "Struct"
	case *types.Interface:
		return "Any"
	}
	return "Type"
}

func upper(s string) string {
	s = strings.TrimLeft(s, "_")
	first, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return "X"
	}
	return string(unicode.ToUpper(first)) + s[n:]
}

// constName is the name of a constant beside the others of its type: without the
// type's name before it.
func constName(typ, name string) string {
	rest, ok := strings.CutPrefix(upper(name), upper(typ))
	if first, _ := utf8.DecodeRuneInString(rest); ok && unicode.IsUpper(first) {
		return rest
	}
	return upper(name)
}

func (r *reader) sortByPos(consts []*types.Const) {
	slices.SortFunc(consts, func(a, b *types.Const) int {
		p, q := r.fset.Position(a.Pos()), r.fset.Position(b.Pos())
		return cmp.Or(strings.Compare(p.Filename, q.Filename), cmp.Compare(p.Offset, q.Offset))
	})
}

// reserved are names that would hide, in the output, what it uses of TypeScript's.
var reserved = map[string]bool{
	"Array": true, "AsyncIterable": true, "Boolean": true, "Blob": true, "Date": true, "Error": true, "Function": true, "Iterable": true,
	"Map": true, "Number": true, "Object": true, "Partial": true, "Promise": true, "ReadableStream": true, "Record": true,
	"ReturnType": true, "Set": true, "String": true, "Symbol": true, "Uint8Array": true, "Client": true, "Handlers": true,
}

// finish gives all types names that are different, and puts everything in order.
func (r *reader) finish() {
	all := r.api.Types
	slices.SortFunc(all, func(a, b *model.Named) int { return strings.Compare(a.Go, b.Go) })
	r.rename(func(m *model.Named) string {
		last := m.Package[strings.LastIndexByte(m.Package, '/')+1:]
		return upper(last) + m.Name
	})
	taken := map[string]bool{}
	for _, m := range all {
		name := m.Name
		if reserved[name] {
			name += "_"
		}
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s%d", m.Name, n)
		}
		taken[name], m.Name = true, name
	}
	slices.SortFunc(all, func(a, b *model.Named) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.api.Decls, func(a, b *model.Decl) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.api.Faults, func(a, b *model.Fault) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.api.SignIns, func(a, b *model.SignIn) int { return strings.Compare(a.Var, b.Var) })
	r.sortProblems()
	for name := range r.options.Types {
		if !r.used[name] {
			r.fail(0, "-map %s: no message has that type; names are of the form example.com/path.Type", name)
		}
	}
}

func (r *reader) sortProblems() {
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return comparePos(a.Pos, b.Pos) })
}

// rename gives types of one name another one each.
func (r *reader) rename(other func(*model.Named) string) {
	count := map[string]int{}
	for _, m := range r.api.Types {
		count[m.Name]++
	}
	for _, m := range r.api.Types {
		if count[m.Name] > 1 {
			m.Name = other(m)
		}
	}
}

// comparePos puts file:line in the order in which one reads.
func comparePos(a, b string) int {
	fileA, lineA, _ := cutLine(a)
	fileB, lineB, _ := cutLine(b)
	return cmp.Or(strings.Compare(fileA, fileB), cmp.Compare(lineA, lineB))
}

func cutLine(pos string) (file string, line int, ok bool) {
	i := strings.LastIndexByte(pos, ':')
	if i < 0 {
		return pos, 0, false
	}
	_, err := fmt.Sscan(pos[i+1:], &line)
	return pos[:i], line, err == nil
}
