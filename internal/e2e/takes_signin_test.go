package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// scribble writes JSON of its own, which may be none.
type scribble struct{ Text string }

func (s scribble) AppendJSON(dst []byte) ([]byte, error) { return append(dst, s.Text...), nil }
func (*scribble) UnmarshalJSON([]byte) error             { return nil }

// What no handshake has room for, or cannot be read in one, is an error of the sign-in, and
// never a broken message: that would keep the client away for good, or have it come again for
// ever, and end a live connection.
func TestTakes_oddSignIn(t *testing.T) {
	nests := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	const large = 100 << 10
	for _, x := range []struct {
		what, text         string
		hello, auth, reply typedrpc.Code // of credentials in a HELLO, on a live link, and of replies; over Text where they differ
		shallow            typedrpc.Code // instead of OK, over Text
	}{
		{"deep", nests(100), typedrpc.OK, typedrpc.OK, typedrpc.OK, typedrpc.InvalidArgument},
		{"no JSON", "{]", typedrpc.Unauthenticated, typedrpc.Unauthenticated, typedrpc.Unauthenticated, typedrpc.OK},
		{"too deep", nests(12_000), typedrpc.Unauthenticated, typedrpc.Unauthenticated, typedrpc.Unauthenticated, typedrpc.OK},
		{"large", `"` + strings.Repeat("x", large) + `"`, typedrpc.InvalidArgument, typedrpc.InvalidArgument, typedrpc.Internal, typedrpc.OK},
	} {
		t.Run(x.what, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				signIn := typedrpc.NewSignIn[scribble, scribble]()
				fault := typedrpc.NewFault[scribble]("odd", typedrpc.AlreadyExists)
				fine := scribble{"[]"}
				creds, reply, refuses := fine, fine, error(nil)
				srv := lab.New().Server
				srv.SignIn = signIn.Verify(func(context.Context, *http.Request, *scribble) (typedrpc.Identity, scribble, error) {
					return typedrpc.Identity{}, reply, refuses
				})
				w := &lab.Town{Srv: srv}
				o := &typedrpc.DialOptions{Dialect: d, SignIn: signIn.Present(func(context.Context) (scribble, error) { return creds, nil })}
				c := w.Dial(t, o)
				defer c.Close()
				begin := func() error {
					other, err := w.TryDial(t.Context(), o)
					if err == nil {
						other.Close()
					}
					return err
				}
				told := func(err error, want, text typedrpc.Code) {
					t.Helper()
					if d == typedrpc.Text && x.shallow != typedrpc.OK {
						want = text
					}
					is.Equal(typedrpc.CodeOf(err), want)
					_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
					is.NoErr(err) // nothing of it has ended the connection
				}
				creds = scribble{x.text}
				told(begin(), x.hello, x.shallow)
				told(c.Reauthenticate(t.Context()), x.auth, x.shallow)
				creds, reply = fine, scribble{x.text}
				told(begin(), x.reply, typedrpc.Internal)
				if len(x.text) != large+2 { // which an answer on a live link has room for
					told(c.Reauthenticate(t.Context()), x.reply, typedrpc.Internal)
				}
				for _, refuses = range []error{
					fault.Errorf(scribble{x.text}, "no"),
					&typedrpc.Error{Code: typedrpc.AlreadyExists, Message: "no", Data: typedrpc.Raw(x.text)},
				} {
					for _, err := range []error{begin(), c.Reauthenticate(t.Context())} {
						told(err, typedrpc.AlreadyExists, typedrpc.AlreadyExists)
						is.True(strings.Contains(fmt.Sprint(err), "no"))
					}
				}
			})
		})
	}
}

// A client whose new credentials do not fit is told so when it comes back, and goes on when
// they do.
func TestTakes_largeCredentialsAtReturn(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		signIn := typedrpc.NewSignIn[string, struct{}]()
		srv := lab.New().Server
		srv.SignIn = signIn.Verify(func(context.Context, *http.Request, *string) (id typedrpc.Identity, n struct{}, err error) {
			return
		})
		w := &lab.Town{Srv: srv}
		changes := make(chan typedrpc.StateChange, 100)
		asked := 0
		c := w.Dial(t, &typedrpc.DialOptions{
			Dialect: d, OnState: func(s typedrpc.StateChange) { changes <- s },
			SignIn: signIn.Present(func(context.Context) (string, error) {
				if asked++; asked == 2 {
					return strings.Repeat("x", 100<<10), nil
				}
				return "ada", nil
			}),
		})
		defer c.Close()
		w.Lines[0].Cut()
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		said := false
		for len(changes) > 0 {
			s := <-changes
			said = said || typedrpc.CodeOf(s.Err) == typedrpc.InvalidArgument && strings.Contains(s.Err.Error(), "102402 bytes")
		}
		is.True(said)
	})
}
