package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

const requestHelp = `

The request is JSON: an argument, @file, or - for standard input; without one it is null,
which is no request. `

func (env *Env) callCommand() *cobra.Command {
	r := &remote{Env: env}
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "call url method [request]", Short: "call a method, and print its response",
		Long: "typedrpc call calls a method, and prints its response on one line." + requestHelp,
		Example: `  typedrpc call localhost:8080/rpc shop.price '"apples"'
  typedrpc call wss://example.com/rpc shop.buy '{"item":"apples","count":3}' -token @token.txt
  jq '{item: .name, count: 1}' wish.json | typedrpc call localhost:8080/rpc shop.buy - | jq .`,
		Args: takes(2, 3), ValidArgsFunction: r.complete(methods),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		req, err := env.params(args, 2)
		if err != nil {
			return err
		}
		return r.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			resp, err := typedrpc.Call(ctx, c, typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw](args[1]), req)
			if err != nil {
				return err
			}
			return env.value(resp)
		})
	})
	r.flags(cmd, soon)
	r.metaFlag(cmd)
	return cmd
}

func (env *Env) notifyCommand() *cobra.Command {
	r := &remote{Env: env}
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "notify url notification [message]", Short: "send a notification, which has no answer",
		Long: `typedrpc notify sends a notification, and waits until the server has it. Nobody answers, so
where the server tells its names a name that it has not is an error before anything is sent.` + requestHelp,
		Example: `  typedrpc notify localhost:8080/rpc shop.viewed '"apples"'`,
		Args:    takes(2, 3), ValidArgsFunction: r.complete(notifications),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		req, err := env.params(args, 2)
		if err != nil {
			return err
		}
		return r.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			n := typedrpc.NewNotification[typedrpc.Raw](args[1])
			if doc, err := r.document(ctx, c); err == nil {
				if m, _ := doc.find(args[1]); m == nil || m.X.Kind != model.Notification {
					e := typedrpc.Errorf(typedrpc.Unimplemented, "there is no notification %q", args[1])
					e.Outcome = typedrpc.NotSent
					return e
				}
			}
			return typedrpc.Notify(ctx, c, n, req)
		})
	})
	r.flags(cmd, soon)
	r.metaFlag(cmd)
	return cmd
}
