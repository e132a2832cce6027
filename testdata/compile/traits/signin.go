package traits

import (
	"context"

	"github.com/typedrpc/typedrpc"
)

var signIn = typedrpc.NewSignIn[int, int](typedrpc.MaxSize(9), typedrpc.Alloc[int]())

var (
	_ = typedrpc.NewSignIn[int, int](typedrpc.Idempotent)  // want "does not implement typedrpc.Trait "
	_ = typedrpc.NewSignIn[int, int](typedrpc.Params("a")) // want "missing method signIn"
	_ = typedrpc.NewSignIn[int, int](typedrpc.Tag(1))      // want "missing method signIn"
	_ = typedrpc.NewSignIn[int, int](typedrpc.Timeout(1))  // want "does not implement typedrpc.Trait "
	_ = typedrpc.Server{SignIn: signIn.Present(nil)}       // want "cannot use"
	_ = typedrpc.DialOptions{SignIn: signIn.Verify(nil)}   // want "cannot use"
	_ = signIn.Name()                                      // want "signIn.Name undefined"
	_ = signIn.Verify(func(context.Context, int) error {}) // want "cannot use"
)

func asMethod(mux *typedrpc.Mux, c *typedrpc.Conn) {
	typedrpc.Handle(mux, signIn, nil)                 // want "SignIn"
	typedrpc.Call(context.Background(), c, signIn, 1) // want "SignIn"
}
