package typedrpc

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Keyed gives every call of the method an idempotency key, by which the peer
// knows a repeat: the handler runs once for each key, and a repeat is given the
// answer that the first call had, or waits for it. So calls in flight when a
// connection is lost are made again, as Idempotent ones are, and a RetryPolicy
// may repeat them. A program that repeats a call itself, or wants to after it
// was started again, makes the key, see [idempotency.Key].
//
// The peer remembers answers in an [idempotency.Cache], for ten minutes by default. A
// call that can no longer be repeated safely is not: when it may have run, and
// the peer that there is now has another cache (it was started again, or is
// another machine), the call fails with Unavailable, MayHaveRun; when its key
// is too old to be known, with FailedPrecondition, MayHaveRun.
//
// All that a handler returned is an answer, errors and panics included. What
// did not run is none: the peer's limits, a server that shuts down, and a
// context that had ended before the handler began. A handler's context outlives
// the session of its call, since the caller comes back for the answer; it ends
// when the caller cancels, with the caller's deadline, when Conn.Close or a
// Shutdown whose context ended cuts it off, and when nobody came back for a TTL
// of the cache. Interceptors see repeats as calls; next gives them the answer,
// with a handler's error as it crosses the wire. So an interceptor that calls
// next twice runs the handler once.
//
// A key belongs to the peer's Identity.Subject, the method, the codec, and the
// bytes of the request: with another request it is refused. It travels
// as metadata, idempotency-key and idempotency-age, which interceptors and
// handlers see, and which Forward passes on; metadata of the call's own by
// these names is refused. Without a key, as from most JSON-RPC peers, a call
// just runs. Peers that have no cache, such as plain JSON-RPC servers, get keyed
// calls once. Keyed is a MethodTrait.
const Keyed = keyedTrait(true)

type keyedTrait bool

func (k keyedTrait) method(s *spec) { s.keyed = bool(k) }

// Bind notes the cache of c's peer as the one that k is used with, so that its String says so
// before the first call. For a key that was parsed it is the program's word that it was not
// used with another one. It fails with FailedPrecondition when the key was used elsewhere, or
// the peer has no cache, and with InvalidArgument for the zero Key.
func (c *Conn) Bind(k idempotency.Key) error {
	e := c.engine()
	key := seam.KeyIn(k)
	if key == nil {
		return refuse(InvalidArgument, "the zero Key is none")
	}
	if err := key.Bind(e.PeerCache()); err != nil {
		return up(err, nil)
	}
	return nil
}

// giveKey gives a call of a Keyed method its key.
func (t *target) giveKey(s *spec) *Error {
	given := t.opts.Key != (idempotency.Key{})
	switch {
	case !s.keyed && !given:
		return nil
	case !s.keyed:
		return refuse(InvalidArgument, "CallOptions.Key: %s %q is not Keyed", s.kind, s.name)
	}
	var k *replay.Key
	if given {
		k = seam.KeyIn(t.opts.Key)
	} else {
		k = replay.NewKey()
	}
	for _, name := range [...]string{replay.MetaKey, replay.MetaAge} {
		if _, ok := t.opts.Metadata[name]; ok {
			return refuse(InvalidArgument, "metadata %q of a Keyed method is not the caller's to set; use CallOptions.Key", name)
		}
	}
	t.key = k
	return nil
}

// passKey has a call that is forwarded keep its key, and remembers where it
// went.
func (t *target) passKey(ctx context.Context, r *Request) (done func(), err error) {
	if t.opts.Key != (idempotency.Key{}) {
		return nil, refuse(InvalidArgument, "CallOptions.Key: a call that is forwarded has the key that it came with")
	}
	if _, ok := r.Metadata[replay.MetaKey]; !ok || r.Kind != KindMethod {
		return func() {}, nil
	}
	in := r.served(ctx)
	key, age, fault := in.keyOf(r)
	if fault != nil {
		return nil, in.refuse(r, fault)
	}
	t.key, done, err = r.Conn.e.Replays().Forward(key, r.sum(), age, in.handler())
	if err != nil {
		return nil, in.refuse(r, err)
	}
	return done, nil
}

// keyedMetadata is metadata with the key, as interceptors see it.
func (t *target) keyedMetadata(m Metadata) Metadata {
	merged := Metadata{}
	maps.Copy(merged, m)
	maps.Copy(merged, t.opts.Metadata)
	merged[replay.MetaKey], merged[replay.MetaAge] = t.key.ID(), "0"
	return merged
}

// checkMetadata refuses metadata that cannot be sent. With a key it returns a
// copy that has the key, and room for its age.
func (t *target) checkMetadata(m Metadata) (Metadata, *Error) {
	if t.key == nil {
		return m, m.check()
	}
	id := t.key.ID()
	if had, ok := m[replay.MetaKey]; ok && had != id {
		return nil, refuse(InvalidArgument, "an interceptor changed metadata %q", replay.MetaKey)
	}
	m = maps.Clone(m)
	m.Set(replay.MetaKey, id)
	m.Set(replay.MetaAge, strings.Repeat("0", replay.AgeDigits))
	return m, m.check()
}

// served returns the record that a handler's request came with, nil if it is not
// known or has no key.
func (r *Request) served(ctx context.Context) *served {
	if in := engine.From(ctx); in != nil && in.Conn() == r.Conn.e && in.Keyed() {
		return in.Record.(*served)
	}
	return nil
}

