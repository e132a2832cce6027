// Package cli is the command line of typedrpc: its commands, their flags, and with which
// status each ends. A command has a file of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
}

// Process is the Env of this process.
func Process() *Env { return &Env{os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv} }

// The statuses with which a command ends beside those of errors of calls.
const (
	statusFailed = 1 // what was asked for did not work, or is stale
	statusUsage  = 2 // the command line makes no sense
)

// status is an error of a command that has told all that there is to tell.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usage is an error of a command line that makes no sense.
type usage struct{ error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

const long = `typedrpc writes an API that Go packages declare for others, as TypeScript, as JavaScript
and as an OpenRPC document, and for the packages themselves the JSON of their messages.

Flags may stand before and behind arguments, and have one dash or two: -strict is
--strict.`

// Main runs the command that env's arguments name, until ctx ends, and returns the
// process's exit status. A process calls it once; tests may at the same time.
func Main(ctx context.Context, env *Env) int {
	root := env.root()
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	root.SetArgs(twoDashes(root, env.Args))
	return env.report(root.ExecuteContext(ctx))
}

// root is the command with all others below it.
func (env *Env) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "typedrpc",
		Short:         "typed RPC over WebSockets, at the command line",
		Long:          long,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SetOut(env.Err)
			cmd.Help()
			return status(statusUsage)
		},
	}
	root.AddGroup(&cobra.Group{ID: groupGenerate, Title: "Write what Go packages declare:"})
	root.AddCommand(env.tsCommand(), env.schemaCommand(), env.jsonCommand())
	return root
}

// report tells an error, and returns the status that stands for it.
func (env *Env) report(err error) int {
	var said status
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &said):
		return int(said)
	case errors.As(err, &failed):
		fmt.Fprintf(env.Err, "typedrpc: %v\n", failed.error)
		return statusFailed
	}
	fmt.Fprintf(env.Err, "typedrpc: %v; \"typedrpc help\" says more\n", err)
	return statusUsage
}

// failure is an error of a command whose line made sense.
type failure struct{ error }

// Unwrap returns what the failure is.
func (f failure) Unwrap() error { return f.error }

// does is a command's RunE: what run returns is a failure unless it says that it is
// something else. All other errors that cobra returns are of command lines.
func does(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var u usage
		var s status
		if err == nil || errors.As(err, &u) || errors.As(err, &s) {
			return err
		}
		return failure{err}
	}
}
