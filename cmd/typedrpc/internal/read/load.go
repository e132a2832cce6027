// Package read finds the declarations of Go packages and the JSON of their messages.
package read

import (
	"errors"
	"fmt"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
	"golang.org/x/tools/go/types/typeutil"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// Options say how packages are read.
type Options struct {
	Dir     string            // where patterns are resolved; "" is here
	Tags    string            // build tags
	Types   map[string]string // TypeScript for Go types, by path.Name
	NotNull bool              // slices and maps are never nil
	Safe    bool              // integers of 64 bits are below 2^53
}

// Problem is something that the reader of the output must know: what it is, where,
// and what to do. Those that are Fatal leave no output.
type Problem struct {
	Pos   string
	Text  string
	Fatal bool
}

func (p Problem) String() string {
	if p.Pos == "" {
		return p.Text
	}
	return p.Pos + ": " + p.Text
}

const root = "github.com/typedrpc/typedrpc"

// reader reads the packages of one run.
type reader struct {
	options  Options
	dir      string
	fset     *token.FileSet
	packages map[string]*packages.Package // all, by path
	roots    map[*types.Package]bool      // those that were asked for
	indexed  map[string]*index
	api      *model.API
	named    typeutil.Map // of types.Type to *model.Named
	found    []found
	taken    map[string]*model.Decl
	problems []Problem
	seen     map[string]bool // problems, once each
	used     map[string]bool // mapped types

	generated map[string]bool // files that "typedrpc json" has written
	types     []Message       // for Messages, which wants nothing else of types
	goTypes   bool
}

// API reads the packages that patterns name. The error says that they cannot be
// read at all.
func API(o Options, patterns ...string) (*model.API, []Problem, error) {
	r := newReader(o)
	pkgs, err := r.load(patterns, nil)
	if err != nil {
		return nil, nil, err
	}
	r.read(pkgs)
	if o.NotNull || len(o.Types) > 0 {
		bare := newReader(Options{Dir: o.Dir, Tags: o.Tags})
		bare.fset, bare.packages, bare.generated = r.fset, r.packages, r.generated
		bare.read(pkgs)
		r.api.Sent = bare.api
	}
	return r.api, r.problems, nil
}

func newReader(o Options) *reader {
	r := &reader{
		options: o, fset: token.NewFileSet(), packages: map[string]*packages.Package{}, roots: map[*types.Package]bool{}, indexed: map[string]*index{},
		api: new(model.API), taken: map[string]*model.Decl{}, seen: map[string]bool{}, used: map[string]bool{}, generated: map[string]bool{},
	}
	r.dir, _ = filepath.Abs(o.Dir)
	return r
}

// read reads what packages declare.
func (r *reader) read(pkgs []*packages.Package) {
	for _, p := range pkgs {
		r.roots[p.Types] = true
	}
	for _, p := range pkgs {
		r.api.Packages = append(r.api.Packages, p.Name)
		r.declarations(p)
	}
	r.declareAll()
	r.api.Title = strings.Join(slices.Compact(slices.Clone(r.api.Packages)), ", ")
	r.finish()
}

// load loads packages, in which overlay has what files are taken for.
func (r *reader) load(patterns []string, overlay map[string][]byte) ([]*packages.Package, error) {
	empty := r.others()
	cfg := &packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedModule,
		Dir:       r.options.Dir,
		Fset:      r.fset,
		Overlay:   overlay,
		ParseFile: parse(empty),
	}
	if r.options.Tags != "" {
		cfg.BuildFlags = []string{"-tags=" + r.options.Tags}
	}
	pkgs, err := packages.Load(cfg, patterns...)
	if err == nil && slices.ContainsFunc(pkgs, func(p *packages.Package) bool { return slices.ContainsFunc(p.GoFiles, empty) }) {
		cfg.ParseFile = nil // those that are read are whole, wherever they are
		pkgs, err = packages.Load(cfg, patterns...)
	}
	if err != nil {
		return nil, unloaded(err)
	}
	if len(pkgs) == 0 {
		return nil, fmt.Errorf("no packages match %s", strings.Join(patterns, " "))
	}
	var broken []error
	for p := range packages.Postorder(pkgs) {
		r.packages[p.PkgPath] = p
		for _, f := range p.Syntax {
			if len(f.Comments) > 0 && f.Comments[0].List[0].Text == Header {
				r.generated[r.fset.Position(f.Package).Filename] = true
			}
		}
		for _, e := range p.Errors {
			if empty(e.Pos) && strings.HasSuffix(e.Msg, "and not used") {
				continue // but by the bodies
			}
			if len(broken) == 8 {
				broken = append(broken, errors.New("there are more errors"))
			}
			if len(broken) < 8 {
				broken = append(broken, errors.New(r.relative(e)))
			}
		}
	}
	if len(broken) > 0 {
		return nil, fmt.Errorf("the packages do not compile:\n%w", errors.Join(broken...))
	}
	slices.SortFunc(pkgs, func(a, b *packages.Package) int { return strings.Compare(a.PkgPath, b.PkgPath) })
	return pkgs, nil
}

// unloaded is the error of packages of which the go command says nothing but that, without
// how it was asked.
func unloaded(err error) error {
	text := strings.TrimSpace(err.Error())
	if _, said, ok := strings.Cut(text, ": stderr: "); ok {
		text = said
	}
	if strings.Contains(text, "go.mod file not found") {
		text += "; -C dir changes to the directory of a module first"
	}
	return fmt.Errorf("the packages cannot be loaded: %s", text)
}

func (r *reader) relative(e packages.Error) string {
	if rest, ok := strings.CutPrefix(e.Error(), r.dir+string(filepath.Separator)); ok {
		return rest
	}
	return e.Error()
}

// at is a position in messages and comments, the same on every machine: relative
// to where the command runs, or beginning with the package's path.
func (r *reader) at(pos token.Pos) string {
	if !pos.IsValid() {
		return ""
	}
	p := r.fset.Position(pos)
	if rel, err := filepath.Rel(r.dir, p.Filename); err == nil && !strings.HasPrefix(rel, "..") {
		return fmt.Sprintf("%s:%d", filepath.ToSlash(rel), p.Line)
	}
	return fmt.Sprintf("%s:%d", filepath.ToSlash(p.Filename), p.Line)
}

func (r *reader) problem(fatal bool, pos token.Pos, format string, args ...any) {
	p := Problem{r.at(pos), fmt.Sprintf(format, args...), fatal}
	if r.seen[p.String()] {
		return
	}
	r.seen[p.String()] = true
	r.problems = append(r.problems, p)
}

func (r *reader) fail(pos token.Pos, format string, args ...any) {
	r.problem(true, pos, format, args...)
}
func (r *reader) warn(pos token.Pos, format string, args ...any) {
	r.problem(false, pos, format, args...)
}
