// Package engine is one connection over many links: calls both ways, streams, the
// lane (on which notifications that came and Serial calls run one after another),
// what replies may still take (bought.go), windows and their growth, which calls
// go on after a lost session, and whose turn it is to be sent. It knows bytes, names, kinds and a
// few flags of a declaration. It never encodes a message, knows no user's type,
// does not dial, and waits for nothing while it holds its lock.
package engine

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Owner is the API above a connection: the whole of what the engine asks of it.
// What a request or a call is, it has been told beforehand, by a Decl, a Call and
// a Config.
type Owner interface {
	// Find makes the record of a request that came in and says whose it is. The
	// record is a struct of the owner's in which an Inbound is embedded, so that
	// request, context and view are one allocation; in.Record is set. refusal is
	// why nobody takes it; the record is made all the same, since a notification
	// keeps its place on the lane and a call is answered. Called by the reader,
	// with Session.reading held, and for a notification by the lane: it must not
	// wait.
	Find(name string, kind Kind, meta map[string]string) (in *Inbound, refusal *status.Error)
	// Run runs a request's handlers: decoding, interceptors, user code, encoding.
	// in is their context. It recovers and logs panics; a notification's errors
	// it logs, and of its results the engine looks at a *status.Error's code alone. On the handler's goroutine or the
	// lane's, without locks, for as long as it likes. What returns ErrRests is run
	// again: then the stream is entrusted to somebody who goes on.
	Run(in *Inbound) (body *buf.Buf, meta map[string]string, err error)
	// Failure is what the caller is told of err, which Run returned, or a stream
	// was stopped with, or the engine itself found (then it is a *status.Error):
	// code, text, hint, data, metadata, and whether no handler saw the call. It
	// logs what stays here, and runs user code, whose panics it recovers. The
	// engine adds the id, and bounds the rest. Where Run ran.
	Failure(in *Inbound, err error) wire.Frame
	// Replied is called where Record.Waits, when what answers a call has its place in the
	// queue, or never will: err says why, or is what the caller is told. It runs user code,
	// whose panics it recovers. Without locks, where Run ran, or on a goroutine of its own.
	Replied(in *Inbound, err error)
	// Again says whether a call that failed for the n-th time is tried again, and
	// when. Asked where Call.Retries is set, by whoever settles the call, with
	// Call.mu held: it may take a retry budget's lock and nothing else.
	Again(cl *Call, err *status.Error, n int) (wait time.Duration, ok bool)
	// Unmade says that the attempt which Again has allowed was not made, because nothing of it
	// has left: the deadline, the caller, or the connection's end came first, there was no link or
	// no place, or Next found no connection. It may be called where Again is.
	Unmade(cl *Call)
	// Next is the connection of the next attempt, after n that failed, the last
	// with err. On the timer's goroutine, without locks: it may be the user's
	// function, whose panic it recovers.
	Next(cl *Call, n int, err *status.Error) (*Conn, *status.Error)
	// Conn is the API's connection, for those who are told of what happens on it.
	Conn() any
	// Face is e as programs see it where it reaches them past the API's functions:
	// as the cause of a context that ends. Without locks.
	Face(e *status.Error) error
}

// Keeper is whoever gets the connection its links: a client, a server, or the
// one POST.
type Keeper interface {
	// GoingAway takes a GOAWAY's window for coming back. Conn.mu is held; a
	// keeper's own lock comes after it.
	GoingAway(least, most time.Duration)
	// Said takes the error with which the peer says that it is about to close the link.
	// Called by the reader: it must not wait.
	Said(e *wire.ErrorBody)
	// Auth takes new credentials of the peer's. Called by the reader: it must not
	// wait.
	Auth(c *session.Carrier, b wire.AuthBody)
	// AuthOK takes what became of ours. Called by the reader: it must not wait.
	AuthOK(b wire.AuthOKBody) error
	// Closing is called when this side has begun to end the connection: calls are
	// settled, and nothing new is to begin. Without locks; it must not wait.
	Closing()
	// Over is called when a session without a link was ended: nobody else would
	// notice. Without locks; it must not wait.
	Over(cause error)
}

// Kind says what a request is.
type Kind uint8

// The kinds, with the numbers of the API's.
const (
	KindCall Kind = iota
	KindNotification
	KindServerStream
	KindClientStream
	KindBidiStream
)

// Streams reports whether it has items.
func (k Kind) Streams() bool { return k >= KindServerStream }

// wire is what a CALL of this kind says.
func (k Kind) wire() wire.Kind {
	switch k {
	case KindServerStream:
		return wire.ServerStream
	case KindClientStream:
		return wire.ClientStream
	case KindBidiStream:
		return wire.BidiStream
	}
	return wire.Unary
}

// Decl is what the engine knows of a declaration. It is not changed once it is
// used.
type Decl struct {
	Name       string
	Kind       Kind
	Idempotent bool
	Serial     bool
	Inline     bool // its handlers never block: the reader may run them
	MaxSize    int  // of an encoded message; 0: the connection's limit alone
	// Kept says that the wire uses the name itself, towards plain peers and towards
	// those with HELLO. Only what is forwarded can have such a name.
	Kept [2]bool
	// Newest says of a server stream that only its newest item counts: the sender has
	// few under way, and the receiver is given the last of those that have come, but
	// for a HISTORY.
	Newest bool
	// Foreign says that a peer chose the name, and nobody on this side declared it.
	Foreign bool
}

// Limit is the smaller of the declaration's limit and a connection's.
func (d *Decl) Limit(conn int) int {
	if d.MaxSize > 0 {
		return min(d.MaxSize, conn)
	}
	return conn
}
