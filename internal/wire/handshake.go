package wire

import "strconv"

// The bodies of HELLO, WELCOME, AUTH, AUTH_OK and GOAWAY: one JSON object
// each, the same in both dialects (PROTOCOL.md section 2.2). A member that is
// zero is left out, and one that is missing reads as zero. Unknown members are
// ignored, so that features can bring their own. Credentials and a reply that are
// null are there, and nil only when the member is missing.
//
// The Parse functions return errors that wrap ErrMalformed: no object, a
// member twice, or one of the wrong type. Raw JSON in what they return points
// into the input, strings are copies. Nothing here is tied to a connection;
// all of it is safe for concurrent use.

// maxFeatures bounds a list that is kept for the life of a session.
const maxFeatures = 64

// Limits is what an end announces of itself (PROTOCOL.md section 4); 0: the
// protocol's default.
type Limits struct {
	Message uint64 // bytes in the largest message
	Calls   uint64 // calls in flight
	Window  uint64 // bytes a new stream may send before the first CREDIT
	Budget  uint64 // bytes of requests that are held at once
	Depth   uint64 // nesting of JSON
}

// HelloBody is the body of HELLO:
//
//	{"attempt":1,"client":"…","token":"…","received":0,"credentials":…,
//	 "limits":{"message":…,"calls":…,"window":…,"budget":…,"depth":…},"features":["…"],"cache":"…","schema":"…"}
type HelloBody struct {
	Attempt     uint64 // rises within one Conn
	Client      string // a random name of that Conn
	Token       string // the session to resume; "": a new one
	Received    uint64 // counted frames received in it
	Credentials []byte // raw JSON, nil: none
	Limits      Limits
	Features    []string
	Cache       string // whose answers to keyed calls it repeats, "": none
	Schema      string // fingerprints of the names that it knows, "": none
}

// WelcomeBody is the body of WELCOME:
//
//	{"token":"…","resumed":true,"reason":"…","received":0,"reply":…,
//	 "limits":{…},"features":["…"],"keepalive":20000,"grace":30000,"expires":60000,"cache":"…","schema":"…"}
type WelcomeBody struct {
	Token     string
	Resumed   bool   // always written
	Reason    string // why not resumed
	Received  uint64
	Reply     []byte // to the credentials; raw JSON, nil: none
	Limits    Limits
	Features  []string
	Keepalive uint64 // milliseconds between PINGs
	Grace     uint64 // milliseconds that the session outlives its link, 0: it does not
	Expires   uint64 // milliseconds until the credentials end, 0: never
	Cache     string // as in HELLO
	Schema    string // the server's fingerprints of names of which HELLO has others, "": none
}

// AuthBody is the body of AUTH: {"credentials":…}.
type AuthBody struct {
	Credentials []byte // raw JSON, nil: none
}

// AuthOKBody is the body of AUTH_OK, which also refuses a HELLO:
//
//	{"reply":…,"expires":60000,"error":{"code":16,"message":"…","data":…,"fault":"…","retryAfter":…}}
type AuthOKBody struct {
	Reply   []byte     // raw JSON, nil: none
	Expires uint64     // milliseconds from now, 0: never
	Error   *ErrorBody // nil: accepted
}

// ErrorBody is an error inside a body. Its code is typedrpc's own number in
// both dialects.
type ErrorBody struct {
	Code       int64
	Message    string
	Data       []byte // raw JSON, nil: none
	Fault      string // the name of the declared error that it is; "": none
	RetryAfter uint64 // milliseconds, 0: no hint
}

// AppendPlain appends e as plain JSON-RPC has errors.
func (e *ErrorBody) AppendPlain(dst []byte) []byte {
	return appendErrorObject(dst, &Frame{Code: e.Code, Message: e.Message, Payload: e.Data, Fault: e.Fault}, false)
}

// GoAwayBody is the body of GOAWAY: {"reason":"…","min":100,"max":5000}. One with an error
// says what the link is closed with, at once.
type GoAwayBody struct {
	Reason   string
	Min, Max uint64     // milliseconds in which to come back
	Error    *ErrorBody // nil: none
}

