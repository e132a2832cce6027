package typedrpc_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/typedrpc/typedrpc"
)

// The declarations of two services say who may call what, as a Tag.
type accessRole string

const (
	anybody accessRole = "anybody"
	staff   accessRole = "staff"
)

var (
	StockCount = typedrpc.NewMethod[string, int]("stock.count", typedrpc.Idempotent, typedrpc.Tag(anybody))
	StockFill  = typedrpc.NewMethod[string, struct{}]("stock.fill", typedrpc.Tag(staff))
	StockTrail = typedrpc.NewServerStream[string, int]("stock.trail", typedrpc.Tag(staff))
	MailSend   = typedrpc.NewMethod[string, string]("mail.send") // without a Tag: nobody's

	gateSignIn = typedrpc.NewSignIn[string, struct{}]()
)

// gate is all that its clients see.
type gate struct {
	backends map[string]typedrpc.Caller // by what names begin with
	roles    map[string]accessRole      // by user
}

func (g *gate) server() *typedrpc.Server {
	// The last interceptor does not call next: what is declared here is answered by
	// a backend. So the handlers never run, and serve to say what there is.
	mux := typedrpc.NewMux(g.authorize, g.forward)
	typedrpc.Handle(mux, StockCount, notHere)
	typedrpc.Handle(mux, StockFill, notHere)
	typedrpc.Handle(mux, StockTrail, noItemsHere)
	typedrpc.Handle(mux, MailSend, notHere)
	// Without a fallback all other names are Unimplemented. With one they would come
	// to authorize, too, have no Tag, and be refused.
	return &typedrpc.Server{Mux: mux, SignIn: gateSignIn.Verify(
		func(_ context.Context, _ *http.Request, user *string) (typedrpc.Identity, struct{}, error) {
			return typedrpc.Identity{Subject: *user}, struct{}{}, nil // in earnest: look at a token
		},
	)}
}

func notHere[Req, Resp any](context.Context, Req) (none Resp, err error) {
	return none, typedrpc.Unimplemented
}

func noItemsHere[Req, Item any](context.Context, Req, func(Item) error) error {
	return typedrpc.Unimplemented
}

// authorize lets nobody in to what says nothing.
func (g *gate) authorize(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
	needed, ok := typedrpc.TagOf[accessRole](r)
	if !ok || needed != anybody && needed != g.roles[r.Conn.Identity().Subject] {
		return nil, typedrpc.Errorf(typedrpc.PermissionDenied, "%s is not for you", r.Method)
	}
	return next(ctx, r)
}

// forward hands a call, a notification or a stream on as bytes. The backend knows the
// gate and not its clients: what it is to know of them travels as metadata, which
// replaces what a client says by that name.
func (g *gate) forward(ctx context.Context, r *typedrpc.Request, _ typedrpc.RawHandler) (typedrpc.Raw, error) {
	name, _, _ := strings.Cut(r.Method, ".")
	backend := g.backends[name]
	if backend == nil {
		return nil, typedrpc.Errorf(typedrpc.Unavailable, "%s has no backend", r.Method)
	}
	r.Metadata.Set("user", r.Conn.Identity().Subject)
	return typedrpc.Forward(ctx, backend, r)
}

// newStock is one of the backends.
func newStock() *typedrpc.Server {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, StockCount, func(context.Context, string) (int, error) { return 3, nil })
	typedrpc.Handle(mux, StockFill, func(ctx context.Context, item string) (struct{}, error) {
		fmt.Println("stock:", typedrpc.RequestFrom(ctx).Metadata["user"], "fills up", item)
		return struct{}{}, nil
	})
	typedrpc.Handle(mux, StockTrail, func(_ context.Context, _ string, send func(int) error) error {
		if err := send(5); err != nil {
			return err
		}
		return send(3)
	})
	return &typedrpc.Server{Mux: mux}
}

// A gateway: one address, several backends, and who may do what decided in front of
// them, by what the declarations say.
func Example_gateway() {
	ctx := context.Background()
	dial := func(srv *typedrpc.Server, user string) (conn *typedrpc.Conn, stop func()) {
		hs := httptest.NewServer(srv)
		conn, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{
			SignIn: gateSignIn.Present(func(context.Context) (string, error) { return user, nil }),
		})
		if err != nil {
			log.Fatal(err)
		}
		return conn, func() { conn.Close(); hs.Close() }
	}
	stock, stopStock := dial(newStock(), "gate")
	defer stopStock()
	mail, stopMail := dial(&typedrpc.Server{}, "gate")
	defer stopMail()
	g := &gate{
		backends: map[string]typedrpc.Caller{"stock": stock, "mail": mail},
		roles:    map[string]accessRole{"ann": staff},
	}

	ann, stopAnn := dial(g.server(), "ann")
	defer stopAnn()
	fmt.Println(typedrpc.Call(ctx, ann, StockCount, "plums"))
	typedrpc.Call(ctx, ann.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"user": "the boss"}}), StockFill, "plums")
	for n, err := range typedrpc.Receive(ctx, ann, StockTrail, "plums") {
		fmt.Println(n, err)
	}
	_, err := typedrpc.Call(ctx, ann, MailSend, "hello")
	fmt.Println(err)

	bob, stopBob := dial(g.server(), "bob")
	defer stopBob()
	_, err = typedrpc.Call(ctx, bob, StockFill, "plums")
	fmt.Println(err)
	// Output:
	// 3 <nil>
	// stock: ann fills up plums
	// 5 <nil>
	// 3 <nil>
	// permission denied: mail.send is not for you
	// permission denied: stock.fill is not for you
}
