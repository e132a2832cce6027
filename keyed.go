package typedrpc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Keyed calls: the caller's key, what it remembers, and how a handler's side
// runs each key once. replay.go has what the handler's side remembers.

// Metadata of keyed calls (PROTOCOL.md section 2.7).
const (
	metaKey     = "idempotency-key"     // 32 hexadecimal digits
	metaAge     = wire.MetaAge          // milliseconds
	metaOutcome = "idempotency-outcome" // of an answer
)

const (
	outcomeUnknown = "unknown"
	ageDigits      = 16 // of the longest age
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
// bytes of the request: with another request it is refused. The engine sends
// it as metadata, idempotency-key and idempotency-age, which interceptors and
// handlers see, and which Forward passes on; metadata of the call's own by
// these names is refused. Without a key, as from most JSON-RPC peers, a call
// just runs. Peers that have no cache, such as plain JSON-RPC servers, get keyed
// calls once.
var Keyed Trait = traitFunc(func(s *spec) {
	mustMethod(s, "Keyed")
	s.keyed = true
})

// Key is an idempotency key, made by NewKey or ParseKey, for calls of Keyed
// methods that a program repeats itself: give it to each of them, in
// CallOptions.Key, with the same request.
//
// It remembers how old it is, and which ReplayCache it was sent to. A call with
// it that would go to another one, because the server was started again, fails
// with FailedPrecondition, MayHaveRun, and does not leave.
//
// Copies of a Key are the same key. It is safe for concurrent use. The zero Key
// is none.
type Key struct{ s *keyState }

// keyState is what a Key's copies share.
type keyState struct {
	id [16]byte

	mu      sync.Mutex
	born    time.Time // zero: nobody knows it yet
	cache   string    // where its uses went, "": to a peer without one
	uses    int       // attempts under way, that ran, or may have run
	told    bool      // it is known elsewhere too: born stays
	unbound bool      // parsed, and it does not say where it was used
}

// NewKey makes a key of 128 random bits.
func NewKey() Key { return Key{newKeyState()} }

func newKeyState() *keyState {
	k := new(keyState)
	rand.Read(k.id[:]) // never fails
	return k
}

// skew is how far in the future a key of another process may have been made.
const skew = 10 * time.Second

// maxMillis bounds the times that keys tell, in milliseconds.
const maxMillis = 1<<53 - 1

// String is the key as ParseKey reads it: its bits, when it was made, and the
// cache that it was sent to. A program that writes a key down before its first
// call must Bind it before that. String of the zero Key is "".
func (k Key) String() string {
	s := k.s
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.born.IsZero() {
		s.born = time.Now()
	}
	s.told = true
	text := "k1." + hex.EncodeToString(s.id[:]) + "." + strconv.FormatInt(s.born.UnixMilli(), 10) + "."
	if s.uses > 0 && s.cache != "" {
		s.uses++ // for good: it may be used elsewhere
		text += s.cache
	}
	return text
}

// ParseKey reads what String wrote, maybe in another process. Its age is told
// by the wall clock then, so the clocks of processes that share keys must agree
// within a tenth of the cache's TTL. One that was written before it was used or
// bound does not say where it was used, so calls with it are refused until it
// is bound.
func ParseKey(text string) (Key, error) {
	bad := Errorf(InvalidArgument, "not an idempotency key that String wrote")
	parts := strings.Split(text, ".")
	if len(parts) != 4 || parts[0] != "k1" || checkCache(parts[3]) != parts[3] {
		return Key{}, bad
	}
	id, ok := parseID(parts[1])
	ms, err := strconv.ParseUint(parts[2], 10, 53)
	if !ok || err != nil {
		return Key{}, bad
	}
	s := &keyState{id: id, born: time.UnixMilli(int64(ms)), told: true, cache: parts[3]}
	if s.unbound = s.cache == ""; !s.unbound {
		s.uses = 1
	}
	return Key{s}, nil
}

// Bind notes the ReplayCache of c's peer as the one that the key is used with,
// so that String says so before the first call. For a key that was parsed it is
// the program's word that it was not used with another one. It fails with
// FailedPrecondition when the key was used elsewhere, or the peer has no cache.
func (k Key) Bind(c *Conn) error {
	if k.s == nil {
		return Errorf(InvalidArgument, "the zero Key is none")
	}
	c.mu.Lock()
	cache := c.peerCache
	c.mu.Unlock()
	if cache == "" {
		return Errorf(FailedPrecondition, "the peer has no replay cache")
	}
	s := k.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses > 0 && s.cache != cache {
		return Errorf(FailedPrecondition, "the key was used with another replay cache")
	}
	s.cache, s.unbound = cache, false
	s.uses++
	return nil
}

// claim notes that an attempt is about to go to the cache named. repeat says
// that an earlier attempt of the same call may have run.
func (k *keyState) claim(cache string, repeat bool) *Error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.unbound:
		return Errorf(FailedPrecondition, "the key was written down before it was used or bound: where it was used since is not known").with(MayHaveRun)
	case k.uses > 0 && (k.cache != cache || cache == ""):
		code := FailedPrecondition
		if repeat {
			code = Unavailable
		}
		return Errorf(code, "the call may have run, and the peer's replay cache is not the one that would know: the peer was started again, or is another one").with(MayHaveRun)
	case !k.born.IsZero() && age(k.born, time.Now()) < -skew:
		return Errorf(FailedPrecondition, "the key is from the future: the clocks differ").with(MayHaveRun)
	}
	k.cache = cache
	k.uses++
	return nil
}

