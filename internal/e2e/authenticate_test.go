package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// The login of the authentication tests.
type (
	login struct{ User, Password string }
	grant struct{ Greeting string }
)

var signIn = typedrpc.NewSignIn[login, grant]()

var banned = typedrpc.NewFault[lab.Shortage]("banned", typedrpc.PermissionDenied)

type userKey struct{}

// signedIn authenticates by password, or by a header.
func signedIn() typedrpc.Verifier {
	return signIn.Verify(func(ctx context.Context, r *http.Request, l *login) (typedrpc.Identity, grant, error) {
		user := lab.Or(l).User
		if h := r.Header.Get("X-User"); h != "" {
			user = h
		}
		switch user {
		case "":
			return typedrpc.Identity{}, grant{}, typedrpc.Errorf(typedrpc.Unauthenticated, "who are you?")
		case "banned":
			return typedrpc.Identity{}, grant{}, banned.Errorf(lab.Shortage{Hint: "rules"}, "%s is banned", user)
		case "busy":
			return typedrpc.Identity{}, grant{}, &typedrpc.Error{Code: typedrpc.Unavailable, Message: "later", RetryAfter: time.Second}
		case "broken":
			return typedrpc.Identity{}, grant{}, errors.New("database password is hunter2")
		case "panic":
			panic("no such user")
		}
		// The obvious way to carry a value along: from the context at hand.
		id := typedrpc.Identity{Subject: user, Context: context.WithValue(ctx, userKey{}, "user:"+user)}
		return id, grant{"hello " + user + " at " + r.URL.Path}, nil
	})
}

func as(user string) typedrpc.Presenter {
	return signIn.Present(func(context.Context) (login, error) { return login{user, "pw"}, nil })
}

// whoami is a mux whose text.shout tells who is calling.
func whoami() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, _ string) (string, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		return fmt.Sprint(ctx.Value(userKey{}), " ", typedrpc.ConnFrom(ctx).Identity().Subject), nil
	})
	return mux
}

func TestAuthenticate_accepted(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, server := o.Connect(t, &typedrpc.Server{Mux: whoami(), SignIn: signedIn()}, &typedrpc.DialOptions{SignIn: as("ann")})
		got, err := typedrpc.Call(t.Context(), client, lab.Shout, "")
		is.NoErr(err)
		is.Equal(got, "user:ann ann")
		is.Equal(server.Identity().Subject, "ann")
		is.Equal(server.Context().Value(userKey{}), "user:ann")
		is.Equal(client.Identity(), typedrpc.Identity{})
		reply, err := signIn.Reply(client)
		is.NoErr(err)
		is.Equal(reply, grant{"hello ann at /"})
		client.Close()
		<-server.Context().Done()
		is.True(server.Context().Err() != nil)
	})
}

// Plain peers are known by their upgrade request, whose end is not the
// connection's.
func TestAuthenticate_plain(t *testing.T) {
	for _, socket := range []bool{false, true} {
		is := is.New(t)
		o := lab.Over{Socket: socket, Dialect: typedrpc.JSONRPC}
		client, server := o.Connect(t, &typedrpc.Server{Mux: whoami(), SignIn: signedIn()},
			&typedrpc.DialOptions{Header: http.Header{"X-User": {"bob"}}})
		for range 3 {
			got, err := typedrpc.Call(t.Context(), client, lab.Shout, "")
			is.NoErr(err)
			is.Equal(got, "user:bob bob")
		}
		is.Equal(server.Identity().Subject, "bob")
		_, err := signIn.Reply(client)
		is.True(errors.Is(err, typedrpc.FailedPrecondition)) // it has no place for a reply

		_, err = o.Dial(t, &typedrpc.Server{SignIn: signedIn()}, &typedrpc.DialOptions{})
		is.True(errors.Is(err, typedrpc.Unauthenticated))
		var u *typedrpc.UpgradeError
		is.True(errors.As(err, &u))
		is.Equal(u.Status, http.StatusUnauthorized)
		is.Equal(strings.TrimSpace(u.Body), "who are you?")
	}
}

