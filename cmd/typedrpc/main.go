// Command typedrpc writes an API that Go packages declare for others: as TypeScript, as
// JavaScript, and as a schema. For the packages themselves it writes the JSON of their
// messages as code.
//
//	typedrpc ts ./api -o client.ts
//	typedrpc ts ./api -o client.js
//	typedrpc schema ./api -o api.json
//	typedrpc json ./api
//
// "typedrpc help" says more, and README.md the rest.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/gojson"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/openrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/read"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/ts"
)

const help = `typedrpc writes an API that Go packages declare for others.

    typedrpc ts ./api -o client.ts         TypeScript for @typedrpc/client
    typedrpc ts ./api -o client.js         a module for pages without a build step, and
                                           its types in client.d.ts
    typedrpc schema ./api -o api.json      an OpenRPC document
    typedrpc json ./api                    methods AppendJSON and UnmarshalJSON of the
                                           messages, without reflection, in typedrpc_json.go

It finds every method, notification, stream, topic, transfer, fault and sign-in that
is the value of a variable of the packages. In a Go file:

    //go:generate go run github.com/typedrpc/typedrpc/cmd/typedrpc@latest ts . -o web/client.ts

Flags, before or after the packages:

`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// command is what a command line asks for.
type command struct {
	read    read.Options
	ts      ts.Options
	openrpc openrpc.Options
	gojson  gojson.Options
	out     string
	check   bool
	strict  bool
}

// run returns the exit status: 1 for an API that cannot be written as it is, or a
// file that is stale, 2 for a command line that makes no sense.
func run(args []string, stdout, stderr io.Writer) int {
	var c command
	flags := flag.NewFlagSet("typedrpc", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.out, "o", "", "`file` to write, JavaScript and a .d.ts beside it if its name ends in .js or .mjs; default: standard output, of json typedrpc_json.go in each package")
	dir := flags.String("C", "", "`directory` to change to before anything else")
	flags.BoolVar(&c.check, "check", false, "write nothing, and fail if the file of -o is not what would be written")
	flags.BoolVar(&c.strict, "strict", false, "fail where something is reported")
	flags.BoolVar(&c.read.NotNull, "notnull", false, "no slice and no map is ever nil: null is left out of their types")
	flags.BoolVar(&c.read.Safe, "safe", false, "no int64 and no uint64 is ever beyond 2^53: do not report them")
	flags.StringVar(&c.read.Tags, "tags", "", "build `tags`, separated by commas")
	flags.BoolVar(&c.gojson.Exact, "exact", false, "have the code of json refuse what encoding/json lets pass: unknown members, those that come twice or have the name in other case, and what is not Unicode")
	flags.StringVar(&c.ts.Import, "import", "@typedrpc/client", "where the output of ts imports the client from")
	flags.StringVar(&c.openrpc.Title, "title", "", "title of the schema; default: the names of the packages")
	flags.StringVar(&c.openrpc.Version, "version", "0.0.0", "version of the API in the schema")
	c.read.Types = map[string]string{}
	flags.Func("map", "`path.Type=T`: the Go type is T in TypeScript; may be given several times", func(s string) error {
		name, text, ok := strings.Cut(s, "=")
		if !ok || name == "" || text == "" {
			return fmt.Errorf("it has the form example.com/path.Type=string")
		}
		c.read.Types[name] = text
		return nil
	})
	flags.Usage = func() {
		fmt.Fprint(stderr, help)
		flags.PrintDefaults()
	}
	if len(args) == 0 {
		flags.Usage()
		return 2
	}
	name, args := args[0], args[1:]
	var patterns []string
	for {
		switch err := flags.Parse(args); {
		case err == flag.ErrHelp:
			return 0
		case err != nil:
			return 2
		}
		if flags.NArg() == 0 {
			break
		}
		patterns = append(patterns, flags.Arg(0))
		args = flags.Args()[1:]
	}
	var write func(*model.API) ([]output, error)
	switch name {
	case "ts":
		write = c.typescript
	case "schema":
		write = func(api *model.API) ([]output, error) {
			text, err := openrpc.Document(api, c.openrpc)
			return []output{{c.out, text}}, err
		}
	case "json":
	case "help", "-h", "-help", "--help":
		flags.Usage()
		return 0
	default:
		fmt.Fprintf(stderr, "typedrpc: there is no command %q; \"typedrpc help\" lists them\n", name)
		return 2
	}
	if len(patterns) == 0 {
		patterns = []string{"."}
	}
	if c.check && c.out == "" && name != "json" {
		fmt.Fprintln(stderr, "typedrpc: -check needs the file that it checks: -o file")
		return 2
	}
	if *dir != "" {
		if err := os.Chdir(*dir); err != nil {
			fmt.Fprintf(stderr, "typedrpc: -C: %v\n", err)
			return 2
		}
	}
	if name == "json" {
		return c.doJSON(patterns, stderr)
	}
	return c.do(name, write, patterns, stdout, stderr)
}