// release takes back an attempt that did not run.
func (k *keyState) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uses--; k.uses == 0 && !k.told {
		k.born = time.Time{}
	}
}

// remembered reports whether a repeat is safe, as long as it goes to the same
// cache, which claim sees to.
func (k *keyState) remembered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.uses > 0 && k.cache != ""
}

// age is what the clock that went further says: the monotonic one stands still
// in a machine that sleeps, the wall clock can be set back.
func age(born, now time.Time) time.Duration {
	return max(now.Sub(born), now.Round(0).Sub(born.Round(0)))
}

// stamp returns meta with the key and its age now. meta has them already, and
// is not changed: an earlier attempt may still be being written.
func (k *keyState) stamp(meta map[string]string) map[string]string {
	k.mu.Lock()
	now := time.Now()
	if k.born.IsZero() {
		k.born = now
	}
	old := age(k.born, now)
	k.mu.Unlock()
	meta = maps.Clone(meta)
	meta[metaAge] = strconv.FormatUint(min(millis(old), maxMillis), 10)
	return meta
}

// giveKey gives a call of a Keyed method its key.
func (t *target) giveKey(s *spec) *Error {
	k := t.opts.Key.s
	switch {
	case !s.keyed && k == nil:
		return nil
	case !s.keyed:
		return Errorf(InvalidArgument, "CallOptions.Key: %s %q is not Keyed", s.kind, s.name)
	case k == nil:
		k = newKeyState()
	}
	for _, name := range [...]string{metaKey, metaAge} {
		if _, ok := t.opts.Metadata[name]; ok {
			return Errorf(InvalidArgument, "metadata %q of a Keyed method is not the caller's to set; use CallOptions.Key", name)
		}
	}
	t.key = k
	return nil
}

// passKey has a call that is forwarded keep its key, and remembers where it
// went.
func (t *target) passKey(ctx context.Context, r *Request) (done func(), err error) {
	if t.opts.Key.s != nil {
		return nil, Errorf(InvalidArgument, "CallOptions.Key: a call that is forwarded has the key that it came with")
	}
	if _, ok := r.Metadata[metaKey]; !ok || r.Kind != KindCall {
		return func() {}, nil
	}
	in := r.inbound(ctx)
	key, age, fault := in.keyOf(r)
	if fault != nil {
		in.refuse(r, fault)
		return nil, fault
	}
	t.key, done, err = r.Conn.config.replays.forward(key, r.sum(), age, in)
	if err != nil {
		in.refuse(r, err)
	}
	return done, err
}

// keyedMetadata is metadata with the key, as interceptors see it.
func (t *target) keyedMetadata(m Metadata) Metadata {
	merged := Metadata{}
	maps.Copy(merged, m)
	maps.Copy(merged, t.opts.Metadata)
	merged[metaKey], merged[metaAge] = hex.EncodeToString(t.key.id[:]), "0"
	return merged
}

