package typedrpc

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Keyed gives every call of the method an idempotency key, by which the peer
// knows a repeat: the handler runs once for each key, and a repeat is given the
// answer that the first call had, or waits for it. So calls in flight when a
// connection is lost are made again, as Idempotent ones are, and a RetryPolicy
// may repeat them. A program that repeats a call itself, or wants to after it
// was started again, makes the key, see Key.
//
// The peer remembers answers in a ReplayCache, for ten minutes by default. A
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

// Key is an idempotency key, made by NewKey or ParseKey, for calls of Keyed
// methods that a program repeats itself: give it to each of them, in
// CallOptions.Key, with the same request.
//
// It remembers how old it is, and which ReplayCache it was sent to. A call that the
// program makes with it again, and that would go to another one, because the server
// was started again, fails with FailedPrecondition, MayHaveRun, and does not leave. (A
// call that was in flight then fails with Unavailable, see Keyed.)
//
// Copies of a Key are the same key. It is safe for concurrent use. The zero Key
// is none.
type Key struct{ s *replay.Key }

// NewKey makes a key of 128 random bits.
func NewKey() Key { return Key{replay.NewKey()} }

// String is the key as ParseKey reads it: its bits, when it was made, and the
// cache that it was sent to. A program that writes a key down before its first
// call must Bind it before that. String of the zero Key is "".
func (k Key) String() string {
	if k.s == nil {
		return ""
	}
	return k.s.String()
}

// ParseKey reads what String wrote, maybe in another process; its error is an *Error,
// InvalidArgument, also for "". Its age is told
// by the wall clock then, so the clocks of processes that share keys must agree
// within a tenth of the cache's TTL. One that was written before it was used or
// bound does not say where it was used, so calls with it fail with
// FailedPrecondition until it is bound.
func ParseKey(text string) (Key, error) {
	s, err := replay.ParseKey(text)
	if err != nil {
		return Key{}, up(err, nil)
	}
	return Key{s}, nil
}

// Bind notes the ReplayCache of c's peer as the one that the key is used with,
// so that String says so before the first call. For a key that was parsed it is
// the program's word that it was not used with another one. It fails with
// FailedPrecondition when the key was used elsewhere, or the peer has no cache.
func (k Key) Bind(c *Conn) error {
	if k.s == nil {
		return refuse(InvalidArgument, "the zero Key is none")
	}
	if c == nil || c.e == nil {
		return refuse(InvalidArgument, noConn)
	}
	if err := k.s.Bind(c.e.PeerCache()); err != nil {
		return up(err, nil)
	}
	return nil
}

// giveKey gives a call of a Keyed method its key.
func (t *target) giveKey(s *spec) *Error {
	k := t.opts.Key.s
	switch {
	case !s.keyed && k == nil:
		return nil
	case !s.keyed:
		return refuse(InvalidArgument, "CallOptions.Key: %s %q is not Keyed", s.kind, s.name)
	case k == nil:
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
	if t.opts.Key.s != nil {
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

// ReplayCache remembers the answers to keyed calls, see Keyed. It forgets none
// before its TTL is over: when it is full of younger ones, new keyed calls are
// refused before they run, with ResourceExhausted, NotSent. The handlers'
// context of a call whose caller was lost ends when nobody came back for the
// answer for a TTL.
//
// Each cache has an identity, which callers learn in the handshake: a call that
// may have run under one is not sent again to another. Servers of one process
// may share a cache, and one that takes the place of another should. Its zero
// value works. A ReplayCache is safe for concurrent use; its fields must not be
// changed once a Server or a connection has it, and it must not be copied.
type ReplayCache struct {
	// TTL is how long an answer is kept, at least. A repeat whose key is four
	// fifths as old, or older, does not run if the key is not known. The last
	// fifth is for what the ages that callers tell leave out: the time on the
	// way, and the difference of the clocks. Default 10 min.
	TTL time.Duration
	// MaxEntries is how many keys are remembered at once, so that MaxEntries for
	// each TTL is the rate of keyed calls that can be served without an end:
	// with the defaults 436 a second. Default 262,144.
	MaxEntries int
	// MaxBytes is how many bytes the answers may have together, each counted
	// with 512 more. Default 128 MiB; memory is used as it is needed.
	MaxBytes int64
	// Share is the part of MaxEntries and of MaxBytes that one authenticated
	// subject may use, so that none can keep the others from being served.
	// Default 0.25.
	Share float64

	once  sync.Once
	cache *replay.Cache
	fault error
}

// open returns the cache below, which it makes at first. Of a nil one those are
// the bounds.
func (c *ReplayCache) open(none replay.Options) (*replay.Cache, error) {
	if c == nil {
		return replay.New(none), nil
	}
	c.once.Do(func() {
		if c.TTL < 0 || c.MaxEntries < 0 || c.MaxBytes < 0 || !(c.Share >= 0 && c.Share <= 1) {
			c.fault = errors.New("typedrpc: ReplayCache: TTL, MaxEntries and MaxBytes must not be negative, and Share must be between 0 and 1")
			return
		}
		c.cache = replay.New(replay.Options{TTL: c.TTL, Entries: c.MaxEntries, Bytes: c.MaxBytes, Share: c.Share})
	})
	return c.cache, c.fault
}

// dialledReplays are the bounds of a dialled connection's own cache: one
// server's calls, and not those of many clients.
var dialledReplays = replay.Options{Entries: 1 << 14, Bytes: 16 << 20}
