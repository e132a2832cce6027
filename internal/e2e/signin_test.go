package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// maybe has null and "" among its values.
var maybe = typedrpc.NewSignIn[*string, *string]()

// guest lets everybody in as what they sent, and says it back.
func guest(opts ...func(*typedrpc.Server)) *typedrpc.Server {
	srv := &typedrpc.Server{Mux: whoamiSubject(), SignIn: maybe.Verify(func(_ context.Context, _ *http.Request, creds **string) (typedrpc.Identity, *string, error) {
		switch {
		case creds == nil:
			return typedrpc.Identity{Subject: "nothing"}, nil, nil
		case *creds == nil:
			return typedrpc.Identity{Subject: "null"}, nil, nil
		}
		return typedrpc.Identity{Subject: fmt.Sprintf("%q", **creds)}, *creds, nil
	})}
	for _, o := range opts {
		o(srv)
	}
	return srv
}

func whoamiSubject() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, _ string) (string, error) {
		return typedrpc.ConnFrom(ctx).Identity().Subject, nil
	})
	return mux
}

func presents(s *string) typedrpc.Presenter {
	return maybe.Present(func(context.Context) (*string, error) { return s, nil })
}

// TestSignIn_absent tells what was not sent from what is empty.
func TestSignIn_absent(t *testing.T) {
	empty := ""
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		for want, p := range map[string]typedrpc.Presenter{"nothing": {}, "null": presents(nil), `""`: presents(&empty)} {
			if o.Plain() {
				want, p = "nothing", typedrpc.Presenter{} // it has no place for them
			}
			client, _ := o.Connect(t, guest(), &typedrpc.DialOptions{SignIn: p})
			got, err := typedrpc.Call(t.Context(), client, lab.Shout, "")
			is.NoErr(err)
			is.Equal(got, want)
			reply, err := maybe.Reply(client)
			if o.Plain() {
				is.True(errors.Is(err, typedrpc.FailedPrecondition))
				continue
			}
			is.NoErr(err) // null is a reply too
			is.Equal(reply == nil, want != `""`)
		}
	})
}

func TestSignIn_absentPost(t *testing.T) {
	is := is.New(t)
	_, text := post(t, serve(t, guest()), `{"jsonrpc":"2.0","method":"text.shout","params":["x"],"id":1}`)
	is.Equal(text, `{"jsonrpc":"2.0","id":1,"result":"nothing"}`)
}

// What a codec encodes as no bytes at all is sent, and is a value.
func TestSignIn_emptyBytes(t *testing.T) {
	is := is.New(t)
	hush := typedrpc.NewSignIn[silent, silent]()
	srv := &typedrpc.Server{Codecs: []typedrpc.Codec{hushed{}}, SignIn: hush.Verify(func(_ context.Context, _ *http.Request, creds *silent) (typedrpc.Identity, silent, error) {
		return typedrpc.Identity{Subject: fmt.Sprint(creds != nil)}, silent{}, nil
	})}
	p := hush.Present(func(context.Context) (silent, error) { return silent{}, nil })
	client, server := lab.Over{}.Connect(t, srv, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{hushed{}}, SignIn: p})
	is.Equal(server.Identity().Subject, "true")
	_, err := hush.Reply(client)
	is.NoErr(err)
}

// silent is nothing to hushed, whose every message has no bytes.
type (
	silent struct{}
	hushed struct{}
)

func (hushed) Name() string                             { return "hushed" }
func (hushed) Check(any) error                          { return nil }
func (hushed) Append(dst []byte, _ any) ([]byte, error) { return nil, nil }
func (hushed) Decode([]byte, any) error                 { return nil }

// AUTH tells them apart as HELLO does.
func TestSignIn_absentOnALiveLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for auth, refused := range map[string]bool{`{}`: false, `{"credentials":null}`: true, `{"credentials":""}`: true} {
			p, err := testkit.Join(guest(), testkit.BinaryProtocol)
			is.NoErr(err)
			h := testkit.HelloOf(1)
			h.Features = testkit.EveryFeature
			is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
			_, err = p.Until(wire.Welcome)
			is.NoErr(err)
			is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: []byte(auth)}))
			f, err := p.Until(wire.AuthOK)
			is.NoErr(err)
			is.Equal(strings.Contains(string(f.Payload), "another subject"), refused) // than "nothing"
			p.T.Kill()
		}
	})
}