// checkMetadata refuses metadata that cannot be sent. With a key it returns a
// copy that has the key, and room for its age.
func (t *target) checkMetadata(m Metadata) (Metadata, *Error) {
	if t.key == nil {
		return m, m.check()
	}
	id := hex.EncodeToString(t.key.id[:])
	if had, ok := m[metaKey]; ok && had != id {
		return nil, Errorf(InvalidArgument, "an interceptor changed metadata %q", metaKey)
	}
	m = maps.Clone(m)
	m.Set(metaKey, id)
	m.Set(metaAge, strings.Repeat("0", ageDigits))
	return m, m.check()
}

// claim makes the attempt that is about to begin one of the uses of the call's
// key. An earlier attempt that is known not to have run is none.
func (cl *call) claim(cache string) *Error {
	k := cl.target.key
	if cl.claimed {
		k.release()
		cl.claimed = false
	}
	if err := k.claim(cache, cl.lost); err != nil {
		return err
	}
	cl.claimed = true
	return nil
}

// attempted is told how an attempt of a keyed call ended.
func (cl *call) attempted(meta map[string]string, err *Error) *Error {
	if err != nil && err.Outcome == Answered && meta[metaOutcome] == outcomeUnknown {
		err = err.with(MayHaveRun)
	}
	if cl.claimed && err != nil && err.Outcome == NotSent {
		cl.target.key.release()
	}
	cl.claimed = false
	return err
}

// repeatable reports whether the call may be made again when it may have run.
func (cl *call) repeatable() bool {
	if k := cl.target.key; k != nil {
		return k.remembered()
	}
	return cl.spec.idempotent
}

// checkCache returns the identity of a cache, "" if it is none.
func checkCache(id string) string {
	if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return ""
	}
	return id
}

func parseID(text string) (id [16]byte, ok bool) {
	if len(text) != 2*len(id) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(text))
	return id, err == nil
}

// keyed is what an inbound call with a key has beside the others.
type keyed struct {
	arrived time.Time
	gaveUp  atomic.Bool           // CANCEL came
	refused atomic.Pointer[Error] // the error by which it was refused, and did not run
	run     *run                  // that the call is running; under inbound.mu, and so is
	lost    bool                  // it is to run nothing any more
	left    bool                  // its caller is not there any more; under ReplayCache.mu
}

// own makes the call the one whose handler is the run. It fails if its context
// has ended.
func (in *inbound) own(r *run) error {
	if err := in.Err(); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil || in.keyed.lost {
		return context.Canceled
	}
	in.keyed.run = r
	return nil
}

func (in *inbound) disown() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.keyed.run = nil
}

// owned returns the run that the call's handler is, nil if there is none, and
// then there will be none.
func (in *inbound) owned() *run {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.keyed.run == nil || in.err != nil {
		in.keyed.lost = true
		return nil
	}
	return in.keyed.run
}

// lose takes the end of the call's session. The handler of a keyed call goes
// on: the caller comes back for the answer.
func (in *inbound) lose() {
	if in.keyed != nil {
		cfg := &in.req.Conn.config
		if r := in.owned(); r != nil && cfg.replays.detach(r, cfg.detached) && cfg.replays.leave(r, in, false) {
			return
		}
	}
	in.cancel(context.Canceled)
}

// giveUp takes a CANCEL. The handler goes on if others wait for its answer.
func (in *inbound) giveUp() {
	if in.keyed != nil {
		in.keyed.gaveUp.Store(true)
		if r := in.owned(); r != nil && in.req.Conn.config.replays.leave(r, in, true) {
			return
		}
	}
	in.cancel(context.Canceled)
}

// inbound returns the call that a handler's request came with, nil if it is not
// known or has no key.
func (r *Request) inbound(ctx context.Context) *inbound {
	if in := inboundFrom(ctx); in != nil && in.req.Conn == r.Conn && in.keyed != nil {
		return in
	}
	return nil
}

