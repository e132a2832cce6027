package typedrpc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
)

// Raw is a message that is encoded already, in the connection's codec, for
// code that passes on what it need not understand. As a request or response
// type it travels untouched. A Raw that an interceptor or a RawHandler is given must
// not be changed, and is valid until that returns; one that a typed handler or a caller is
// given, as a message or an item of this type, is a copy and its own.
type Raw []byte

// Method declares a procedure: its name and the types of its request and its
// response. Declare it once, in a package that both sides import, and use it
// with Handle and Call. A Method is safe for concurrent use.
//
// Req and Resp may be any types that the connection's codec carries. JSON decodes into
// no interface but any: a message that is one, or has one inside, needs a type with
// UnmarshalJSON around it. An interface type as Req needs a conversion at the call, because
// Go infers the dynamic type. A type that is used by pointer needs an [Alloc] for most codecs.
// What says nothing is a struct{}: as a request it has no params towards plain JSON-RPC peers,
// to which a named type without fields is an object.
//
// Calls run concurrently, each handler on its own goroutine, unless the method is
// Serial or Inline. A peer may also notify a method: then its handler runs like a notification's,
// and the response is dropped.
type Method[Req, Resp any] struct {
	Declared[func(context.Context, Req) (Resp, error)]
	spec *spec
}

// Notification declares a message without an answer.
//
// All notifications of a connection are handled one after another in the order of arrival, on one
// goroutine, which is also the lane of Serial methods: a slow handler delays those
// behind it and in time the sender, so hand long work to another goroutine. An error
// reaches nobody but the interceptors and the log.
type Notification[T any] struct {
	Declared[func(context.Context, T) error]
	spec *spec
}

// NewMethod declares a method. It panics if the name is bad (empty, longer than
// 255 bytes, not UTF-8, with white space or control characters, or one that the wire
// uses itself, such as "rpc.cancel" and "$/cancelRequest"), if a trait does not apply, or if
// one with an argument is there twice (of Tag and Alloc there may be several).
func NewMethod[Req, Resp any](name string, traits ...MethodTrait) Method[Req, Resp] {
	s := newSpec(name, KindMethod, traits, MethodTrait.method)
	s.carries(new(Req), new(Resp))
	s.pool.New = func() any { return new(pair[Req, Resp]) }
	s.check = func(c Codec) error {
		if err := checkType[Req](s, c); err != nil {
			return err
		}
		return checkType[Resp](s, c)
	}
	return Method[Req, Resp]{declaredBy(s, methodHandler[Req, Resp]), s}
}

// NewNotification declares a notification. It panics like NewMethod.
func NewNotification[T any](name string, traits ...RequestTrait) Notification[T] {
	s := newSpec(name, KindNotification, traits, RequestTrait.notification)
	s.carries(new(T))
	s.check = func(c Codec) error { return checkType[T](s, c) }
	return Notification[T]{declaredBy(s, notificationHandler[T]), s}
}

// pair is what one call decodes and encodes, kept per method, so that neither
// message is boxed anew for each call.
type pair[Req, Resp any] struct {
	req  Req
	resp Resp
}

// spec is a declaration without its types.
type spec struct {
	name       string
	kind       stats.Kind
	as         string // what it is where it is none of the kinds
	idempotent bool
	serial     bool
	inline     bool
	safe       bool
	keyed      bool
	timeout    time.Duration
	maxSize    int
	params     []string
	retry      *RetryPolicy
	allocs     []allocator
	pool       sync.Pool
	check      func(Codec) error
	up, down   sync.Pool   // of what streams encode and decode, *Up and *Down
	bulky      atomic.Bool // the last item was
	tags       []any

	decl      engine.Decl       // all that the engine knows of it
	described schema.Registered // what a declaration above it says of itself, see package seam
}

// A MethodTrait is a fact about a method: NewMethod takes it. Every Trait is a
// RequestTrait, every RequestTrait a CallTrait, every CallTrait a ServerStreamTrait, and
// every ServerStreamTrait a MethodTrait.
type MethodTrait interface{ method(*spec) }

// A ServerStreamTrait is a fact about a method or a server stream, which answer what they
// were asked: NewMethod and NewServerStream take it, and transfer.NewDownload.
type ServerStreamTrait interface {
	MethodTrait
	serverStream(*spec)
}

// A CallTrait is a fact about a method or a stream of any kind: NewMethod and those of
// streams take it.
type CallTrait interface {
	ServerStreamTrait
	stream(*spec)
}

// A RequestTrait is a fact about whatever has a name that a peer calls or notifies:
// every declaration takes it but a sign-in and a fault.
type RequestTrait interface {
	CallTrait
	notification(*spec)
	topicTrait
}

// A Trait is a fact about any declaration: every one takes it, a sign-in and a fault too.
type Trait interface {
	RequestTrait
	signIn(*spec)
}

