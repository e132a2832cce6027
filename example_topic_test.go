package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/typedrpc/typedrpc"
)

type message struct{ From, Text string }

// chat is declared in a package that server and clients import.
var chat = typedrpc.NewTopic[message]("chat", typedrpc.History(100, 0))

// A room with a history: whoever comes late reads what was said before.
func ExampleTopic() {
	hub := typedrpc.NewHub(nil)
	defer hub.Close()
	mux := typedrpc.NewMux()
	typedrpc.HandleTopic(mux, hub, chat, func(ctx context.Context, room string) error {
		if room != "lobby" {
			return typedrpc.Errorf(typedrpc.PermissionDenied, "the room %q is private", room)
		}
		return nil
	})
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux})
	defer hs.Close()

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, hs.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	typedrpc.Publish(ctx, hub, chat, "lobby", message{"ann", "is anybody here?"})
	for e, err := range typedrpc.Subscribe(ctx, conn, chat, "lobby") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Value.From, "says:", e.Value.Text, e.History)
		if !e.History {
			break
		}
		typedrpc.Publish(ctx, hub, chat, "lobby", message{"bob", "yes"})
	}
	for _, err := range typedrpc.Subscribe(ctx, conn, chat, "office") {
		fmt.Println(err)
	}
	// Output:
	// ann says: is anybody here? true
	// bob says: yes false
	// permission denied: the room "office" is private
}

// After a gap the history comes again, and what is new since then. Here sessions
// end with their links.
func ExampleTopic_Restartable() {
	hub := typedrpc.NewHub(nil)
	defer hub.Close()
	mux := typedrpc.NewMux()
	typedrpc.HandleTopic(mux, hub, chat, nil)
	conn, stop := exampleConnect(mux, &typedrpc.DialOptions{Limits: typedrpc.Limits{Grace: -1}})
	defer stop()

	ctx := context.Background()
	typedrpc.Publish(ctx, hub, chat, "lobby", message{"ann", "hello"})
	for e, err := range typedrpc.Subscribe(ctx, conn, chat.Restartable(), "lobby") {
		if errors.Is(err, typedrpc.Gap) {
			fmt.Println("gap")
			typedrpc.Publish(ctx, hub, chat, "lobby", message{"bob", "where are you?"})
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

func ExamplePresence() {
	hub := typedrpc.NewHub(nil)
	defer hub.Close()
	mux := typedrpc.NewMux()
	typedrpc.HandleTopic(mux, hub, chat, nil)
	login := typedrpc.NewMethod[string, typedrpc.Empty]("login")
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux, Authenticate: typedrpc.Authenticate(login, trustEverybody)})
	defer hs.Close()

	ctx := context.Background()
	dial := func(name string) *typedrpc.Conn {
		conn, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{
			Auth: typedrpc.Credentials(login, func(context.Context) (string, error) { return name, nil }),
		})
		if err != nil {
			panic(err)
		}
		return conn
	}
	ann, bob := dial("ann"), dial("bob")
	defer ann.Close()
	go func() {
		for range typedrpc.Subscribe(ctx, bob, chat, "lobby") {
		}
	}()
	for m, err := range typedrpc.Presence(ctx, ann, chat, "lobby") {
		switch {
		case err != nil:
			fmt.Println(err)
			return
		case m.Left:
			fmt.Println(m.Subject, "left")
			return
		}
		fmt.Println(m.Subject, "is here")
		bob.Close()
	}
	// Output:
	// bob is here
	// bob left
}

func trustEverybody(_ context.Context, _ *http.Request, name string) (typedrpc.Identity, typedrpc.Empty, error) {
	return typedrpc.Identity{Subject: name}, typedrpc.Empty{}, nil
}
