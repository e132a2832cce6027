package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

func (env *Env) receiveCommand() *cobra.Command {
	r := &remote{Env: env}
	var most uint
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "receive url stream [request]", Short: "print the items of a server stream",
		Long: "typedrpc receive calls a server stream, and prints its items, one a line, as they come." + requestHelp,
		Example: `  typedrpc receive localhost:8080/rpc market.ticks '{"market":"fruit"}' | jq -c .prices
  typedrpc receive localhost:8080/rpc market.ticks '{"market":"fruit"}' -n 10`,
		Args: takes(2, 3), ValidArgsFunction: r.complete(serverStreams),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		req, err := env.params(args, 2)
		if err != nil {
			return err
		}
		return r.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			n := uint(0)
			for item, err := range typedrpc.Receive(ctx, c, typedrpc.NewServerStream[typedrpc.Raw, typedrpc.Raw](args[1]), req) {
				if err == nil {
					err = env.value(item)
				}
				if n == 0 && err == nil && r.codec == "json" {
					env.noteBytes(args[1], item)
				}
				if n++; err != nil || n == most {
					return err
				}
			}
			return nil
		})
	})
	cmd.Flags().UintVarP(&most, "count", "n", 0, "end after so `many` items; 0: when the stream does")
	r.flags(cmd, 0)
	r.metaFlag(cmd)
	return cmd
}

// source is where items come from.
type source struct {
	path  string
	lines bool
}

func (s *source) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.path, "items", "-", "`file` with the items, JSON values one after another; - is standard input")
	cmd.Flags().BoolVar(&s.lines, "lines", false, "each line is an item, a string")
}

// open returns a reader of the items. Standard input is not for two.
func (s *source) open(env *Env, args []string, request int) (io.ReadCloser, error) {
	if s.path != "-" {
		f, err := os.Open(s.path)
		if err != nil {
			return nil, usagef("-items: %w", err)
		}
		return f, nil
	}
	if len(args) > request && args[request] == "-" {
		return nil, usagef("request and items cannot both come from standard input: use -items, or @file")
	}
	return io.NopCloser(env.In), nil
}

func (env *Env) sendCommand() *cobra.Command {
	r := &remote{Env: env}
	var from source
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "send url stream [request]", Short: "send the items of a client stream",
		Long: `typedrpc send calls a client stream, sends it the JSON values of standard input, one after
another, or those of a file, and prints the response.` + requestHelp,
		Example: `  seq 1 100 | typedrpc send localhost:8080/rpc numbers.sum
  typedrpc send localhost:8080/rpc log.append '{"name":"today"}' -items today.jsonl`,
		Args: takes(2, 3), ValidArgsFunction: r.complete(clientStreams),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		in, err := from.open(env, args, 2)
		if err != nil {
			return err
		}
		defer in.Close()
		req, err := env.params(args, 2)
		if err != nil {
			return err
		}
		return r.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			s := typedrpc.NewClientStream[typedrpc.Raw, typedrpc.Raw, typedrpc.Raw](args[1])
			resp, err := typedrpc.SendAll(ctx, c, s, req, items(ctx, in, from.lines))
			if err != nil {
				return err
			}
			return env.value(resp)
		})
	})
	from.flags(cmd)
	r.flags(cmd, 0)
	r.metaFlag(cmd)
	return cmd
}

func (env *Env) openCommand() *cobra.Command {
	r := &remote{Env: env}
	var from source
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "open url stream [request]", Short: "a terminal for a bidirectional stream",
		Long: `typedrpc open calls a bidirectional stream. It sends the JSON values of standard input, one
after another, and prints the items that come. At the end of standard input, Ctrl-D at a
terminal, it says that it sends no more, and goes on until the other side ends as well.` + requestHelp,
		Example: `  typedrpc open localhost:8080/rpc chat.talk '"lobby"'
  typedrpc open localhost:8080/rpc chat.talk '"lobby"' -lines    each line is a string`,
		Args: takes(2, 3), ValidArgsFunction: r.complete(bidiStreams),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		in, err := from.open(env, args, 2)
		if err != nil {
			return err
		}
		defer in.Close()
		req, err := env.params(args, 2)
		if err != nil {
			return err
		}
		return r.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			if isTerminal(in) || from.path == "-" && isTerminal(env.In) {
				env.note("what you type is sent, as JSON; Ctrl-D ends your side, Ctrl-C all of it")
			}
			return env.converse(ctx, c, args[1], req, items(ctx, in, from.lines))
		})
	})
	from.flags(cmd)
	r.flags(cmd, 0)
	r.metaFlag(cmd)
	return cmd
}

// noteBytes tells what else has the items of a stream whose first one is bytes. On the wire
// a transfer is a stream as others are, that begins with a zero and up to two numbers.
func (env *Env) noteBytes(name string, first typedrpc.Raw) {
	isJSON := json.Valid(first)
	head := []byte(first)
	if isJSON && json.Unmarshal(first, &head) != nil {
		return
	}
	const longest = 1 + 2*8
	switch {
	case len(head) > 0 && len(head) <= longest && head[0] == 0:
		env.note("%s may be a download, and these its pieces: \"typedrpc download\" makes a file of them", name)
	case !isJSON:
		env.note("what is no JSON is printed in base64; -dialect text has items that are bytes so, each of them and to the byte")
	}
}