// handler is the record as the cache sees it.
func (s *served) handler() replay.Handler {
	if s == nil {
		return nil
	}
	return &s.Inbound
}

// keyOf reads a request's key, and its age by now.
func (s *served) keyOf(r *Request) (key replay.CallKey, age time.Duration, err *status.Error) {
	key.Subject = r.Conn.Identity().Subject
	var ok bool
	if key.ID, ok = replay.ParseID(r.Metadata[replay.MetaKey]); !ok {
		return key, 0, status.Errorf(status.InvalidArgument, "metadata %q must be 32 hexadecimal digits", replay.MetaKey)
	}
	ms, bad := strconv.ParseUint(r.Metadata[replay.MetaAge], 10, 53)
	if bad != nil {
		return key, 0, status.Errorf(status.InvalidArgument, "metadata %q must be the milliseconds since the first attempt, 0 with that", replay.MetaAge)
	}
	age = time.Duration(min(ms, flow.MaxTimeLeft)) * time.Millisecond
	if s != nil {
		age += s.Waited()
	}
	return key, age, nil
}

// sum is what a key's calls must have in common.
func (r *Request) sum() (sum [32]byte) {
	h := sha256.New()
	for _, s := range [...]string{r.Conn.codec.Name(), r.Method} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	h.Write(r.Payload)
	h.Sum(sum[:0])
	return sum
}

// refuse notes that err is why the call's handler did not run, so that its caller
// is told, and returns it as the handler does. One that is too old may have run
// earlier.
func (s *served) refuse(r *Request, err error) error {
	below, ok := err.(*status.Error)
	if !ok { // the end of its context
		return err
	}
	e := up(below, r.Conn.codec)
	switch {
	case below == replay.ErrForgotten:
		r.ReplyMetadata.Set(replay.MetaOutcome, replay.OutcomeUnknown)
	case s != nil:
		s.Note(e)
	}
	return e
}

// refusedBy reports whether the answer err says that no handler saw the call.
func (s *served) refusedBy(err error) bool {
	refused, ok := s.Noted().(*Error)
	var e *Error
	return ok && errors.As(err, &e) && e == refused
}

// once wraps a Keyed method's serve, so that each key runs it once.
func once(serve func(context.Context, *Request) (*buf.Buf, error)) func(context.Context, *Request) (*buf.Buf, error) {
	return func(ctx context.Context, r *Request) (*buf.Buf, error) {
		if _, ok := r.Metadata[replay.MetaKey]; !ok {
			return serve(ctx, r)
		}
		in := r.served(ctx)
		key, age, fault := in.keyOf(r)
		if fault != nil {
			return nil, in.refuse(r, fault)
		}
		cache := r.Conn.e.Replays()
		for {
			run, first, err := cache.Begin(key, r.sum(), age, in.handler())
			if err != nil {
				return nil, in.refuse(r, err)
			}
			if first {
				return runOnce(ctx, cache, run, r, serve)
			}
			select {
			case <-run.Done():
				if !run.Void() {
					return give(run.Answer(), r)
				}
			case <-ctx.Done():
				cache.Leave(run, nil, in != nil && in.Cancelled())
				return nil, ctx.Err()
			}
		}
	}
}

// runOnce runs the handler and notes its answer.
func runOnce(ctx context.Context, cache *replay.Cache, run *replay.Run, r *Request, serve func(context.Context, *Request) (*buf.Buf, error)) (*buf.Buf, error) {
	a := replay.Answer{Err: &status.Error{Code: status.Internal, Message: status.InternalText}} // unless it returns
	begun := true
	defer func() {
		if !begun {
			cache.Void(run)
			return
		}
		a.Meta = maps.Clone(r.ReplyMetadata)
		cache.End(run, a)
	}()
	body, err := serve(ctx, r)
	var e *Error
	switch {
	case errors.As(err, &e) && e == errOver:
		begun = false // its connection is not everybody's who asks with this key
	case err != nil:
		a.Err = r.Conn.flatten(ctx, err)
	default:
		a = replay.Answer{Body: append([]byte(nil), body.Bytes()...)}
	}
	return body, err
}

// flatten makes an error what it is on the wire, so that its size is known and
// nothing else is kept of it.
func (c *Conn) flatten(ctx context.Context, err error) (e *status.Error) {
	defer func() {
		if recover() != nil { // logged when the call is answered, which does the same
			e = &status.Error{Code: status.Internal, Message: status.InternalText}
		}
	}()
	f, _ := toWire(ctx, err, c.codec, c.opts.mapError)
	engine.BoundErrorData(&f)
	e = status.FromPeer(f.Code, f.Message, f.Fault, flow.Hint(f.RetryAfter), f.Payload, false)
	e.Number = f.Number
	return e
}

// give makes the answer that of a repeat.
func give(a *replay.Answer, r *Request) (*buf.Buf, error) {
	for k, v := range a.Meta {
		r.ReplyMetadata.Set(k, v)
	}
	if a.Err != nil {
		return nil, up(a.Err, r.Conn.codec)
	}
	return buf.Copy(a.Body), nil
}

// dialledReplays are the bounds of a dialled connection's own cache: one
// server's calls, and not those of many clients.
var dialledReplays = replay.Options{Entries: 1 << 14, Bytes: 16 << 20}
