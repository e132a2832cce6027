package topic_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

type Message struct{ From, Text string }

// Chat is declared in a package that server and clients import.
var Chat = topic.New[Message]("chat", topic.History(100, 0), topic.WithPresence)

// A room with a history: whoever comes late reads what was said before.
func Example() {
	var hub topic.Hub
	defer hub.Close()
	mux := typedrpc.NewMux()
	topic.Handle(mux, &hub, Chat, func(ctx context.Context, a topic.Access) error {
		if a.Key != "lobby" {
			return typedrpc.Errorf(typedrpc.PermissionDenied, "the room %q is private", a.Key)
		}
		return nil
	})
	conn, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	ctx := context.Background()
	topic.Publish(ctx, &hub, Chat, "lobby", Message{"ann", "is anybody here?"})
	for e, err := range topic.Subscribe(ctx, conn, Chat, "lobby") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Value.From, "says:", e.Value.Text, e.History)
		if !e.History {
			break
		}
		topic.Publish(ctx, &hub, Chat, "lobby", Message{"bob", "yes"})
	}
	for _, err := range topic.Subscribe(ctx, conn, Chat, "office") {
		fmt.Println(err)
	}
	// Output:
	// ann says: is anybody here? true
	// bob says: yes false
	// permission denied: the room "office" is private
}

// A client that is gone for a while goes on by itself. After the gap the history comes
// again, and what is new since then. Here sessions end with their links.
func Example_restartable() {
	chat := topic.New[Message]("chat", topic.History(100, 0), topic.Restartable)
	var hub topic.Hub
	defer hub.Close()
	mux := typedrpc.NewMux()
	topic.Handle(mux, &hub, chat, topic.Everybody)
	conn, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Limits: typedrpc.Limits{Grace: -1}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	ctx := context.Background()
	topic.Publish(ctx, &hub, chat, "lobby", Message{"ann", "hello"})
	for e, err := range topic.Subscribe(ctx, conn, chat, "lobby") {
		if errors.Is(err, typedrpc.Gap) {
			fmt.Println("gap")
			topic.Publish(ctx, &hub, chat, "lobby", Message{"bob", "where are you?"})
			continue
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Value.From, "says:", e.Value.Text, e.Missed)
		if e.Value.From == "bob" {
			break
		}
		if e.Missed == 0 {
			conn.Reconnect() // as if the network had failed
		}
	}
	// Output:
	// ann says: hello 0
	// gap
	// ann says: hello -1
	// bob says: where are you? 0
}

// Who is there, and who comes and goes. The server can end what somebody has.
func ExampleWatch() {
	var hub topic.Hub
	defer hub.Close()
	mux := typedrpc.NewMux()
	topic.Handle(mux, &hub, Chat, topic.Everybody)
	login := typedrpc.NewSignIn[string, struct{}]()
	srv := &typedrpc.Server{Mux: mux, SignIn: login.Verify(trustEverybody)}

	ctx := context.Background()
	dial := func(name string) *typedrpc.Conn {
		conn, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{
			SignIn: login.Present(func(context.Context) (string, error) { return name, nil }),
		})
		if err != nil {
			panic(err)
		}
		return conn
	}
	ann, bob := dial("ann"), dial("bob")
	defer ann.Close()
	defer bob.Close()
	removed := make(chan error, 1)
	go func() {
		for _, err := range topic.Subscribe(ctx, bob, Chat, "lobby") {
			removed <- err
		}
	}()
	for m, err := range topic.Watch(ctx, ann, Chat, "lobby") {
		if err != nil {
			fmt.Println(err)
			return
		}
		if m.Left {
			fmt.Println(m.Subject, "left:", <-removed)
			return
		}
		fmt.Println(m.Subject, "is here")
		topic.Remove(&hub, Chat, "lobby", "bob", typedrpc.Errorf(typedrpc.PermissionDenied, "mind your language"))
	}
	// Output:
	// bob is here
	// bob left: permission denied: mind your language
}

func trustEverybody(_ context.Context, _ *http.Request, name *string) (typedrpc.Identity, struct{}, error) {
	return typedrpc.Identity{Subject: *name}, struct{}{}, nil
}

// A bot of the server's process hears what is published, without a connection.
func ExampleListen() {
	var hub topic.Hub
	defer hub.Close()
	ctx := context.Background()
	topic.Publish(ctx, &hub, Chat, "lobby", Message{"ann", "what time is it?"})
	for e, err := range topic.Listen(ctx, &hub, Chat, "lobby") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Value.From, "says:", e.Value.Text)
		if e.Value.From == "bot" {
			break
		}
		topic.Publish(ctx, &hub, Chat, "lobby", Message{"bot", "late"})
	}
	// Output:
	// ann says: what time is it?
	// bot says: late
}
