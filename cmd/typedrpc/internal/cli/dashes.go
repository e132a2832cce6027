package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// twoDashes are args with the flags as the library wants them: -strict is --strict, as Go's
// own tools have it. So single letters cannot be joined: -ox is the flag "ox", which is
// none. A flag's value, and what comes behind "--", stays as it is. A negative number is an
// argument, and comes behind "--" with those that follow it.
func twoDashes(root *cobra.Command, args []string) []string {
	cmd := root
	out := make([]string, 0, len(args))
	var late []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return append(append(append(out, "--"), late...), args[i+1:]...)
		case late != nil && (len(arg) < 2 || arg[0] != '-'), len(arg) > 1 && arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9':
			late = append(late, arg)
			continue
		case len(arg) < 2 || arg[0] != '-': // "-" is standard input
			if sub, _, err := root.Find(append(pathOf(cmd), arg)); err == nil {
				cmd = sub
			}
			out = append(out, arg)
			continue
		}
		name, _, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if len(name) > 1 {
			arg = "--" + strings.TrimLeft(arg, "-")
		}
		out = append(out, arg)
		if f := flagOf(cmd, name); f != nil && f.NoOptDefVal == "" && !given && i+1 < len(args) {
			i++
			out = append(out, args[i]) // its value, whatever that begins with
		}
	}
	if late != nil {
		out = append(append(out, "--"), late...)
	}
	return out
}

// pathOf are the names that lead from the root to cmd.
func pathOf(cmd *cobra.Command) []string {
	if !cmd.HasParent() {
		return nil
	}
	return append(pathOf(cmd.Parent()), cmd.Name())
}

// flagOf is cmd's flag of that name, which may be the short one; nil: there is none.
func flagOf(cmd *cobra.Command, name string) *pflag.Flag {
	cmd.InitDefaultHelpFlag()
	if len(name) == 1 {
		return cmd.Flags().ShorthandLookup(name)
	}
	return cmd.Flags().Lookup(name)
}
