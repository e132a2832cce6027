// Package seam is what packages topic and transfer, and the inspector, use of package
// typedrpc that it does not export. The functions are set by that package, which this one
// cannot import: hence any for its types. They hold no state. Some are the other way: what it
// uses of packages idempotency and topic.
package seam

import (
	"context"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Declare makes a typedrpc.Declared, to which declared points, the part of a declaration
// of another package. handler makes a function of its type, or nil, a function of
// stream's, or nil; stream is the declaration below it.
var Declare func(declared any, name string, handler func(fn any) any)

// Handler is what a declaration of package typedrpc makes of a handler of its type.
var Handler func(declaration, fn any) any

// RequestTrait is what makes a type a topic.Trait.
type RequestTrait interface{ RequestTrait() }

// Codec is a typedrpc.Codec.
type Codec interface {
	Name() string
	Append(dst []byte, v any) ([]byte, error)
	Decode(data []byte, v any) error
	Check(v any) error
}

// Decl is a declaration without its types.
type Decl interface {
	// Engine is what the engine knows of it.
	Engine() *engine.Decl
	// Listed reports whether it names its request's members, see typedrpc.Params.
	Listed() bool
	// Tagged gives it the tags of another one, see typedrpc.Tag, and makes it Safe as that is.
	Tagged(as Decl)
	// Described gives it what a server says of it, but for the name and what the root
	// knows itself.
	Described(r schema.Registered)
	// Check asks a codec whether it can carry the declaration's types.
	Check(c Codec) error
	// Encode appends the message that v points to; Decode reads one into what v
	// points to.
	Encode(c Codec, dst []byte, v any) ([]byte, error)
	Decode(c Codec, data []byte, v any) error
}

// Declared is the declaration of a typedrpc.ServerStream or a typedrpc.ClientStream.
var Declared func(stream any) Decl

// Open calls a server stream, with req, which points to the request. recv reads an
// item into what it points to, and returns io.EOF after the last; one goroutine at
// a time calls it. cancel leaves the stream; any goroutine may call it at any time.
// caller is a typedrpc.Caller; stream a typedrpc.ServerStream.
var Open func(ctx context.Context, caller, stream, req any) (recv func(item any) error, cancel func(), err error)

// Serve registers a handler of a server stream whose request is a string. begin
// begins the stream; what it returns goes on with it, without a goroutine while it
// rests, unless interceptors wait for the stream's end. marks says that it has items say
// their places, and goes on behind one. mux is a *typedrpc.Mux.
var Serve func(mux any, d Decl, marks bool, begin func(ctx context.Context, x *engine.Stream, key string) (engine.Resumer, error))

// Follow loops over a server stream whose request is key, as typedrpc.Receive does.
// Each item is read into item, which points to a zero value, and told to each, which
// reports whether the loop goes on, or fails it. fail tells an error, and reports
// whether the loop's body stays for what comes after a gap.
var Follow func(ctx context.Context, caller any, d Decl, restarts bool, key string, item any,
	each func(about engine.Item, afterGap bool) (stay bool, err error), fail func(error) bool)

// Describe is what a *typedrpc.Server says of itself, whether or not its Describe is set:
// an OpenRPC document, which is not to be changed. Who may have it is its caller's to know.
// Any goroutine may call it.
var Describe func(srv any) ([]byte, error)

// Conn is the *typedrpc.Conn whose engine c is.
var Conn func(c *engine.Conn) any

// Lift is an error of the layers below as programs see it, Lower what of a program's a
// peer may be told, as those see it, and Down a program's that stays here.
var (
	Lift  func(err error) error
	Lower func(err error) *status.Error
	Down  func(err error) error
)

// About is what a server knows of a connection that its API does not tell.
type About struct {
	Number  uint32 // of the server's connections, from 1; 0: it is not one of an accepted link
	Began   time.Time
	Dialect session.Dialect
	Without time.Time // since when it has no link; zero: it has one
	Lost    string    // what the last link ended with
}

// AboutConn tells of a *typedrpc.Conn.
var AboutConn func(conn any) About

// Tap looks at the frames of a *typedrpc.Conn, see session.Tap; nil: it has no session.
var Tap func(conn any, payload int) *session.Tap

// KeyIn is what is in an idempotency.Key, nil: it is the zero one. CacheIn is the cache that
// an *idempotency.Cache has, or one with the bounds none where that is nil. Package idempotency
// sets both.
var (
	KeyIn   func(key any) *replay.Key
	CacheIn func(cache any, none replay.Options) (*replay.Cache, error)
)

// Listing is part of what a *topic.Hub has, and the sums of all of it. Package topic sets
// List, which returns at most most keys whose topic or key has text in it, those with the
// most subscribers.
type Listing struct {
	Keys, Found, Subscribers int
	History                  int64 // bytes
	Rows                     []Listed
}

// Listed is what a hub has of one key of a topic.
type Listed struct {
	Topic, Key                                 string
	Subscribers, Listeners, Onlookers, Members int
	History, Bytes                             int // messages that are kept, and their size
	Messages                                   uint64
	Dropped, Ended                             int64 // messages, and subscribers that were too slow
}

// List is set by package topic.
var List func(hub any, text string, most int) (Listing, error)