// An output is a file that is written, "" standard output.
type output struct{ path, text string }

// typescript writes a TypeScript file or, as the name of -o says, a module and its types.
func (c *command) typescript(api *model.API) ([]output, error) {
	ext := filepath.Ext(c.out)
	if ext != ".js" && ext != ".mjs" {
		text, err := ts.File(api, c.ts)
		return []output{{c.out, text}}, err
	}
	script, types, err := ts.Module(api, c.ts)
	beside := strings.TrimSuffix(c.out, ext) + ".d" + strings.Replace(ext, "js", "ts", 1)
	return []output{{c.out, script}, {beside, types}}, err
}

func (c *command) do(name string, write func(*model.API) ([]output, error), patterns []string, stdout, stderr io.Writer) int {
	api, problems, err := read.API(c.read, patterns...)
	if err != nil {
		fmt.Fprintf(stderr, "typedrpc: %v\n", err)
		return 1
	}
	if c.report(problems, stderr) {
		return 1
	}
	if len(api.Decls)+len(api.Faults)+len(api.SignIns) == 0 {
		fmt.Fprintf(stderr, "typedrpc: %s declares nothing\n", strings.Join(patterns, " "))
		return 1
	}
	outputs, err := write(api)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	if c.out == "" {
		fmt.Fprint(stdout, outputs[0].text)
		return 0
	}
	return c.putAll(outputs, name+" "+strings.Join(patterns, " "), stderr)
}

// doJSON writes the code of messages into their packages.
func (c *command) doJSON(patterns []string, stderr io.Writer) int {
	path := func(dir string) string {
		if c.out != "" {
			return c.out
		}
		out := filepath.Join(dir, "typedrpc_json.go")
		if here, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(here, out); err == nil {
				return rel
			}
		}
		return out
	}
	source, problems, err := read.Messages(c.read, path, patterns...)
	if err != nil {
		fmt.Fprintf(stderr, "typedrpc: %v\n", err)
		return 1
	}
	var files []gojson.File
	if !slices.ContainsFunc(problems, func(p read.Problem) bool { return p.Fatal }) {
		files, err = gojson.Files(source, c.gojson, path)
		problems = source.Problems()
	}
	if c.report(problems, stderr) {
		return 1
	}
	var outputs []output
	for _, f := range files {
		outputs = append(outputs, output{f.Path, f.Text})
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, err)
		return 1
	case len(files) == 0:
		fmt.Fprintf(stderr, "typedrpc: %s declares no message that is a type of its own with a name\n", strings.Join(patterns, " "))
		return 1
	case len(files) > 1 && c.out != "":
		fmt.Fprintf(stderr, "typedrpc: -o is for one package, and %d have messages: leave it out\n", len(files))
		return 1
	}
	return c.putAll(outputs, "json "+strings.Join(patterns, " "), stderr)
}

// report says what is wrong, and whether that leaves no output.
func (c *command) report(problems []read.Problem, stderr io.Writer) (fatal bool) {
	for _, p := range problems {
		fmt.Fprintln(stderr, p)
		fatal = fatal || p.Fatal || c.strict
	}
	return fatal
}

// putAll puts all files, and returns the exit status.
func (c *command) putAll(outputs []output, what string, stderr io.Writer) (status int) {
	for _, o := range outputs {
		if err := c.put(o, what); err != nil {
			fmt.Fprintln(stderr, err)
			status = 1
		}
	}
	return status
}

// put writes a file that is not as it should be, or says so; what is how it is made.
func (c *command) put(o output, what string) error {
	there, err := os.ReadFile(o.path)
	switch {
	case err == nil && string(there) == o.text:
		return nil
	case c.check && err != nil:
		return fmt.Errorf("typedrpc: %w; run \"typedrpc %s\" without -check", err, what)
	case c.check:
		return fmt.Errorf("%s:%d: stale: it is not what the packages declare any more; run \"typedrpc %s\" again without -check", o.path, firstDifference(string(there), o.text), what)
	}
	if err := os.WriteFile(o.path, []byte(o.text), 0o644); err != nil {
		return fmt.Errorf("typedrpc: %w", err)
	}
	return nil
}

// firstDifference is the first line in which two texts differ.
func firstDifference(a, b string) int {
	line := 1
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			break
		}
		if a[i] == '\n' {
			line++
		}
	}
	return line
}
