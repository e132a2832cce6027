// Package typedrpc turns one WebSocket into ordinary Go calls, checked by the
// compiler, in both directions.
//
// A procedure is a value, a [Method], declared once in a package that both
// sides import. One side registers a function for it on a [Mux]; the other
// calls it on a [Conn]. There is no generated code, and no reflection outside
// of codecs.
//
//	type Numbers struct{ A, B int }
//
//	var Add = typedrpc.NewMethod[Numbers, int]("math.add", typedrpc.Idempotent)
//
//	func handlers() *typedrpc.Mux {
//		mux := typedrpc.NewMux()
//		typedrpc.Handle(mux, Add, func(ctx context.Context, n Numbers) (int, error) {
//			return n.A + n.B, nil
//		})
//		return mux
//	}
//
// A [Server] is an http.Handler; [Dial] makes a client's connection:
//
//	http.Handle("/rpc", &typedrpc.Server{Mux: handlers()})
//
//	conn, err := typedrpc.Dial(ctx, "wss://example.com/rpc", nil)
//	sum, err := typedrpc.Call(ctx, conn, Add, Numbers{A: 20, B: 22})
//
// # Both ways
//
// A [Conn] has two equal ends. A client answers calls with DialOptions.Mux; a
// handler finds the connection that its call came in on with [ConnFrom] and
// calls back; a server finds its clients with [Server.Conns],
// [Server.ConnsOf] and Server.OnConnect. [Notify] sends a message that has no answer, [Broadcast]
// sends one to many connections, [CallAll] asks them and ranges over them as they answer, and [Go] makes a call whose response is waited
// for later, alone or together with others: [Future.Await], [All], [Any],
// [Wait].
//
// Everything that calls takes a [Caller]: a connection, a connection with
// [CallOptions] (metadata, retries), or what [Pick] makes of many connections.
//
// # Streams
//
// A [ServerStream] is a call that is answered by many items, a [ClientStream] one
// that sends many, a [BidiStream] one in which both sides do. They are declared
// and handled like methods, and are called by either end:
//
//	var Count = typedrpc.NewServerStream[int, int]("count")
//
//	typedrpc.Handle(mux, Count, func(ctx context.Context, n int, send func(int) error) error {
//		for i := range n {
//			if err := send(i); err != nil {
//				return err
//			}
//		}
//		return nil
//	})
//
//	for i, err := range typedrpc.Receive(ctx, conn, Count, 10) {
//		if err != nil {
//			log.Fatal(err)
//		}
//		fmt.Println(i)
//	}
//
// [Receive] is left by leaving its loop, [SendAll] takes a sequence, and [Open]
// returns a [Stream] for both directions. The items of one direction keep their
// order; the two directions, and different streams, have none between them. The
// end comes after all items: nil for a good one, the handler's error for
// another. Package transfer carries files over streams.
//
// # Topics
//
// A topic is published to by the server, and subscribed to by clients, by key: a
// room of a chat, a ticker's symbol. How much history a new subscriber gets, and
// what happens to one that is slow, belongs to the declaration. An event is encoded
// once, however many subscribe. See package topic.
//
// # Order and concurrency
//
// Everything exported may be used by any number of goroutines at once, except
// where its comment says otherwise ([Request], [Metadata]).
//
// Calls run concurrently, each handler on a goroutine of its own, in no order; those of
// [Inline] methods, which never block, where they are read.
// Notifications of a connection are handled one after another, in the order in
// which the sender's calls of Notify returned. Methods declared [Serial] share
// that lane: their calls and the notifications of one connection run one at a
// time, in the order in which the sender's Go, Call and Notify sent them. A slow
// handler on the lane delays what is behind it on the same connection, and nothing
// else.
//
// Beside that lane there is no order: not between calls, nor between a call and a
// notification, also on one connection. To have one thing happen after another, wait
// for the first. Futures whose calls have interceptors, and calls that are made again,
// are in no order either.
//
// Replies are never queued behind handlers. A handler may call its caller back,
// which may call back in turn, to any depth. What would have to wait for itself
// fails at once instead of hanging: with ResourceExhausted when the peer's limits
// are spent; and with FailedPrecondition when a handler on the lane, of a notification
// or a Serial method, calls a Serial method of the peer whose lane is busy, or notifies
// it while its window is spent, because that lane may be waiting for this one. The
// library knows such a call by its context: pass the context that the handler was given
// to the calls that it makes.
//
// # Contexts
//
// When the context of a [Call] ends, Call returns at once, and the handler's
// context ends soon after. Deadlines travel as the time that is left, so that
// clocks need not agree; a handler that passes its context on passes on what is
// left of it. [Timeout] gives a method's calls a deadline of their own. No
// context of a caller reaches the socket, so ending one never harms the
// connection.
//
// A handler's context ends when the caller gave up, when the caller's time has
// passed, when the connection's session is over, and when the handler has
// returned. It carries the values of the upgrade request's context, of the
// Identity's, or, on a client, of the context that Dial was given. Work that
// goes on after the handler needs [context.WithoutCancel], or [Conn.Context]; its calls
// on the handler's connection wait as anybody's do, once the handler has returned.
//
// The context of [Dial] bounds the first handshake and nothing else; that of
// [Future.Await] bounds the waiting, while that of Go bounds the call.
//
// # Errors
//
// Every failed call returns an [*Error]; only [Any] and Broadcast join several.
// Its [Code] is one of gRPC's or the application's own, and crosses the wire, so
// that errors.Is works with codes and with the context package's errors:
//
//	_, err := typedrpc.Call(ctx, conn, Add, Numbers{})
//	if errors.Is(err, typedrpc.NotFound) || errors.Is(err, context.DeadlineExceeded) {
//		log.Print(err)
//	}
//
// A handler chooses what its caller sees: a Code as it is, an *Error made by
// [Errorf], or a [Fault], which is a declared error with a name and typed data. The first
// *Error that the returned error wraps, or else the first Code, is the one that is
// sent, without what is wrapped around it. A context's error crosses as Canceled or
// DeadlineExceeded. Any other crosses as Internal with a fixed text and is logged in
// full; Server.MapError can change that. A handler that passes on the error of a call
// that it made passes on that call's code, message and data: make a new one with
// Errorf to keep them from its caller.
//
// The [Outcome] says how far a call got. NotSent: no handler saw it, and making
// it again is always safe. MayHaveRun: it left, and no answer came. Answered:
// the peer took it, and this is its answer. Which errors of calls and streams have
// which:
//
//   - NotSent, InvalidArgument: no declaration, Caller, Conn or context; options or metadata that
//     make no sense; a request that cannot be encoded; a Key that the peer knows with
//     another request.
//   - NotSent, ResourceExhausted: a request over MaxSize or the peer's MaxMessage; the
//     peer's other limits, where waiting for them could deadlock; a server that is full.
//   - NotSent, FailedPrecondition: the peer's lane, where waiting for it could deadlock;
//     what the handler of an Inline method would wait for; for Forward a connection of
//     another codec.
//   - NotSent, Unimplemented: no such name, or one of another kind.
//   - NotSent, Unavailable: no link and FailFast; a connection that has ended, or ends, on
//     either side, unless Conn.Err has a code that says more, as Unauthenticated: then that.
//   - NotSent, Canceled or DeadlineExceeded: the context had ended before the call left.
//   - NotSent, with a code of its own: the error of Pick's function, and of an outgoing
//     interceptor that did not call next.
//   - Answered, InvalidArgument: a request that cannot be decoded, or whose Validate
//     failed without a code of its own.
//   - Answered, Internal: a panic, a foreign error, a response that cannot be encoded, or
//     decoded.
//   - Answered, ResourceExhausted: a response over a limit.
//   - Answered, with a code of its own: what the handler, or an interceptor around it,
//     returned.
//   - MayHaveRun, Canceled or DeadlineExceeded: the context ended, or Cancel was called,
//     when the call had left.
//   - MayHaveRun, Unavailable: the session was lost, or the connection closed, when the
//     call had left; with the code of Conn.Err where that is known by then and says more. (A
//     client whose session is revoked hears why only when it comes back and is refused.)
//   - MayHaveRun, InvalidArgument or ResourceExhausted: an item that cannot be sent;
//     a handler may have seen those before it.
//   - MayHaveRun, FailedPrecondition: a Key that was used with another server, or is too
//     old to be known.
//
// From a plain JSON-RPC peer every error is Answered: it cannot say that nothing ran.
//
// # Lost links, lost sessions, retries
//
// A link is one WebSocket. A session is what both sides keep of a connection from one link
// to the next: its calls and streams, and what was sent and has not arrived.
//
// A connection outlives its links. When one breaks the client dials again, and
// the session goes on where it was, on both sides: calls and streams in flight,
// both ways, are completed, handlers run on, windows, cancels and deadlines keep
// counting; nothing is lost and nothing runs twice. All that a program sees is the
// time that it took. Calls made meanwhile wait as long as their contexts
// allow, and notifications are queued while the window has room for them, or they fail
// at once with FailFast.
//
// A session is lost when no new link comes within Limits.Grace (30 s), when the
// server was restarted or has to give up sessions (Server.MaxKept), or when it is
// told to end, by Close for example. Then the connection that was dialled begins a new
// one, and the one that a server accepted has ended. Everybody is told what is known:
//
//   - calls that had not left are sent on the next session, in order; those of a
//     connection that has ended fail with Unavailable, NotSent;
//   - Idempotent and Keyed calls in flight are sent again on the next session, at most
//     eight times or as often as their policy allows;
//   - all other calls in flight fail with Unavailable, MayHaveRun;
//   - notifications that had not left are sent on the next session, those that
//     had may be lost, also those that arrived and waited for the handler;
//   - handlers' contexts end, and their replies are dropped; those of Keyed calls
//     go on, since the caller comes back for the answer.
//
// Otherwise a call is made again, by whatever policy, only if its error is NotSent
// or its method is [Idempotent] or [Keyed], see package idempotency. A [RetryPolicy] belongs to a call, a
// method or a connection, in this order, and without one nothing is repeated but
// what a lost session interrupts.
//
// Streams in flight end, for both sides, with an error that is a [Gap]: items may
// be missing. So end, for the caller, streams whose peer shuts down. Only the program
// knows from where to go on. Its declaration can say it, with
// [ServerStream.Restartable]: then [Receive] opens the stream again on the next
// session, and the gap is one pair of the loop, which goes on if it continues. Topics
// have a trait for it.
//
//	type PricesRequest struct{ After int }
//	type Price struct{ Seq, Cents int }
//
//	var Prices = typedrpc.NewServerStream[PricesRequest, Price]("prices").
//		Restartable(func(req PricesRequest, last *Price) PricesRequest {
//			if last != nil {
//				req.After = last.Seq
//			}
//			return req
//		})
//
//	for price, err := range typedrpc.Receive(ctx, conn, Prices, PricesRequest{}) {
//		if errors.Is(err, typedrpc.Gap) {
//			continue // the handler goes on after the last one
//		}
//		if err != nil {
//			log.Fatal(err)
//		}
//		fmt.Println(price.Cents)
//	}
//
// Calls that a handler made with its own context are part of the session, and
// end with it. docs/reliability.md has it all in tables, and how it is tested.
//
// DialOptions.OnState observes all this, [Conn.Reconnect] hurries it. The
// connection stays away for good when the server says that coming back is
// pointless: wrong credentials, not allowed, a protocol error, or HTTP status
// 400, 401 or 403. DialOptions.URLs names other addresses of the service.
//
// # Flow control and limits
//
// Every queue has a bound in bytes, in calls, or both; see [Limits]. Both sides
// announce theirs in the handshake.
//
// Notify waits, with its context, while the peer's handlers are behind by more
// than the window that the peer announced, or while more than Limits.MaxBuffered
// waits for the socket. A handler's reply waits the same way, and keeps its
// call's place meanwhile: a peer that does not read is not served either. A call
// waits when as many calls, or as many bytes of requests, are in flight as the
// peer announced. A cancelled call holds its place until the peer's answer has
// come, so that calling and cancelling in a loop is not a way around the limit.
//
// A stream's sender waits, in Send, while the receiver has not taken the items
// that are on their way, by more than the stream's window: the pressure of a
// slow consumer reaches the producer and stops there. What a consumer that has
// stopped costs is one window; other streams and calls go on. The window begins
// with Limits.Window and grows while a fast consumer waits for a far producer,
// so that neither a long path nor many small items hold it back. Payloads over
// 64 KiB leave in fragments between which others have their turn, so that big
// messages do not delay small ones; over binary frames, that is: the JSON-RPC dialects
// have no fragments. A subscription never makes its publisher
// wait, unless its policy says so: there the policy decides.
//
// What is too large fails its call with ResourceExhausted, and the connection
// goes on. A peer that floods the other with what it was told not to send is
// disconnected.
//
// The requests of calls that wait for a link or for a place are held in memory,
// as many as there are callers. Nothing bounds the number of futures but the
// program that makes them.
//
// # Who can talk
//
// A dialled connection speaks [Binary] frames by default, with the codecs that
// it offers; [JSON] is the default one. [Text] says the same in text that a
// person can read. A client that offers no subprotocol, or POSTs, is taken for
// a plain JSON-RPC 2.0 peer, and the same handlers serve it; [JSONRPC] is
// how to be one. Plain peers have no credentials beside the HTTP request, no
// flow control, and no Outcome beyond what an answer tells. [Params] gives them
// positional parameters. PROTOCOL.md has the details.
//
// # Security
//
// Server.SignIn decides who may connect, by typed credentials that come
// with the client's first message, by the HTTP request, or by both; nothing else
// of the peer is handled before. Its [Identity] is what handlers find with
// [Conn.Identity]. When the credentials end is the server's to say
// (Identity.Expires); a client refreshes them on the live connection, by itself
// or with [Conn.Reauthenticate], and [Server.Revoke] ends all that a subject has. Web pages of foreign origins are refused unless
// Server.Origins names them. TLS is net/http's, and a program's own duty.
//
// A type with a Validate method checks itself before a handler sees it, see
// [Handle]. Encode secrets into neither Error.Message nor Error.Data: both are
// for the peer.
//
// # Panics
//
// What of the program's code the library calls on goroutines of its own has a net: a panic
// there is logged with its stack, and ends what was asked for and nothing else.
//
//   - In a handler, a fallback, Validate, Server.Describe, an incoming interceptor, a codec, MapError, the
//     data of a Fault, a method of a returned error, or a topic's function that allows:
//     the call fails with Internal, the notification is dropped, nobody is let in.
//   - In the function of SignIn.Verify: the peer is refused, as Unauthenticated. In that of
//     SignIn.Present, or in the transport of HTTPClient: this attempt to connect fails.
//   - In Server.OnConnect, OnState and OnDisconnect, and in DialOptions.OnState: the connection
//     goes on, and later events are told.
//   - In OnRetry, in Pick's function when a call is made again, in an outgoing interceptor
//     of a future, of CallAll, of a stream from [Open] or of a connection that a Broadcast
//     waits for, and in OnItem of what is forwarded: the call, the stream or that notification fails
//     with Internal.
//   - In a topic's Broker: the notice is lost. In a codec for subscribers: they miss the
//     message, and are told so. In a logger, or a value that writes itself: the line is lost.
//
// On the caller's own goroutine nobody catches a panic but the caller: there run encoding,
// decoding, outgoing interceptors and Pick's function of Call and Notify, the bodies of
// loops, the sequence given to SendAll, and Restartable's function. Nor are panics caught
// in methods of a context of the program's own.
//
// # Ending
//
// [Conn.Close] fails the calls in flight, flushes what was queued before, waits
// four seconds at most for the peer's handlers to take the notifications, and
// returns when the connection's goroutines have ended. [Conn.Shutdown] and
// [Server.Shutdown] let calls in flight finish first, and then end the streams
// with Unavailable, because they may be endless. Call Server.Shutdown
// before http.Server.Shutdown, which knows nothing of upgraded connections:
//
//	if err := srv.Shutdown(ctx); err != nil {
//		log.Print("some calls did not finish: ", err)
//	}
//	hs.Shutdown(ctx)
//
// # Testing
//
// Package [github.com/typedrpc/typedrpc/typedrpctest] connects a server and a
// client in memory, over a pipe or over a network that loses, delays and cuts as
// it is told; it has a TCP proxy that does the same, and a recorder that prints
// what went over a connection. All but the proxy works inside a bubble of
// [testing/synctest], where waiting takes no time:
//
//	synctest.Test(t, func(t *testing.T) {
//		client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
//		defer client.Close()
//		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
//		defer cancel()
//		if _, err := typedrpc.Call(ctx, client, Add, Numbers{A: 20, B: 22}); err != nil {
//			t.Error(err)
//		}
//	})
//
// # Other documents
//
// Where a comment names docs/limits.md, PROTOCOL.md or the like, that is a file of the
// module: https://github.com/typedrpc/typedrpc/blob/main/docs/limits.md, or in the folder
// that "go list -m -f '{{.Dir}}' github.com/typedrpc/typedrpc" prints, of your version.
// docs/guide.md is the long tour, examples/README.md has ten programs, and docs/grpc.md is
// for those who come from gRPC.
package typedrpc
