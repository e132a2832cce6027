package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/gojson"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/openrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/read"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/ts"
)

const groupGenerate = "generate"

// generator is what the commands that read packages have in common.
type generator struct {
	*Env
	read   read.Options
	dir    string
	out    string
	check  bool
	strict bool
}

// command is one that reads packages, "." if none is named, and writes what write returns.
func (g *generator) command(use, short, out string) *cobra.Command {
	cmd := &cobra.Command{GroupID: groupGenerate, Use: use + " [package...]", Short: short}
	flags := cmd.Flags()
	flags.StringVarP(&g.out, "out", "o", "", "`file` to write; default: "+out)
	flags.StringVarP(&g.dir, "dir", "C", "", "`directory` to change to before anything else")
	flags.BoolVar(&g.check, "check", false, "write nothing, and fail if a file is not what would be written")
	flags.BoolVar(&g.strict, "strict", false, "fail where something is reported")
	flags.StringVar(&g.read.Tags, "tags", "", "build `tags`, separated by commas")
	return cmd
}

// types are the flags of those that write types.
func (g *generator) types(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&g.read.NotNull, "notnull", false, "no slice and no map is ever nil: null is left out of their types")
	flags.BoolVar(&g.read.Safe, "safe", false, "no int64 and no uint64 is ever beyond 2^53: do not report them")
	g.read.Types = map[string]string{}
	flags.Func("map", "`path.Type=T`: the Go type is T in TypeScript; may be given several times", func(s string) error {
		name, text, ok := strings.Cut(s, "=")
		if !ok || name == "" || text == "" {
			return errors.New("it has the form example.com/path.Type=string")
		}
		g.read.Types[name] = text
		return nil
	})
}

// begin changes the directory, and returns the packages.
func (g *generator) begin(args []string) (patterns []string, err error) {
	if len(args) == 0 {
		args = []string{"."}
	}
	if g.dir != "" {
		if err := os.Chdir(g.dir); err != nil {
			return nil, usagef("-C: %v", err)
		}
	}
	return args, nil
}

func (env *Env) tsCommand() *cobra.Command {
	g := &generator{Env: env}
	var o ts.Options
	cmd := g.command("ts", "TypeScript, or a module with its types, for the client @typedrpc/client",
		"standard output; of a name that ends in .js or .mjs a module, and its types in a .d.ts beside it")
	cmd.Long = `typedrpc ts writes every method, notification, stream, topic, transfer, fault and sign-in
that is the value of a variable of the packages, with the types of their messages.`
	cmd.Example = `  typedrpc ts ./api -o client.ts     TypeScript
  typedrpc ts ./api -o client.js     a module for pages without a build step, and client.d.ts
  typedrpc ts ./api -o client.ts -check

In a Go file:

  //go:generate go tool typedrpc ts . -o web/client.ts`
	g.types(cmd)
	cmd.Flags().StringVar(&o.Import, "import", "@typedrpc/client", "`module` that the client is imported from")
	cmd.RunE = does(func(_ *cobra.Command, args []string) error {
		return g.api("ts", args, func(api *model.API) ([]output, error) { return typescript(api, o, g.out) })
	})
	return cmd
}

func (env *Env) schemaCommand() *cobra.Command {
	g := &generator{Env: env}
	var o openrpc.Options
	cmd := g.command("schema", "an OpenRPC document", "standard output")
	cmd.Example = "  typedrpc schema ./api -o api.json -title Shop -version 1.4.0"
	g.types(cmd)
	cmd.Flags().StringVar(&o.Title, "title", "", "title of the schema; default: the names of the packages")
	cmd.Flags().StringVar(&o.Version, "version", "0.0.0", "version of the API in the schema")
	cmd.RunE = does(func(_ *cobra.Command, args []string) error {
		return g.api("schema", args, func(api *model.API) ([]output, error) {
			text, err := openrpc.Document(api, o)
			return []output{{g.out, text}}, err
		})
	})
	return cmd
}

func (env *Env) jsonCommand() *cobra.Command {
	g := &generator{Env: env}
	var o gojson.Options
	cmd := g.command("json", "AppendJSON and UnmarshalJSON of the messages, without reflection", "typedrpc_json.go in each package")
	cmd.Example = "  typedrpc json ./api"
	cmd.Flags().BoolVar(&o.Exact, "exact", false, "have the code refuse what encoding/json lets pass: unknown members, those that come twice or have the name in other case, and what is not Unicode")
	cmd.RunE = does(func(_ *cobra.Command, args []string) error { return g.messages(args, o) })
	return cmd
}

// typescript writes a TypeScript file or, as the name of -o says, a module and its types.
func typescript(api *model.API, o ts.Options, out string) ([]output, error) {
	ext := filepath.Ext(out)
	if ext != ".js" && ext != ".mjs" {
		text, err := ts.File(api, o)
		return []output{{out, text}}, err
	}
	script, types, err := ts.Module(api, o)
	beside := strings.TrimSuffix(out, ext) + ".d" + strings.Replace(ext, "js", "ts", 1)
	return []output{{out, script}, {beside, types}}, err
}

// api writes what packages declare.
func (g *generator) api(name string, args []string, write func(*model.API) ([]output, error)) error {
	if g.check && g.out == "" {
		return usagef("-check needs the file that it checks: -o file")
	}
	patterns, err := g.begin(args)
	if err != nil {
		return err
	}
	api, problems, err := read.API(g.read, patterns...)
	if err != nil {
		return err
	}
	if g.fatal(problems) {
		return status(statusFailed)
	}
	if len(api.Decls)+len(api.Faults)+len(api.SignIns) == 0 {
		return fmt.Errorf("%s declares nothing", strings.Join(patterns, " "))
	}
	outputs, err := write(api)
	if err != nil {
		return g.tell(err)
	}
	if g.out == "" {
		_, err := fmt.Fprint(g.Out, outputs[0].text)
		return err
	}
	return g.putAll(outputs, name+" "+strings.Join(patterns, " "))
}

// messages writes the code of messages into their packages.
func (g *generator) messages(args []string, o gojson.Options) error {
	patterns, err := g.begin(args)
	if err != nil {
		return err
	}
	source, problems, err := read.Messages(g.read, g.beside, patterns...)
	if err != nil {
		return err
	}
	var files []gojson.File
	if !slices.ContainsFunc(problems, func(p read.Problem) bool { return p.Fatal }) {
		files, err = gojson.Files(source, o, g.beside)
		problems = source.Problems()
	}
	if g.fatal(problems) {
		return status(statusFailed)
	}
	var outputs []output
	for _, f := range files {
		outputs = append(outputs, output{f.Path, f.Text})
	}
	switch {
	case err != nil:
		return g.tell(err)
	case len(files) == 0:
		return fmt.Errorf("%s declares no message that is a type of its own with a name", strings.Join(patterns, " "))
	case len(files) > 1 && g.out != "":
		return fmt.Errorf("-o is for one package, and %d have messages: leave it out", len(files))
	}
	return g.putAll(outputs, "json "+strings.Join(patterns, " "))
}

// beside is the file of the code of the messages of the package in dir.
func (g *generator) beside(dir string) string {
	if g.out != "" {
		return g.out
	}
	out := filepath.Join(dir, "typedrpc_json.go")
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, out); err == nil {
			return rel
		}
	}
	return out
}
