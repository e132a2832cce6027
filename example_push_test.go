package typedrpc_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/typedrpc/typedrpc"
)

var (
	pushed    = typedrpc.NewNotification[string]("device.pushed")
	confirmed = typedrpc.NewMethod[string, bool]("device.confirm", typedrpc.Timeout(time.Minute))
	userName  = typedrpc.NewSignIn[string, struct{}]()
)

// Pushes to one user: all devices are told, and all are asked; the first answer counts.
// ConnsOf finds a user's connections to one server. Where there are several servers, or somebody
// who is away is to find what was said meanwhile, a topic with the user's name as its key
// does it: topic.Publish(ctx, &hub, Inbox, user, …).
func Example_push() {
	srv := &typedrpc.Server{SignIn: userName.Verify(
		func(_ context.Context, _ *http.Request, name *string) (typedrpc.Identity, struct{}, error) {
			return typedrpc.Identity{Subject: *name}, struct{}{}, nil // in earnest: look at a token
		},
	)}
	hs := httptest.NewServer(srv)
	defer hs.Close()
	ctx := context.Background()

	got := make(chan string, 2)
	device := func(user string, answer func(ctx context.Context) (bool, error)) *typedrpc.Conn {
		mux := typedrpc.NewMux() // what the server may call at the client
		typedrpc.Handle(mux, pushed, func(_ context.Context, text string) error { got <- user + ": " + text; return nil })
		typedrpc.Handle(mux, confirmed, func(ctx context.Context, _ string) (bool, error) { return answer(ctx) })
		conn, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{
			Mux:    mux,
			SignIn: userName.Present(func(context.Context) (string, error) { return user, nil }),
		})
		if err != nil {
			log.Fatal(err)
		}
		return conn
	}
	yes := func(context.Context) (bool, error) { return true, nil }
	nobodyThere := func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() }
	defer device("ann", yes).Close()         // a phone
	defer device("ann", nobodyThere).Close() // a laptop
	defer device("bob", yes).Close()

	// Tell all of ann's. The error joins those of the devices that could not be told.
	if err := typedrpc.Broadcast(ctx, srv.ConnsOf("ann"), pushed, "your parcel is here"); err != nil {
		log.Print(err)
	}
	fmt.Println(<-got)
	fmt.Println(<-got)

	// Ask all of ann's, and leave with the first answer: the other calls are cancelled.
	for _, f := range typedrpc.CallAll(ctx, srv.ConnsOf("ann"), confirmed, "Leave it at the door?") {
		if yes, err := f.Await(ctx); err == nil {
			fmt.Println(yes)
			break
		}
	}
	// Output:
	// ann: your parcel is here
	// ann: your parcel is here
	// true
}