// A function that forgets to look lets nobody in.
func TestSignIn_forgotten(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		srv := guest(func(s *typedrpc.Server) {
			s.Logger = log.Logger()
			s.SignIn = lab.Sign.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, int, error) {
				return typedrpc.Identity{Subject: *who}, 1, nil
			})
		})
		_, err := o.Dial(t, srv, &typedrpc.DialOptions{})
		is.True(errors.Is(err, typedrpc.Unauthenticated))
		is.True(strings.Contains(log.Text(), "nil pointer"))
		is.True(!strings.Contains(err.Error(), "nil pointer"))
	})
}

// MaxSize holds for both sides, and both messages.
func TestSignIn_maxSize(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		small, large := typedrpc.NewSignIn[string, string](typedrpc.MaxSize(8)), typedrpc.NewSignIn[string, string]()
		verify := func(s typedrpc.SignIn[string, string], reply string) *typedrpc.Server {
			return &typedrpc.Server{Logger: slog.New(slog.DiscardHandler), SignIn: s.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, string, error) {
				return typedrpc.Identity{}, reply, nil
			})}
		}
		present := func(s typedrpc.SignIn[string, string], creds string) *typedrpc.DialOptions {
			return &typedrpc.DialOptions{SignIn: s.Present(func(context.Context) (string, error) { return creds, nil })}
		}
		c, err := o.Dial(t, verify(small, ""), present(small, "12345"))
		is.NoErr(err)
		c.Close()
		_, err = o.Dial(t, verify(small, ""), present(large, "a larger one"))
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		_, err = o.Dial(t, verify(large, ""), present(small, "a larger one"))
		is.True(err != nil && strings.Contains(err.Error(), "at most 8"))
		_, err = o.Dial(t, verify(small, "a larger one"), present(large, "a"))
		is.True(errors.Is(err, typedrpc.Unauthenticated))
		c, err = o.Dial(t, verify(large, "a larger one"), present(large, "a"))
		is.NoErr(err)
		defer c.Close()
		_, err = small.Reply(c)
		is.True(errors.Is(err, typedrpc.Internal))
	})
}

func TestSignIn_zeroAndNil(t *testing.T) {
	is := is.New(t)
	var zero typedrpc.SignIn[string, string]
	srv := &typedrpc.Server{SignIn: zero.Verify(func(_ context.Context, _ *http.Request, s *string) (typedrpc.Identity, string, error) {
		return typedrpc.Identity{Subject: *s}, "hello", nil
	})}
	c, _ := lab.Over{}.Connect(t, srv, &typedrpc.DialOptions{SignIn: zero.Present(func(context.Context) (string, error) { return "ann", nil })})
	reply, err := zero.Reply(c)
	is.NoErr(err)
	is.Equal(reply, "hello")
	_, err = zero.Reply(nil)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	for want, f := range map[string]func(){
		"typedrpc: SignIn.Verify: the function is nil":  func() { zero.Verify(nil) },
		"typedrpc: SignIn.Present: the function is nil": func() { zero.Present(nil) },
		"typedrpc: the sign-in has a nil trait":         func() { typedrpc.NewSignIn[int, int](nil) },
	} {
		func() {
			defer func() { is.Equal(recover(), want) }()
			f()
		}()
	}
}

// A codec that cannot carry the types is found when the program starts.
func TestSignIn_types(t *testing.T) {
	is := is.New(t)
	bad := typedrpc.NewSignIn[func(), string]()
	srv := &typedrpc.Server{SignIn: bad.Verify(func(context.Context, *http.Request, *func()) (typedrpc.Identity, string, error) {
		return typedrpc.Identity{}, "", nil
	})}
	is.True(strings.Contains(fmt.Sprint(srv.Check()), "of the sign-in"))
	_, err := typedrpc.Dial(t.Context(), "ws://nowhere", &typedrpc.DialOptions{SignIn: bad.Present(func(context.Context) (func(), error) { return nil, nil })})
	is.True(errors.Is(err, typedrpc.InvalidArgument))
}
