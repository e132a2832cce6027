package typedrpc

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/jsoncodec"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// SignIn declares how clients say who they are: the types of their credentials
// and of the server's reply to those. Credentials come with a client's first
// message, never in the URL. Declare it once, in a package that both sides import.
// It is no method: nobody can call it. Its zero value has no traits. A SignIn is
// safe for concurrent use.
//
//	var SignIn = typedrpc.NewSignIn[Token, Welcome]()
//
//	&typedrpc.Server{SignIn: SignIn.Verify(func(ctx context.Context, r *http.Request, token *Token) (typedrpc.Identity, Welcome, error) { … })}
//	&typedrpc.DialOptions{SignIn: SignIn.Present(func(ctx context.Context) (Token, error) { … })}
//	welcome, err := SignIn.Reply(conn)
type SignIn[Creds, Reply any] struct{ spec *spec }

// NewSignIn declares a sign-in. It panics if a trait does not apply.
func NewSignIn[Creds, Reply any](traits ...Trait) SignIn[Creds, Reply] {
	s := new(spec)
	applyTraits(s, traits, Trait.signIn)
	s.carries(new(Creds), new(Reply))
	return SignIn[Creds, Reply]{s.declared()}
}

// traits are those of the declaration, of a zero value too.
func (s SignIn[Creds, Reply]) traits() *spec {
	if s.spec == nil {
		return new(spec)
	}
	return s.spec
}

// carried says why a codec cannot carry a sign-in's types; nil: there are none.
type carried func(Codec) error

func (f carried) fits(c Codec) error {
	if f == nil {
		return nil
	}
	return f(c)
}

func (s SignIn[Creds, Reply]) carried() carried {
	spec := s.traits()
	return func(c Codec) error { return errors.Join(checkType[Creds](spec, c), checkType[Reply](spec, c)) }
}

// Identity is who a peer is, as the function of Server.SignIn found out.
type Identity struct {
	// Subject names the principal: a user, a device, a service. Nobody
	// else can go on with its sessions.
	Subject string
	// Expires is when the credentials end, if the client has not refreshed them: the
	// connection is closed then, calls in flight fail, and a dialled one comes back
	// with fresh credentials and a new session. Zero is never.
	Expires time.Time
	// Context is what every handler's context derives from. When it ends the
	// connection is closed. Derive it from the context given to the function,
	// which lives on. nil is the upgrade request's context without its end.
	Context context.Context
}

// Verifier is what Server.SignIn takes, made by SignIn.Verify. Its zero value
// lets everybody in, as nobody.
type Verifier struct {
	types carried
	run   func(ctx context.Context, r *http.Request, creds []byte, codec Codec) (Identity, []byte, error)
}

// Verify makes a server's side of the sign-in. fn is called for every link, before
// anything else of the peer is handled, and for the credentials that a client
// refreshes on a live one; it also sees the upgrade request, for cookies, headers
// and addresses. It may be called by many goroutines at once. The subject may not
// change while a session lives. Verify panics if fn is nil.
//
// creds is nil when none were sent: by a plain JSON-RPC peer, with an HTTP POST, and
// by a client without DialOptions.SignIn. Credentials that are empty, or null, are
// not nil. To read them without a look is safe: a panic in fn, as of a nil
// dereference, is logged, and refuses the peer as Unauthenticated.
//
// An error refuses the peer: Unavailable, ResourceExhausted and DeadlineExceeded, also
// a context's, ask it to try again later. All others, plain ones too, keep it away:
// its connection is closed for good. So return Unavailable when you could not find out.
// Its code, message and data reach the peer if it is an *Error or a Code; any other is
// logged and reaches it as Unauthenticated with a fixed text. Credentials that
// cannot be decoded, or are larger than MaxSize, are refused as InvalidArgument.
//
// ctx has the upgrade request's values. While fn runs it ends with
// Limits.HandshakeTimeout, and with the peer; afterwards with the connection.
func (s SignIn[Creds, Reply]) Verify(fn func(ctx context.Context, r *http.Request, creds *Creds) (Identity, Reply, error)) Verifier {
	if fn == nil {
		panic("typedrpc: SignIn.Verify: the function is nil")
	}
	spec := s.traits()
	return Verifier{s.carried(), func(ctx context.Context, r *http.Request, data []byte, codec Codec) (Identity, []byte, error) {
		var creds *Creds
		if data != nil {
			creds = new(Creds)
			if err := spec.read(codec, data, creds); err != nil {
				return Identity{}, nil, Errorf(InvalidArgument, "cannot decode the credentials: %w", err)
			}
		}
		id, reply, err := fn(ctx, r, creds)
		if err != nil {
			return Identity{}, nil, err
		}
		out, err := spec.message(codec, &reply)
		return id, out, err
	}}
}