// topicTrait makes a RequestTrait one that package topic takes, too.
type topicTrait = seam.RequestTrait

// methodTrait, callTrait and anyTrait are what applies to a spec of their kinds.
type (
	methodTrait func(*spec)
	callTrait   func(*spec)
	anyTrait    func(*spec)
)

func (f methodTrait) method(s *spec) { f(s) }

func (f callTrait) method(s *spec)       { f(s) }
func (f callTrait) serverStream(s *spec) { f(s) }
func (f callTrait) stream(s *spec)       { f(s) }

func (f anyTrait) method(s *spec)       { f(s) }
func (f anyTrait) serverStream(s *spec) { f(s) }
func (f anyTrait) stream(s *spec)       { f(s) }
func (f anyTrait) notification(s *spec) { f(s) }
func (f anyTrait) signIn(s *spec)       { f(s) }

func (anyTrait) RequestTrait() {}

// Idempotent says that running the method twice is the same as running it
// once. Calls in flight when a session is lost are then made again. A method is
// Idempotent or Keyed, and not both. It is a MethodTrait.
const Idempotent = idempotent(true)

type idempotent bool

func (i idempotent) method(s *spec) { s.idempotent = bool(i) }

// Serial makes a connection's calls of the method run one after another, in
// the order in which they were sent, on one lane with its notifications and all
// its other Serial methods. A Serial stream has the lane for as long as its
// handler runs. It is a CallTrait.
const Serial = serial(true)

type serial bool

func (v serial) method(s *spec)       { s.serial = bool(v) }
func (v serial) serverStream(s *spec) { s.serial = bool(v) }
func (v serial) stream(s *spec)       { s.serial = bool(v) }

// Inline says that the method's handler, and the interceptors around it, never block:
// they compute, or look something up in memory, within some microseconds. Then the
// goroutine that reads the connection may run them itself, which saves each call a
// goroutine. While one runs nothing is read from that connection, not even what ends
// the handler's context. So calls, streams and notifications that would wait, Ping and
// Reauthenticate fail at once with FailedPrecondition, where they are made with the
// handler's context to the same connection; and the handler must not wait in another way,
// close its connection, nor call runtime.Goexit. Large requests and answers, and calls whose peer has many
// answers to read, are handled on a goroutine of their own all the same. A method is
// not Inline and Serial, nor Keyed, both of which wait for others. It is a MethodTrait.
const Inline = inline(true)

type inline bool

func (v inline) method(s *spec) { s.inline = bool(v) }

// Safe says that the method, the server stream or the topic has no side effects, as HTTP
// says of its safe methods, so that any client may read it with a GET: a method's answer as
// JSON, a stream's items as Server-Sent Events (docs/guide.md). Who may is asked as for every
// call; and calls are not made again for it, as they are for Idempotent. The items of a download of package
// transfer are its pieces. With ServerStream.Restartable, and for topics, a client that lost its connection
// goes on behind the last item that it had. A Safe method or stream is not Serial, nor Keyed.
// It is a ServerStreamTrait, and a topic.Trait.
const Safe = safe(true)

type safe bool

func (v safe) method(s *spec)       { s.safe = bool(v) }
func (v safe) serverStream(s *spec) { s.safe = bool(v) }

func (safe) RequestTrait() {}

// Timeout is the deadline of calls and streams whose context has none, and the
// longest that one may take. It begins when the call is made, at the caller, and the
// handler's context has what is left of it; calls of peers that do not know the
// declaration have the deadline that they send, or none.
func Timeout(d time.Duration) CallTrait {
	return callTrait(func(s *spec) {
		s.once("Timeout", s.timeout != 0)
		if d <= 0 {
			panic(fmt.Sprintf("typedrpc: %s: Timeout must be positive, it is %v", s.title(), d))
		}
		s.timeout = d
	})
}

// Retry is the policy of the method's calls, before the connection's and after
// the call's own.
func Retry(p RetryPolicy) MethodTrait {
	return methodTrait(func(s *spec) {
		s.once("Retry", s.retry != nil)
		if err := p.check(); err != nil {
			panic(fmt.Sprintf("typedrpc: %s: %v", s.title(), err))
		}
		s.retry = p.ready()
	})
}

// MaxSize bounds each encoded message of the declaration in bytes (request, response,
// notification, item, credentials and their reply, a fault's data), below the connection's
// own limit. It is checked by the sender and the receiver.
func MaxSize(bytes int) Trait {
	return anyTrait(func(s *spec) {
		s.once("MaxSize", s.maxSize != 0)
		if bytes <= 0 {
			panic(fmt.Sprintf("typedrpc: %s: MaxSize must be positive, it is %d", s.title(), bytes))
		}
		s.maxSize = bytes
	})
}

