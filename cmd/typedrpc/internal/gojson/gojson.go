// Package gojson writes Go that reads and appends the JSON of messages, as encoding/json
// does, without reflection.
package gojson

import (
	"fmt"
	"go/format"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
	"golang.org/x/tools/go/types/typeutil"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/read"
)

const (
	root    = "github.com/typedrpc/typedrpc"
	library = root + "/codec/jsongen"
)

// Options say what is written.
type Options struct {
	Exact bool // refuse what encoding/json lets pass
}

// A File is what is written into a package.
type File struct{ Path, Text string }

// Files writes the code of all packages that have messages. What keeps it from that is
// reported in source.
func Files(source *read.Source, o Options, output func(dir string) string) ([]File, error) {
	var files []File
	used := used(source)
	for _, p := range source.Packages {
		g := newGenerator(source, o, p)
		for _, m := range used[p.Types] {
			g.message(m.named, m.pos)
		}
		g.embedders()
		if len(g.methods) == 0 {
			continue
		}
		text, err := g.file()
		if err != nil {
			return nil, err
		}
		files = append(files, File{output(p.Dir), text})
	}
	return files, nil
}

// target is a type that gets methods.
type target struct {
	named *types.Named
	pos   token.Pos
}

// used are the types that can have methods, by package, and reports the others.
func used(source *read.Source) map[*types.Package][]target {
	roots := map[*types.Package]bool{}
	for _, p := range source.Packages {
		roots[p.Types] = true
	}
	name := func(t types.Type) string { // as the packages write it
		return types.TypeString(t, func(p *types.Package) string {
			if roots[p] {
				return ""
			}
			return p.Name()
		})
	}
	all := map[*types.Package][]target{}
	for _, m := range source.Messages {
		t := types.Unalias(m.Type)
		if p, ok := t.(*types.Pointer); ok {
			if n, ok := types.Unalias(p.Elem()).(*types.Named); ok {
				t = n
				if !m.Alloc {
					source.Warn(m.Pos, "%s is a pointer, and what it points to is found by reflection: give the declaration typedrpc.Alloc[%s]()", m.What, name(t))
				}
			}
		}
		if builtin(t) {
			continue
		}
		n, ok := t.(*types.Named)
		switch {
		case !ok || n.Obj().Pkg() == nil:
			source.Warn(m.Pos, "%s is %s, which has no methods, so that encoding/json carries it, by reflection: use a type with a name", m.What, name(t))
		case n.TypeArgs().Len() > 0:
			source.Warn(m.Pos, "%s is %s, whose methods would be those of all its instances, so that encoding/json carries it, by reflection: use a type with a name, type Name %s", m.What, name(t), name(t))
		case roots[n.Obj().Pkg()]:
			all[n.Obj().Pkg()] = append(all[n.Obj().Pkg()], target{n, m.Pos})
		case !own(n):
			source.Warn(m.Pos, "%s is %s, of another package, so that encoding/json carries it, by reflection: name that package, too, or use a type of this one, type Name %s", m.What, name(t), name(t))
		}
	}
	return all
}

// own reports whether a type of another package has both methods.
func own(n *types.Named) bool {
	p := types.NewPointer(n)
	return types.Implements(p, unmarshaler) && types.Implements(p, appender)
}

// builtin reports whether the JSON codec carries messages of type t by itself.
func builtin(t types.Type) bool {
	switch t := t.(type) {
	case *types.Basic:
		switch t.Kind() {
		case types.String, types.Bool, types.Int, types.Int32, types.Int64, types.Uint, types.Uint32, types.Uint64, types.Float64:
			return true
		}
	case *types.Slice:
		return types.Identical(t.Elem(), types.Typ[types.Byte])
	case *types.Struct:
		return t.NumFields() == 0
	case *types.Named:
		return t.Obj().Pkg() != nil && t.Obj().Pkg().Path() == root && (t.Obj().Name() == "Raw" || t.Obj().Name() == "Bytes")
	}
	return false
}

// generator writes one package's file.
type generator struct {
	source  *read.Source
	options Options
	p       *packages.Package
	methods []method
	done    map[*types.TypeName]bool
	place   // of what is being written

	byKey   map[key]*typeutil.Map
	queue   []*function
	taken   map[string]bool
	imports map[string]string // names by path
	facts   map[string]*typeutil.Map
}

// place is where something is, in what is reported.
type place struct {
	pos  token.Pos
	what string
}

// placeOf is the place of a field of t, or of t where t is of others.
func (g *generator) placeOf(f *types.Var, t types.Type) place {
	what := "field " + f.Name()
	if n, ok := types.Unalias(t).(*types.Named); ok {
		what = "field " + n.Obj().Name() + "." + f.Name()
	}
	if f.Pkg() != g.p.Types {
		return place{g.pos, what}
	}
	return place{f.Pos(), what}
}