// Presenter is what DialOptions.SignIn takes, made by SignIn.Present. Its zero value
// presents nothing.
type Presenter struct {
	types carried
	get   func(ctx context.Context, codec Codec) ([]byte, error)
}

// Present makes a client's side of the sign-in: fn is called before every
// handshake, and on a live connection before the credentials expire, so that it can
// refresh what has expired. It may be called while another call is under way. Its
// error fails the attempt, which may be made again later, as Unauthenticated unless it
// is an *Error or a Code; and so does its panic. ctx ends with the handshake's time and with
// the connection; Close waits for fn, so it must heed ctx, and must not close the
// connection itself. Present panics if fn is nil.
func (s SignIn[Creds, Reply]) Present(fn func(ctx context.Context) (Creds, error)) Presenter {
	if fn == nil {
		panic("typedrpc: SignIn.Present: the function is nil")
	}
	spec := s.traits()
	return Presenter{s.carried(), func(ctx context.Context, codec Codec) ([]byte, error) {
		creds, err := fn(ctx)
		if err != nil {
			return nil, err
		}
		return spec.message(codec, &creds)
	}}
}

// Reply decodes the server's reply to the latest credentials that it took, of a
// handshake or of a live connection. The error is an *Error: FailedPrecondition
// where there is none, as on a server's side of a connection, or with a server that
// lets everybody in, and Internal if it cannot be decoded.
func (s SignIn[Creds, Reply]) Reply(c *Conn) (Reply, error) {
	var reply, none Reply
	if c == nil || c.e == nil {
		return none, refuse(InvalidArgument, noConn)
	}
	var data []byte
	if d, ok := c.keeper.(*client.Client); ok {
		data = d.Welcome()
	}
	if data == nil {
		return none, Errorf(FailedPrecondition, "the server sent no reply to credentials")
	}
	if err := s.traits().read(c.codec, data, &reply); err != nil {
		return none, Errorf(Internal, "cannot decode the reply to the credentials: %w", err)
	}
	return reply, nil
}

// message is what v points to in the codec. It is not nil: that would say that
// there is none.
func (s *spec) message(c Codec, v any) ([]byte, error) {
	data, err := s.encode(c, nil, v)
	if err == nil {
		err = s.bounded(data)
	}
	if err == nil && c == JSON {
		err = inBody(data)
	}
	if data == nil {
		data = []byte{}
	}
	return data, err
}

// inBody refuses what would break the body of a handshake, which is JSON in every dialect:
// what a type that writes its own has written.
func inBody(data []byte) error {
	if err := wire.Valid(data, jsoncodec.RawDepth); err != nil {
		return fmt.Errorf("it is no JSON: %w", err)
	}
	return nil
}

// read decodes what message made.
func (s *spec) read(c Codec, data []byte, v any) error {
	if err := s.bounded(data); err != nil {
		return err
	}
	return s.decode(c, data, v)
}

// bounded holds a message of a sign-in to MaxSize.
func (s *spec) bounded(data []byte) error {
	if len(data) > s.decl.Limit(len(data)) {
		return fmt.Errorf("it has %d bytes, %s takes at most %d", len(data), s.title(), s.maxSize)
	}
	return nil
}

// Credentials and their reply are JSON values under a JSON codec and base64
// strings of the encoded bytes under any other (PROTOCOL.md section 2.2). Here and
// there nil is none.

func wrapAuth(codec Codec, data []byte) []byte {
	if codec == JSON || data == nil {
		return data
	}
	out := base64.StdEncoding.AppendEncode([]byte{'"'}, data)
	return append(out, '"')
}

func unwrapAuth(codec Codec, data []byte) ([]byte, error) {
	if codec == JSON || data == nil {
		return data, nil
	}
	text, err := wire.Unquote(data)
	if err != nil {
		return nil, Errorf(InvalidArgument, "credentials of codec %q must be a base64 string", codec.Name())
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, Errorf(InvalidArgument, "credentials of codec %q must be a base64 string", codec.Name())
	}
	return b, nil
}