func TestAuthenticate_post(t *testing.T) {
	url := serve(t, &typedrpc.Server{Mux: whoami(), SignIn: signedIn()})
	for user, want := range map[string]struct {
		status int
		body   string
	}{
		"carl":   {http.StatusOK, `{"jsonrpc":"2.0","id":1,"result":"user:carl carl"}`},
		"":       {http.StatusUnauthorized, "who are you?"},
		"banned": {http.StatusForbidden, "banned is banned"},
		"busy":   {http.StatusServiceUnavailable, "later"},
		"broken": {http.StatusUnauthorized, "not authenticated"},
		"panic":  {http.StatusUnauthorized, "not authenticated"},
	} {
		t.Run(user, func(t *testing.T) {
			is := is.New(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"text.shout","params":["x"]}`))
			is.NoErr(err)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-User", user)
			resp, err := http.DefaultClient.Do(r)
			is.NoErr(err)
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			is.Equal(resp.StatusCode, want.status)
			is.Equal(strings.TrimSpace(string(body)), want.body)
		})
	}
}

func TestAuthenticate_refused(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		for user, want := range map[string]typedrpc.Error{
			"":       {Code: typedrpc.Unauthenticated, Message: "who are you?"},
			"banned": {Code: typedrpc.PermissionDenied, Message: "banned is banned"},
			"busy":   {Code: typedrpc.Unavailable, Message: "later", RetryAfter: time.Second},
			"broken": {Code: typedrpc.Unauthenticated, Message: "not authenticated"},
			"panic":  {Code: typedrpc.Unauthenticated, Message: "not authenticated"},
		} {
			t.Run(user, func(t *testing.T) {
				is := is.New(t)
				var log lab.Logs
				_, err := o.Dial(t, &typedrpc.Server{SignIn: signedIn(), Logger: log.Logger()}, &typedrpc.DialOptions{SignIn: as(user)})
				e := lab.AsError(t, err)
				is.Equal(e.Code, want.Code)
				is.Equal(e.Message, want.Message)
				is.Equal(e.RetryAfter, want.RetryAfter)
				is.Equal(e.Outcome, typedrpc.NotSent)
				s, ok := banned.From(err)
				is.Equal(ok, user == "banned") // with its data
				is.Equal(s.Hint == "rules", user == "banned")
				is.True(user != "broken" || log.Has("hunter2")) // what a stranger is not told
				is.True(user != "panic" || log.Has("no such user"))
			})
		}
	})
}

func TestAuthenticate_closeCodes(t *testing.T) {
	url := serve(t, &typedrpc.Server{SignIn: signedIn()})
	for user, want := range map[string]int{"": 4401, "banned": 4403, "busy": 1013, "broken": 4401} {
		is := is.New(t)
		p := dialRaw(t, url, "typedrpc.jsonrpc")
		creds, _ := json.Marshal(login{User: user})
		p.send(strings.Replace(helloText, `"attempt":1,`, `"attempt":1,"credentials":`+string(creds)+`,`, 1))
		is.True(strings.Contains(p.receive(), `"error":{"code":`)) // says why first
		code, _ := p.closeCode()
		is.Equal(code, want)
	}
}

func TestAuthenticate_undecodable(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		other := typedrpc.NewSignIn[string, grant]()
		_, err := o.Dial(t, &typedrpc.Server{SignIn: signedIn()}, &typedrpc.DialOptions{
			SignIn: other.Present(func(context.Context) (string, error) { return "token", nil }),
		})
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	})
}

func TestAuthenticate_otherCodec(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{Mux: whoami(), SignIn: signedIn(), Codecs: []typedrpc.Codec{hexed{}}}
	opts := &typedrpc.DialOptions{SignIn: as("dora"), Codecs: []typedrpc.Codec{hexed{}}}
	client, _ := lab.Over{Socket: true}.Connect(t, srv, opts)
	reply, err := signIn.Reply(client)
	is.NoErr(err)
	is.Equal(reply.Greeting, "hello dora at /")

	_, err = lab.Over{}.Dial(t, srv, &typedrpc.DialOptions{SignIn: as("banned"), Codecs: []typedrpc.Codec{hexed{}}})
	is.True(errors.Is(err, typedrpc.PermissionDenied))
	s, ok := banned.From(err)
	is.True(ok)
	is.Equal(s.Hint, "rules")
}

func TestCredentials_fail(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		cause := errors.New("the keyring is locked")
		_, err := o.Dial(t, &typedrpc.Server{SignIn: signedIn()}, &typedrpc.DialOptions{
			SignIn: signIn.Present(func(context.Context) (login, error) { return login{}, cause }),
		})
		is.True(errors.Is(err, typedrpc.Unauthenticated))
		is.True(errors.Is(err, cause))
		_, err = o.Dial(t, &typedrpc.Server{SignIn: signedIn()}, &typedrpc.DialOptions{
			SignIn: signIn.Present(func(context.Context) (login, error) { return login{}, typedrpc.Errorf(typedrpc.Aborted, "own") }),
		})
		is.True(errors.Is(err, typedrpc.Aborted))
		_, err = o.Dial(t, &typedrpc.Server{SignIn: signedIn()}, &typedrpc.DialOptions{
			SignIn: signIn.Present(func(context.Context) (login, error) { return login{}, fmt.Errorf("none: %w", typedrpc.NotFound) }),
		})
		is.Equal(typedrpc.CodeOf(err), typedrpc.NotFound) // errors.Is would find the cause, too
	})
}

// entry lets everybody in as id.
func entry(id typedrpc.Identity) typedrpc.Verifier {
	return signIn.Verify(func(context.Context, *http.Request, *login) (typedrpc.Identity, grant, error) {
		return id, grant{}, nil
	})
}

func TestIdentity_expires(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		t.Parallel() // they wait
		is := is.New(t)
		auth := signIn.Verify(func(context.Context, *http.Request, *login) (typedrpc.Identity, grant, error) {
			return typedrpc.Identity{Subject: "x", Expires: time.Now().Add(1500 * time.Millisecond)}, grant{}, nil // a busy machine needs some of it to connect
		})
		_, server := o.Connect(t, &typedrpc.Server{SignIn: auth}, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		<-server.Context().Done()
		is.True(strings.Contains(fmt.Sprint(errors.Unwrap(server.Err())), "4401"))
	})
}

func TestIdentity_contextEnds(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		ctx, revoke := context.WithCancel(t.Context())
		defer revoke()
		h := lab.NewHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Stay, h.Handle)
		srv := &typedrpc.Server{Mux: mux, SignIn: entry(typedrpc.Identity{Context: ctx})}
		client, server := o.Connect(t, srv, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		call := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		<-h.Begun
		revoke()
		is.True(<-h.Ended != nil)
		<-server.Context().Done()
		_, err := call.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
	})
}

// What the function was given did not end with a plain peer.
func TestAuthenticate_contextEndsWithThePeer(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			l := lab.New()
			var got context.Context
			l.SignIn = lab.Sign.Verify(func(ctx context.Context, _ *http.Request, who *string) (typedrpc.Identity, int, error) {
				got = ctx
				return typedrpc.Identity{Subject: "x", Context: ctx}, 1, nil
			})
			w := &lab.Town{Srv: l.Server}
			c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady})
			c.Close()
			synctest.Wait()
			time.Sleep(time.Hour)
			if got.Err() == nil {
				t.Errorf("dialect %v: the function's context has not ended an hour after the connection did", d)
			}
		})
	}
}

// A panic in the function that makes credentials ended the program.
func TestCredentials_panic(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		var log strings.Builder
		w := &lab.Town{Srv: l.Server}
		_, err := w.TryDial(t.Context(), &typedrpc.DialOptions{
			Dialect: d, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			SignIn: lab.Sign.Present(func(context.Context) (string, error) { panic("no token") }),
		})
		is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		is.True(strings.Contains(log.String(), "no token"))
	})
}

var sign = typedrpc.NewSignIn[struct{}, struct{}]()

// An Identity's context that derived from the function's ended with the
// authentication, and with it the connection.
func TestIdentity_contextOfAuthenticateLivesOn(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		type key struct{}
		who := typedrpc.NewMethod[struct{}, string]("who")
		l := lab.New()
		var given context.Context
		l.SignIn = sign.Verify(func(ctx context.Context, _ *http.Request, _ *struct{}) (typedrpc.Identity, struct{}, error) {
			given = ctx
			return typedrpc.Identity{Subject: "me", Context: context.WithValue(ctx, key{}, "me")}, struct{}{}, nil
		})
		typedrpc.Handle(l.Mux, who, func(ctx context.Context, _ struct{}) (string, error) { return ctx.Value(key{}).(string), nil })
		c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		time.Sleep(time.Minute) // longer than a handshake may take
		name, err := typedrpc.Call(t.Context(), c, who, struct{}{})
		is.NoErr(err)
		is.Equal(name, "me")
		is.NoErr(s.Err())
		is.NoErr(c.Close())
		<-s.Context().Done()
		synctest.Wait()
		is.True(d == typedrpc.JSONRPC || given.Err() != nil) // it ends with the connection
	})
}

// So did the data of an error that refuses a peer.
func TestAuthenticate_errorThatPanics(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.SignIn = sign.Verify(func(context.Context, *http.Request, *struct{}) (typedrpc.Identity, struct{}, error) {
			return typedrpc.Identity{}, struct{}{}, disaster.Errorf(explosive{}, "")
		})
		_, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.True(err != nil)
		is.True(strings.Contains(err.Error(), "disaster"))
		is.True(d == typedrpc.JSONRPC || errors.Is(err, typedrpc.NotFound)) // over HTTP the code is the status
	})
}