// Append appends b as a JSON object.
func (b *HelloBody) Append(dst []byte) []byte {
	w := newObject(dst)
	w.uint("attempt", b.Attempt)
	w.string("client", b.Client)
	w.string("token", b.Token)
	w.uint("received", b.Received)
	w.raw("credentials", b.Credentials)
	w.limits(b.Limits)
	w.features(b.Features)
	w.string("cache", b.Cache)
	w.string("schema", b.Schema)
	return w.end()
}

// Append appends b as a JSON object.
func (b *WelcomeBody) Append(dst []byte) []byte {
	w := newObject(dst)
	w.string("token", b.Token)
	w.name("resumed")
	w.dst = strconv.AppendBool(w.dst, b.Resumed)
	w.string("reason", b.Reason)
	w.uint("received", b.Received)
	w.raw("reply", b.Reply)
	w.limits(b.Limits)
	w.features(b.Features)
	w.uint("keepalive", b.Keepalive)
	w.uint("grace", b.Grace)
	w.uint("expires", b.Expires)
	w.string("cache", b.Cache)
	w.string("schema", b.Schema)
	return w.end()
}

// Append appends b as a JSON object.
func (b *AuthBody) Append(dst []byte) []byte {
	w := newObject(dst)
	w.raw("credentials", b.Credentials)
	return w.end()
}

// Append appends b as a JSON object.
func (b *AuthOKBody) Append(dst []byte) []byte {
	w := newObject(dst)
	w.raw("reply", b.Reply)
	w.uint("expires", b.Expires)
	w.error(b.Error)
	return w.end()
}

// Append appends b as a JSON object.
func (b *GoAwayBody) Append(dst []byte) []byte {
	w := newObject(dst)
	w.string("reason", b.Reason)
	w.uint("min", b.Min)
	w.uint("max", b.Max)
	w.error(b.Error)
	return w.end()
}

// object writes one JSON object, leaving out what is zero.
type object struct {
	dst []byte
	sep byte
}

func newObject(dst []byte) object { return object{append(dst, '{'), 0} }

func (o *object) name(name string) {
	if o.sep != 0 {
		o.dst = append(o.dst, o.sep)
	}
	o.sep = ','
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, name...)
	o.dst = append(o.dst, '"', ':')
}

func (o *object) uint(name string, v uint64) {
	if v != 0 {
		o.name(name)
		o.dst = strconv.AppendUint(o.dst, v, 10)
	}
}

func (o *object) string(name, v string) {
	if v != "" {
		o.name(name)
		o.dst = AppendString(o.dst, v)
	}
}

func (o *object) raw(name string, v []byte) {
	if len(v) > 0 {
		o.name(name)
		o.dst = append(o.dst, v...)
	}
}

func (o *object) error(e *ErrorBody) {
	if e == nil {
		return
	}
	o.name("error")
	inner := newObject(o.dst)
	inner.name("code")
	inner.dst = strconv.AppendInt(inner.dst, e.Code, 10)
	inner.string("message", e.Message)
	inner.raw("data", e.Data)
	inner.string("fault", e.Fault)
	inner.uint("retryAfter", e.RetryAfter)
	o.dst = inner.end()
}

func (o *object) limits(l Limits) {
	if l == (Limits{}) {
		return
	}
	o.name("limits")
	inner := newObject(o.dst)
	inner.uint("message", l.Message)
	inner.uint("calls", l.Calls)
	inner.uint("window", l.Window)
	inner.uint("budget", l.Budget)
	inner.uint("depth", l.Depth)
	o.dst = inner.end()
}

func (o *object) features(list []string) {
	for i, name := range list {
		if i == 0 {
			o.name("features")
			o.dst = append(o.dst, '[')
		} else {
			o.dst = append(o.dst, ',')
		}
		o.dst = AppendString(o.dst, name)
	}
	if len(list) > 0 {
		o.dst = append(o.dst, ']')
	}
}

func (o *object) end() []byte { return append(o.dst, '}') }
