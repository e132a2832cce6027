package typedrpc

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Identity is who a peer is, as Server.Authenticate found out.
type Identity struct {
	// Subject names the principal: a user, a device, a service. A session's
	// token is bound to it.
	Subject string
	// Expires is when the credentials end; the connection is closed then, and
	// a dialled one comes back with fresh ones. Zero is never.
	Expires time.Time
	// Context is what every handler's context derives from. When it ends the
	// connection is closed. Derive it from the context given to Authenticate,
	// which lives on. nil is the upgrade request's context without its end.
	Context context.Context
}

// Authenticator is what Server.Authenticate takes, made by Authenticate.
type Authenticator struct {
	spec *spec
	run  func(ctx context.Context, r *http.Request, creds []byte, codec Codec) (Identity, []byte, error)
}

// Authenticate makes a server's authentication of a typed exchange: the
// client's credentials, which come with its first message and never in the URL,
// and the server's reply. fn is called for every link, before anything else of the
// peer is handled, and for the credentials that a client refreshes on a live one;
// it also sees the upgrade request, for cookies, headers and addresses. The subject
// may not change while a session lives. A plain JSON-RPC peer and an HTTP POST are
// authenticated by the request alone, with zero credentials.
//
// An error refuses the peer: Unavailable, ResourceExhausted and
// DeadlineExceeded ask it to try again later, all others keep it away. Its
// code, message and data reach the peer if it is an *Error; any other is
// logged and reaches it as Unauthenticated with a fixed text.
func Authenticate[C, R any](m Method[C, R], fn func(ctx context.Context, r *http.Request, creds C) (Identity, R, error)) Authenticator {
	s := m.spec
	return Authenticator{s, func(ctx context.Context, r *http.Request, data []byte, codec Codec) (Identity, []byte, error) {
		var creds C
		if data != nil {
			if err := s.decode(codec, data, &creds); err != nil {
				return Identity{}, nil, Errorf(InvalidArgument, "cannot decode the credentials: %w", err)
			}
		}
		id, reply, err := fn(ctx, r, creds)
		if err != nil {
			return Identity{}, nil, err
		}
		out, err := s.encode(codec, nil, &reply)
		return id, out, err
	}}
}

// Credential is what DialOptions.Auth takes, made by Credentials.
type Credential struct {
	spec *spec
	get  func(ctx context.Context, codec Codec) ([]byte, error)
}

// Credentials makes a client's side of an authentication: fn is called before
// every handshake, and on a live connection before the credentials expire, so that
// it can refresh what has expired. It may be called while another call is under
// way. Its error, or panic, fails the attempt. ctx ends with the handshake's time and
// with the connection; Close waits for fn, so it must heed ctx, and must not close the
// connection itself.
func Credentials[C, R any](m Method[C, R], fn func(ctx context.Context) (C, error)) Credential {
	s := m.spec
	return Credential{s, func(ctx context.Context, codec Codec) ([]byte, error) {
		creds, err := fn(ctx)
		if err != nil {
			return nil, err
		}
		return s.encode(codec, nil, &creds)
	}}
}

// AuthReply decodes the server's reply to the latest credentials that it took, of a
// handshake or of a live connection.
func AuthReply[C, R any](c *Conn, m Method[C, R]) (R, error) {
	var reply R
	var data []byte
	if d, ok := c.keeper.(*client.Client); ok {
		data = d.Welcome()
	}
	if data == nil {
		return reply, Errorf(FailedPrecondition, "the server sent no reply to credentials")
	}
	if err := m.spec.decode(c.codec, data, &reply); err != nil {
		return reply, Errorf(Internal, "cannot decode the reply to the credentials: %w", err)
	}
	return reply, nil
}

// Credentials and their reply are JSON values under a JSON codec and base64
// strings of the encoded bytes under any other (PROTOCOL.md section 2.2).

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
