// Package cli is the command line of typedrpc: its commands, their flags, and with which
// status each ends. A command has a file of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
)

// Env is what a process gives its command. Values come on Out, one a line, and all else
// on Err.
type Env struct {
	Args   []string // without the program's name
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) string

	json          bool // errors are told as JSON
	errIsTerminal bool // a person reads Err

	about string // the command that was run, behind a space; "": none
}

// Process is the Env of this process.
func Process() *Env {
	return &Env{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
}

const long = `typedrpc calls servers, looks at what they have, measures and watches them; and it writes an
API that Go packages declare for others.

Requests are JSON: an argument, @file, or - for standard input. Values come on standard
output, each on a line, and all else on standard error. Flags may stand before and behind
arguments, and have one dash or two: -json is --json. A token is best kept in $TYPEDRPC_TOKEN
or a file.

Exit status: 0 it went well; 1 it did not; 2 the command line makes no sense; 64 and the
code of the error, as 69 NotFound, 76 Unimplemented, 78 Unavailable, 80 Unauthenticated, and
81 a code of the application's own; 32 more if the call may have run; 130 Ctrl-C; 141 nobody
reads the output.`

// Main runs the command that env's arguments name, until ctx ends, and returns the
// process's exit status. A process calls it once; tests may at the same time.
func Main(ctx context.Context, env *Env) int {
	env.errIsTerminal = isTerminal(env.Err)
	env.Err = &locked{w: env.Err}
	root := env.root()
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	completion(root)
	root.SetArgs(twoDashes(root, env.Args))
	cmd, err := root.ExecuteContextC(ctx)
	if cmd.Name() != "help" {
		env.about = strings.TrimPrefix(cmd.CommandPath(), root.Name())
	}
	return env.report(ctx, err)
}

// unknown is the error of a command that there is not.
func (env *Env) unknown(root *cobra.Command, name string) error {
	var names []string
	for _, cmd := range root.Commands() {
		names = append(names, cmd.Name())
	}
	if near := like(name, names); len(near) > 0 {
		return usagef("there is no command %q: did you mean %s?", name, strings.Join(near, ", or "))
	}
	return usagef("there is no command %q", name)
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

// Write writes p in one piece.
func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// quiet is env without what is told beside values.
func (env *Env) quiet() *Env {
	e := *env
	e.Err = io.Discard
	return &e
}

// root is the command with all others below it.
func (env *Env) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "typedrpc",
		Short: "typed RPC over WebSockets, at the command line",
		Long:  long,
		Example: `  typedrpc list localhost:8080/rpc
  typedrpc describe localhost:8080/rpc shop.price
  typedrpc call localhost:8080/rpc shop.price '"apples"'
  typedrpc ts ./api -o client.ts`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return env.unknown(cmd, args[0])
			}
			cmd.SetOut(env.Err)
			cmd.Help()
			return status(statusUsage)
		},
	}
	root.AddGroup(
		&cobra.Group{ID: groupLook, Title: "Look at a server:"},
		&cobra.Group{ID: groupCall, Title: "Talk to it:"},
		&cobra.Group{ID: groupGenerate, Title: "Write what Go packages declare:"},
	)
	root.AddCommand(
		env.listCommand(), env.describeCommand(), env.watchCommand(), env.benchCommand(),
		env.callCommand(), env.notifyCommand(), env.receiveCommand(), env.sendCommand(), env.openCommand(), env.subscribeCommand(),
		env.uploadCommand(), env.downloadCommand(),
		env.tsCommand(), env.schemaCommand(), env.jsonCommand(), env.breakingCommand(),
	)
	root.SetHelpCommand(env.helpCommand(root))
	return root
}

// completion adds the library's own command, which writes to root's output as it is now, and
// has it ask for a shell.
func completion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if cmd, _, err := root.Find([]string{"completion"}); err == nil {
		cmd.Example = "  source <(typedrpc completion bash)"
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = does(func(*cobra.Command, []string) error {
			return usagef("it is for a shell: typedrpc completion bash, zsh, fish or powershell")
		})
	}
}

// helpCommand says what a command does; of one that there is not, what may have been meant.
func (env *Env) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "say what a command does, with examples",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			for _, cmd := range root.Commands() {
				if len(args) == 0 && cmd.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(cmd.Name(), cmd.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: does(func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == root && len(rest) > 0 {
				return env.unknown(root, args[0])
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		}),
	}
}

// takes has a command refuse another number of arguments.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args); n < least || n > most {
			given := fmt.Sprintf("%d arguments are given", n)
			switch n {
			case 0:
				given = "none is given"
			case 1:
				given = "one is given"
			}
			return usagef("the arguments are %q, and %s", strings.TrimPrefix(cmd.Use, cmd.Name()+" "), given)
		}
		return nil
	}
}

// does is a command's RunE: what run returns is a failure unless it says that it is
// something else. All other errors that cobra returns are of command lines.
func does(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var u usage
		var s status
		switch {
		case err == nil || errors.As(err, &s):
			return err
		case errors.As(err, &u):
			return u // whatever became of the call that it was for
		}
		return failure{err}
	}
}