// isTerminal reports whether r is a person's.
func isTerminal(r any) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	about, err := f.Stat()
	if err != nil || about.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // which is no person
	return err != nil || !os.SameFile(about, null)
}

// converse sends items and prints those that come, until both sides have ended.
func (env *Env) converse(ctx context.Context, c typedrpc.Caller, name string, req typedrpc.Raw, up func(func(typedrpc.Raw, error) bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := typedrpc.Open(ctx, c, typedrpc.NewBidiStream[typedrpc.Raw, typedrpc.Raw, typedrpc.Raw](name), req)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { // ends with ctx, or with the items
		sent <- func() error {
			for item, err := range up {
				if err != nil {
					return err
				}
				if s.Send(item) != nil {
					return nil // Recv says why
				}
			}
			s.CloseSend()
			return nil
		}()
	}()
	received := make(chan error, 1)
	go func() { // ends with the stream
		for item, err := range s.All() {
			if err == nil {
				err = env.value(item)
			}
			if err != nil {
				received <- err
				return
			}
		}
		received <- nil
	}()
	select {
	case err = <-sent:
		var u usage
		if errors.As(err, &u) {
			s.Cancel()
			<-received
			return err
		}
		return <-received
	case err = <-received:
		return err
	}
}

func (env *Env) subscribeCommand() *cobra.Command {
	r := &remote{Env: env}
	var most uint
	var events, presence bool
	cmd := &cobra.Command{
		GroupID: groupCall, Use: "subscribe url topic key", Short: "print the messages of a topic",
		Long: `typedrpc subscribe subscribes to a key of a topic, and prints the messages, one a line, as
they come: first those that the topic remembers. It goes on when the session is lost, and
says so; messages may be missing then.`,
		Example: `  typedrpc subscribe localhost:8080/rpc market.trades fruit | jq -c '[.good, .price]'
  typedrpc subscribe localhost:8080/rpc chat.room lobby -presence`,
		Args: takes(3, 3), ValidArgsFunction: r.complete(topics),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		if r.codec != "json" {
			return usagef("keys of topics are JSON: -codec is json here")
		}
		return r.talk(cmd, args[0], args[1], func(ctx context.Context, c typedrpc.Caller) error {
			n := uint(0)
			return env.follow(ctx, c, args[1], args[2], events, presence, func() bool { n++; return n == most })
		})
	})
	cmd.Flags().UintVarP(&most, "count", "n", 0, "end after so `many` messages; 0: when the subscription does")
	cmd.Flags().BoolVar(&events, "events", false, "an object for each message: its value, how many were missed before it, and whether it is from before")
	cmd.Flags().BoolVar(&presence, "presence", false, "who subscribes, in lieu of the messages")
	r.flags(cmd, 0)
	return cmd
}

// event is topic.Event as it is printed, member topic.Member.
type (
	event struct {
		Value   outRaw `json:"value"`
		Missed  int    `json:"missed,omitempty"`
		History bool   `json:"history,omitempty"`
	}
	member struct {
		Subject string `json:"subject"`
		About   string `json:"about,omitempty"`
		Left    bool   `json:"left,omitempty"`
		Changed bool   `json:"changed,omitempty"`
		History bool   `json:"history,omitempty"`
	}
)

// outRaw is a value that is JSON already.
type outRaw []byte

// MarshalJSON returns the value as it is.
func (r outRaw) MarshalJSON() ([]byte, error) { return oneLine(r), nil }

// follow prints what a key of a topic brings, until enough says so.
func (env *Env) follow(ctx context.Context, c typedrpc.Caller, name, key string, events, presence bool, enough func() bool) error {
	t := topic.New[typedrpc.Raw](name, topic.Restartable, topic.WithPresence)
	gap := func(err error) bool {
		if errors.Is(err, typedrpc.Gap) {
			env.note("the session is lost, subscribing again: %v", err)
			return true
		}
		return false
	}
	if presence {
		for m, err := range topic.Watch(ctx, c, t, key) {
			switch {
			case err != nil && gap(err):
				continue
			case err == nil:
				err = env.object(member(m))
			}
			if err != nil || enough() {
				return err
			}
		}
		return nil
	}
	for e, err := range topic.Subscribe(ctx, c, t, key) {
		switch {
		case err != nil && gap(err):
			continue
		case err == nil && events:
			err = env.object(event{outRaw(e.Value), e.Missed, e.History})
		case err == nil:
			if e.Missed > 0 {
				env.note("%d messages were missed", e.Missed)
			}
			err = env.value(e.Value)
		}
		if err != nil || enough() {
			return err
		}
	}
	return nil
}