// at goes to a place; the function that it returns goes back.
func (g *generator) at(to place) func() {
	from := g.place
	g.place = to
	return func() { g.place = from }
}

// method is a method of a type, which calls the type's function.
type method struct {
	named *types.Named
	reads bool
	body  string
}

func newGenerator(source *read.Source, o Options, p *packages.Package) *generator {
	return &generator{
		source: source, options: o, p: p, done: map[*types.TypeName]bool{}, byKey: map[key]*typeutil.Map{},
		taken: map[string]bool{}, imports: map[string]string{}, facts: map[string]*typeutil.Map{},
	}
}

// message writes the methods of a type that it has not.
func (g *generator) message(n *types.Named, pos token.Pos) {
	if g.done[n.Obj()] {
		return
	}
	g.done[n.Obj()] = true
	switch n.Underlying().(type) {
	case *types.Pointer, *types.Interface:
		g.source.Warn(pos, "%s can have no methods, so that encoding/json carries it", short(n))
		return
	}
	g.place = place{n.Obj().Pos(), "type " + n.Obj().Name()}
	v := expr{value: "*v", pointer: "v"}
	if !g.declares(n, "AppendJSON") {
		w := ""
		if g.fails(n, true) {
			w = "w := new(jsongen.Writing)\n"
		}
		body := "if v == nil {\nreturn append(dst, \"null\"...), nil\n}\n" + w + g.append(v, n, true)
		if w == "" {
			body += "return dst, nil\n"
		} else {
			body += "return dst, w.Err()\n"
		}
		g.methods = append(g.methods, method{n, false, body})
	}
	if !g.declares(n, "UnmarshalJSON") {
		scan := "Scan"
		if g.options.Exact {
			scan = "ScanExact"
		}
		body := "s := jsongen." + scan + "(data)\n" + g.read(v, n, byPointer) + "return s.End()\n"
		g.methods = append(g.methods, method{n, true, body})
	}
	g.write()
}

// declares reports whether a type has a method of its own, not one of what it embeds.
func (g *generator) declares(n *types.Named, name string) bool {
	for f := range n.Methods() {
		if f.Name() == name && !g.source.Generated(f) {
			return true
		}
	}
	return false
}

// embedders writes methods for the structs of the package that embed types which have got
// them: they would have those of what they embed.
func (g *generator) embedders() {
	scope := g.p.Types.Scope()
	for again := true; again; {
		again = false
		for _, name := range scope.Names() {
			obj, ok := scope.Lookup(name).(*types.TypeName)
			if !ok || obj.IsAlias() || g.done[obj] {
				continue
			}
			n := obj.Type().(*types.Named)
			s, ok := n.Underlying().(*types.Struct)
			if !ok || !g.embeds(s) {
				continue
			}
			if n.TypeParams().Len() > 0 {
				g.source.Fail(obj.Pos(), "%s embeds a message, whose methods would be its own, and is generic, so that none can be written for it: give the field a name", name)
				g.done[obj] = true
				continue
			}
			g.message(n, obj.Pos())
			again = true
		}
	}
}

func (g *generator) embeds(s *types.Struct) bool {
	for f := range s.Fields() {
		if !f.Embedded() {
			continue
		}
		t := types.Unalias(f.Type())
		if p, ok := t.(*types.Pointer); ok {
			t = types.Unalias(p.Elem())
		}
		if n, ok := t.(*types.Named); ok && slices.ContainsFunc(g.methods, func(m method) bool { return m.named.Obj() == n.Obj() }) {
			return true
		}
	}
	return false
}

// file is the whole file.
func (g *generator) file() (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\npackage %s\n\nimport (\n", read.Header, g.p.Name)
	paths := []string{}
	for path := range g.imports {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		if name := g.imports[path]; name != filepath.Base(path) {
			fmt.Fprintf(&b, "%s ", name)
		}
		fmt.Fprintf(&b, "%q\n", path)
	}
	fmt.Fprintf(&b, "\n%q\n)\n", library)
	how := "as encoding/json does"
	if g.options.Exact {
		how = "and refuses what encoding/json lets pass"
	}
	for _, m := range g.methods {
		name := m.named.Obj().Name()
		if m.reads {
			fmt.Fprintf(&b, "\n// UnmarshalJSON reads data into v, %s.\nfunc (v *%s) UnmarshalJSON(data []byte) error {\n%s}\n", how, name, m.body)
		} else {
			fmt.Fprintf(&b, "\n// AppendJSON appends v to dst, %s.\nfunc (v *%s) AppendJSON(dst []byte) ([]byte, error) {\n%s}\n", how, name, m.body)
		}
	}
	for _, f := range g.queue {
		b.WriteString(f.text)
	}
	text, err := format.Source([]byte(b.String()))
	if err != nil {
		return "", fmt.Errorf("typedrpc: the code for %s is no Go, which is a fault of this command: %w\n%s", g.p.PkgPath, err, b.String())
	}
	return string(text), nil
}

func short(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string { return p.Name() })
}