// keyOf reads a request's key, and its age by now.
func (in *inbound) keyOf(r *Request) (key replayKey, age time.Duration, err *Error) {
	key.subject = r.Conn.Identity().Subject
	var ok bool
	if key.id, ok = parseID(r.Metadata[metaKey]); !ok {
		return key, 0, Errorf(InvalidArgument, "metadata %q must be 32 hexadecimal digits", metaKey)
	}
	ms, bad := strconv.ParseUint(r.Metadata[metaAge], 10, 53)
	if bad != nil {
		return key, 0, Errorf(InvalidArgument, "metadata %q must be the milliseconds since the first attempt, 0 with that", metaAge)
	}
	age = time.Duration(min(ms, maxTimeLeft)) * time.Millisecond
	if in != nil {
		age += time.Since(in.keyed.arrived)
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

// refuse notes that err is why the call's handler did not run, so that its
// caller is told. One that is too old may have run earlier.
func (in *inbound) refuse(r *Request, err error) {
	var e *Error
	switch {
	case !errors.As(err, &e): // the end of its context
	case e == errForgotten:
		r.Reply.Set(metaOutcome, outcomeUnknown)
	case in != nil:
		in.keyed.refused.Store(e)
	}
}

// refusedBy reports whether the answer err says that no handler saw the call.
func (in *inbound) refusedBy(err error) bool {
	if in.keyed == nil {
		return false
	}
	var e *Error
	refused := in.keyed.refused.Load()
	return refused != nil && errors.As(err, &e) && e == refused
}

// once wraps a Keyed method's serve, so that each key runs it once.
func once(s *spec, serve func(context.Context, *Request) (*buf.Buf, error)) func(context.Context, *Request) (*buf.Buf, error) {
	return func(ctx context.Context, r *Request) (*buf.Buf, error) {
		if _, ok := r.Metadata[metaKey]; !ok {
			return serve(ctx, r)
		}
		in := r.inbound(ctx)
		key, age, fault := in.keyOf(r)
		if fault != nil {
			in.refuse(r, fault)
			return nil, fault
		}
		cache := r.Conn.config.replays
		run, first, err := cache.begin(key, r.sum(), age, in)
		if err != nil {
			in.refuse(r, err)
			return nil, err
		}
		if first {
			return cache.run(ctx, run, r, serve)
		}
		select {
		case <-run.done:
			return run.answer.give(r)
		case <-ctx.Done():
			cache.leave(run, nil, in != nil && in.keyed.gaveUp.Load())
			return nil, ctx.Err()
		}
	}
}

// run runs the handler and notes its answer.
func (c *ReplayCache) run(ctx context.Context, run *run, r *Request, serve func(context.Context, *Request) (*buf.Buf, error)) (*buf.Buf, error) {
	a := answer{err: &Error{Code: Internal, Message: internalText}} // unless it returns
	defer func() {
		a.meta = maps.Clone(r.Reply)
		c.end(run, a)
	}()
	body, err := serve(ctx, r)
	if err != nil {
		a.err = r.Conn.flatten(ctx, err)
	} else {
		a = answer{body: append([]byte(nil), body.Bytes()...)}
	}
	return body, err
}

// flatten makes an error what it is on the wire, so that its size is known and
// nothing else is kept of it.
func (c *Conn) flatten(ctx context.Context, err error) (e *Error) {
	defer func() {
		if recover() != nil { // logged when the call is answered, which does the same
			e = &Error{Code: Internal, Message: internalText}
		}
	}()
	f, _ := toWire(ctx, err, c.codec, c.config.mapError)
	e = fromWire(&wire.Frame{Code: f.Code, Message: f.Message, RetryAfter: f.RetryAfter}, c.codec)
	if len(f.Payload) <= maxErrorData {
		e.Data = append(Raw(nil), f.Payload...)
	}
	return e
}

// give makes the answer that of a repeat.
func (a *answer) give(r *Request) (*buf.Buf, error) {
	for k, v := range a.meta {
		r.Reply.Set(k, v)
	}
	if a.err != nil {
		return nil, a.err
	}
	return buf.Copy(a.body), nil
}

// dialledReplays are the bounds of a dialled connection's own cache: one
// server's calls, and not those of many clients.
var dialledReplays = ReplayOptions{Entries: 1 << 14, Bytes: 16 << 20}