// Params names the request's members, so that a JSON-RPC peer may send them as
// a list: with Params("minuend", "subtrahend") the params [42, 23] are read as
// {"minuend":42,"subtrahend":23}. A shorter list leaves the last ones out; a
// longer one is refused.
func Params(names ...string) RequestTrait {
	return anyTrait(func(s *spec) {
		s.once("Params", s.params != nil)
		if len(names) == 0 {
			panic(fmt.Sprintf("typedrpc: %s: Params needs a name", s.title()))
		}
		for i, n := range names {
			if n == "" || !utf8.ValidString(n) {
				panic(fmt.Sprintf("typedrpc: %s: Params: name %d is empty or not UTF-8", s.title(), i))
			}
			if slices.Contains(names[:i], n) {
				panic(fmt.Sprintf("typedrpc: %s: Params: %q is there twice", s.title(), n))
			}
		}
		s.params = names
	})
}

// Tag is a fact of the application: who may call, what it costs, which log it goes
// to. An interceptor reads it with TagOf. A declaration may have several, of types of
// its own; of two of one type the later one counts.
func Tag[T any](v T) RequestTrait {
	return anyTrait(func(s *spec) { s.tags = append(s.tags, v) })
}

// TagOf returns the declaration's Tag of type T of what r asks for. It is false if
// there is none, as for names that nobody declared here.
func TagOf[T any](r *Request) (T, bool) {
	if r != nil && r.spec != nil {
		for _, tag := range slices.Backward(r.spec.tags) {
			if v, ok := tag.(T); ok {
				return v, true
			}
		}
	}
	var none T
	return none, false
}

// newSpec makes a spec of what traits say, which apply applies.
func newSpec[T comparable](name string, kind stats.Kind, traits []T, apply func(T, *spec)) *spec {
	if err := checkDeclared(kind.String(), name); err != nil {
		panic(err.Error())
	}
	s := &spec{name: name, kind: kind}
	applyTraits(s, traits, apply)
	switch {
	case s.idempotent && s.keyed:
		panic(fmt.Sprintf("typedrpc: method %q is Idempotent and Keyed: a method that may run twice needs no keys", name))
	case s.safe && (s.serial || s.keyed):
		panic(fmt.Sprintf("typedrpc: %s is Safe, and Serial or Keyed: what has no side effects needs no order, and no key", s.title()))
	case s.inline && (s.serial || s.keyed):
		panic(fmt.Sprintf("typedrpc: method %q is Inline, and Serial or Keyed: its calls would wait for others", name))
	case s.retry != nil && !s.idempotent && !s.keyed:
		if c := s.retry.useless(); c != OK {
			panic(fmt.Sprintf("typedrpc: method %q: its policy retries %q, which is always an answer, and after an answer only what is Idempotent or Keyed is called again", name, c))
		}
	}
	return s.declared()
}

func applyTraits[T comparable](s *spec, traits []T, apply func(T, *spec)) {
	var none T
	for _, t := range traits {
		if t == none {
			panic(fmt.Sprintf("typedrpc: %s has a nil trait", s.title()))
		}
		apply(t, s)
	}
}

// once refuses a trait that there is already: which one would count?
func (s *spec) once(trait string, there bool) {
	if there {
		panic(fmt.Sprintf("typedrpc: %s has the trait %s twice", s.title(), trait))
	}
}

// title is the declaration in an error's text.
func (s *spec) title() string {
	if s.name == "" {
		return "the sign-in"
	}
	return fmt.Sprintf("%s %q", cmp.Or(s.as, s.kind.String()), s.name)
}

// declared tells the engine what it needs to know of s.
func (s *spec) declared() *spec {
	s.decl = engine.Decl{Name: s.name, Kind: engine.Kind(s.kind), Idempotent: s.idempotent, Serial: s.serial, Inline: s.inline, MaxSize: s.maxSize, Kept: [2]bool{wire.Kept(s.name, false), wire.Kept(s.name, true)}}
	return s
}

// checkDeclared says what is wrong with the name of a declaration.
func checkDeclared(of, name string) error {
	if wire.Kept(name, true) || wire.Kept(name, false) {
		return fmt.Errorf("typedrpc: %s name %q is reserved: typedrpc uses it on the wire (PROTOCOL.md section 7)", of, name)
	}
	return checkName(of, name)
}

// checkName says what is wrong with the form of a name: a method's, a fault's.
func checkName(of, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("typedrpc: a %s needs a name", of)
	case len(name) > wire.MaxMethod:
		return fmt.Errorf("typedrpc: %s name %.20q… has %d bytes, at most %d are allowed", of, name, len(name), wire.MaxMethod)
	case !utf8.ValidString(name):
		return fmt.Errorf("typedrpc: %s name %q is not UTF-8", of, name)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return fmt.Errorf("typedrpc: %s name %q has white space or control characters", of, name)
	}
	return nil
}
