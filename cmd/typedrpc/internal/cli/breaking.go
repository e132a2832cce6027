package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/breaking"
)

func (env *Env) breakingCommand() *cobra.Command {
	var o breaking.Options
	cmd := &cobra.Command{
		GroupID: groupGenerate, Use: "breaking old.json new.json", Short: "whether what changed between two schemas breaks anybody",
		Long: `typedrpc breaking compares two documents that "typedrpc schema" has written, and says what
the difference does to clients of the old one at servers of the new one, and the other way
round, and what to do. It ends with status 1 if something breaks, with 0 if nothing does,
and with 2 where the files are no such documents.`,
		Example: `  git show main:api.json > old.json && typedrpc breaking old.json api.json
  typedrpc breaking old.json api.json -for old-clients     servers are always updated first`,
		Args: takes(2, 2),
	}
	cmd.Flags().StringVar(&o.For, "for", "both", "`side` that is looked at: old-clients, new-clients or both")
	cmd.Flags().BoolVar(&o.JSON, "json", false, "write JSON")
	cmd.RunE = does(func(_ *cobra.Command, args []string) error {
		o.Old, o.New = args[0], args[1]
		if err := o.Check(); err != nil {
			return usage{err}
		}
		breaks, err := breaking.Run(o, env.Out)
		if bad := new(breaking.InputError); errors.As(err, &bad) {
			return usage{bad}
		}
		if err == nil && breaks {
			return status(statusFailed)
		}
		return err
	})
	return cmd
}
