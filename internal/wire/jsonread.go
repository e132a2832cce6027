package wire

import (
	"bytes"
	"errors"
	"strconv"
	"sync"
)

// SyntaxError says why a whole JSON-RPC message cannot be used. It wraps
// ErrMalformed. A plain peer is answered with it, by a FAIL with its code; to
// a peer with hello it ends the connection (4400).
type SyntaxError struct {
	Code int64  // -32700 (parse error) or -32600 (invalid request), JSON-RPC 2.0 section 5.1
	ID   []byte // the id as written, where one could be read; otherwise nil. It points into the message.
	Text string

	// Answers end the calls that a plain peer's message was meant to answer, as far
	// as that can be told. Mute says that it was meant for nothing else: what answers
	// is not answered.
	Answers []Frame
	Mute    bool
}

func (e *SyntaxError) Error() string { return ErrMalformed.Error() + ": " + e.Text }

// Unwrap returns ErrMalformed.
func (e *SyntaxError) Unwrap() error { return ErrMalformed }

// envelopeDepth is how much nesting the envelope itself takes at most: array,
// object, params of a control frame. It comes on top of Reader.MaxDepth, which
// is a promise about payloads.
const envelopeDepth = 3

const (
	// maxMembers bounds what is remembered of one envelope's unknown members.
	maxMembers = 128
	// keepFrames bounds the scratch that a Reader keeps between messages: one
	// big batch must not cost its memory for the life of a connection.
	keepFrames = 64
)

// large has room for the largest batch. What a peer makes with two bytes for each
// element is not to cost a quarter of a megabyte every time, growing to that.
var large = sync.Pool{New: func() any { return new([MaxBatch]Frame) }}

// Reader reads messages of the JSON-RPC 2.0 dialect (PROTOCOL.md section 7).
// Set its fields before the first Read. Not safe for concurrent use.
type Reader struct {
	Hello    bool                 // the peer says hello: typedrpc's own frames, nothing forgiven
	MaxDepth int                  // nesting of payloads; 0: the constant MaxDepth
	Intern   func([]byte) string  // as for DecodeBinary; may be nil
	Ours     func(id uint64) bool // reports whether a call was made with it; may be nil

	Odd []Oddity // what was strange about answers in the last message of a plain peer

	frames []Frame
	large  *[MaxBatch]Frame // where those are, of a large batch
	text   []byte           // an unescaped method name
}

// Read parses the whole message before it returns anything, so that after an
// error nothing of it has been acted on. It returns the message's frames, in a
// slice that the next Read uses again, and whether the message was an array.
// Payload and RawID point into msg. Requests and responses without metadata
// are read without allocating, once scratch has grown and when Intern knows
// the method.
//
// Errors are *SyntaxError, which wraps ErrMalformed: the message is no JSON,
// an empty array, an array of more than MaxBatch elements, or a scalar. With
// Hello so is every other fault. Without it an element that is JSON, but neither a
// valid request nor an answer, becomes a frame of type Invalid; and what is wrong
// with an answer is in Odd.
func (r *Reader) Read(msg []byte) (frames []Frame, array bool, err error) {
	r.Forget()
	depth := r.MaxDepth
	if depth == 0 {
		depth = MaxDepth
	}
	s := newScanner(msg, depth+envelopeDepth)
	switch s.peek() {
	case '{':
		err = r.one(&s)
	case '[':
		array = true
		err = r.batch(&s)
	default:
		if err = s.value(); err == nil {
			if err = s.end(); err == nil {
				err = &SyntaxError{Code: codeInvalid, Text: "message is no object or array"}
			}
		}
		err = parseError(err, nil)
	}
	if err != nil {
		var fault *SyntaxError
		if !r.Hello && errors.As(err, &fault) {
			r.Odd = nil // those who are told of them are told of this
			r.skim(msg, fault)
		}
		return nil, array, err
	}
	return r.frames, array, nil
}

// Forget gives up the frames that Read returned last: they hold its message.
func (r *Reader) Forget() {
	clear(r.frames)
	r.frames, r.Odd = r.frames[:0], nil
	if r.large != nil {
		large.Put(r.large)
		r.frames, r.large = nil, nil
	}
}

// parseError turns a scanner's error into a SyntaxError.
func parseError(err error, id []byte) error {
	var own *SyntaxError
	if err == nil || errors.As(err, &own) {
		return err
	}
	var fault *scanError
	text := err.Error()
	if errors.As(err, &fault) {
		text = fault.what + " at offset " + strconv.Itoa(fault.offset)
	}
	return &SyntaxError{Code: codeParse, ID: id, Text: text}
}

func (r *Reader) one(s *scanner) error {
	var e envelope
	err := e.read(s)
	if err == nil {
		err = s.end()
	}
	if err != nil {
		if e.raw[memberMethod] == nil {
			return parseError(err, nil) // it may be a response, see correlatedID
		}
		return parseError(err, e.correlatedID())
	}
	return r.add(&e, false)
}

func (r *Reader) batch(s *scanner) error {
	a, err := s.array()
	if err != nil {
		return parseError(err, nil)
	}
	for {
		more, err := a.next()
		if err != nil {
			return parseError(err, nil)
		}
		if !more {
			break
		}
		// Whether the rest is JSON is not worth finding out.
		if len(r.frames) == MaxBatch {
			return &SyntaxError{Code: codeInvalid, Text: "array of more than " + strconv.Itoa(MaxBatch) + " elements"}
		}
		var e envelope
		if s.peek() == '{' {
			err = e.read(s)
		} else {
			e.bad = "invalid request: no object"
			err = s.value()
		}
		if err != nil {
			return parseError(err, nil) // an id among many would mislead
		}
		if err := r.add(&e, true); err != nil {
			return err
		}
	}
	if len(r.frames) == 0 {
		return &SyntaxError{Code: codeInvalid, Text: "empty array"}
	}
	return parseError(s.end(), nil)
}

// add turns an envelope into the next frame.
func (r *Reader) add(e *envelope, inArray bool) error {
	if len(r.frames) == keepFrames && r.large == nil {
		r.large = large.Get().(*[MaxBatch]Frame)
		n := copy(r.large[:], r.frames)
		r.frames = r.large[:n]
	}
	r.frames = append(r.frames, Frame{})
	f := &r.frames[len(r.frames)-1]
	if !r.Hello && r.answers(e) {
		r.answer(e, f)
		return nil
	}
	bad := r.interpret(e, f, inArray)
	switch {
	case bad == "":
		return nil
	case r.Hello:
		return &SyntaxError{Code: codeInvalid, ID: e.correlatedID(), Text: bad}
	}
	*f = Frame{Type: Invalid, Code: codeInvalid, Message: bad, RawID: e.correlatedID()}
	return nil
}

// The envelope's members. Names are exact; others are ignored.
const (
	memberJSONRPC = iota
	memberID
	memberMethod
	memberParams
	memberResult
	memberError
	memberMeta
	memberTimeout
	memberStream
	memberLane
	memberNoItems
	memberNotRun
	memberNotification // what rpc-websockets has instead of a method, in its events
	numMembers
)

// interpret fills f and returns what is wrong with e, "" for nothing.
func (r *Reader) interpret(e *envelope, f *Frame, inArray bool) (bad string) {
	if e.bad != "" {
		return e.bad
	}
	if !r.Hello && e.isEvent() {
		e.raw[memberMethod] = e.raw[memberNotification]
		return r.request(e, f, inArray)
	}
	if !isVersion(e.raw[memberJSONRPC]) {
		return `invalid request: jsonrpc is not "2.0"`
	}
	method, result, fault := e.raw[memberMethod], e.raw[memberResult], e.raw[memberError]
	if !r.Hello { // who writes null beside a request means nothing by it
		if isNull(result) {
			result = nil
		}
		if isNull(fault) {
			fault = nil
		}
	}
	switch {
	case method != nil && result == nil && fault == nil:
		return r.request(e, f, inArray)
	case method == nil && result != nil && fault == nil:
		return r.result(e, f, inArray)
	case method == nil && result == nil && fault != nil:
		return r.failure(e, f)
	}
	return "invalid request: not exactly one of method, result and error"
}

func (r *Reader) request(e *envelope, f *Frame, inArray bool) (bad string) {
	rawMethod, rawID := e.raw[memberMethod], e.raw[memberID]
	if !isString(rawMethod) {
		return "invalid request: method is no string"
	}
	method := rawMethod[1 : len(rawMethod)-1]
	if bytes.IndexByte(method, '\\') >= 0 {
		r.text = appendUnescaped(r.text[:0], method)
		method = r.text
	}
	switch {
	case len(method) == 0:
		return "invalid request: empty method name"
	case len(method) > MaxMethod:
		return "invalid request: method name too long"
	}
	params := e.raw[memberParams]
	switch {
	case isNull(params):
		params = nil
	case len(params) > 0 && params[0] != '{' && params[0] != '[':
		return "invalid request: params are no object or array"
	}
	if r.Hello && bytes.HasPrefix(method, []byte("rpc.")) {
		handled, bad := control(method, rawID, params, f, inArray)
		if handled || bad != "" {
			return bad
		}
	}
	if !r.Hello && rawID == nil && isCancel(method) && plainCancel(method, params, f) {
		return ""
	}
	f.Type = Notify
	if rawID != nil {
		if bad := r.setID(rawID, f); bad != "" {
			return bad
		}
		f.Type = Call
		f.Flags = FromCaller
		if bad := callOptions(e, f); bad != "" {
			return bad
		}
	}
	f.Payload = params
	f.Method = r.intern(method)
	return setMeta(e.raw[memberMeta], f)
}

func (r *Reader) intern(name []byte) string {
	if r.Intern != nil {
		if known := r.Intern(name); known != "" {
			return known
		}
	}
	return string(name)
}

func callOptions(e *envelope, f *Frame) (bad string) {
	var ok bool
	if v := e.raw[memberTimeout]; v != nil {
		if f.TimeLeft, ok = parseUint(v); !ok {
			return "invalid request: timeout is no count of milliseconds"
		}
	}
	switch v := e.raw[memberStream]; string(v) {
	case "":
	case `"server"`:
		f.Kind = ServerStream
	case `"client"`:
		f.Kind = ClientStream
	case `"bidi"`:
		f.Kind = BidiStream
	default:
		return "invalid request: unknown kind of stream"
	}
	if !setFlag(e.raw[memberLane], f, Lane) || !setFlag(e.raw[memberNoItems], f, NoItems) {
		return "invalid request: lane or noItems is no boolean"
	}
	return ""
}

// setID reads the id of a request, and of a response of a peer with hello.
func (r *Reader) setID(raw []byte, f *Frame) (bad string) {
	if r.Hello {
		id, ok := helloID(raw)
		if !ok {
			return "invalid request: id is no integer from 1 to 2^53-1"
		}
		f.ID = id
		return ""
	}
	if !legalID(raw) && !isNull(raw) {
		return "invalid request: id is no string, finite number or null, or too long"
	}
	setRawID(raw, f)
	return ""
}

func setRawID(raw []byte, f *Frame) {
	f.RawID = raw
	f.ID, _ = parseUint(raw) // 0 when it is none of ours
}

// result reads the RESULT of a peer with hello, failure its FAIL.
func (r *Reader) result(e *envelope, f *Frame, inArray bool) (bad string) {
	payload := e.raw[memberResult]
	f.Payload = payload
	if id := e.raw[memberID]; isString(id) {
		switch unquote(id) {
		case methodHello:
			f.Type = Welcome
			return checkHandshake(payload, inArray)
		case methodAuth:
			f.Type = AuthOK
			return checkHandshake(payload, inArray)
		}
	}
	f.Type = Result
	if bad := r.setID(e.raw[memberID], f); bad != "" {
		return bad
	}
	return setMeta(e.raw[memberMeta], f)
}

func (r *Reader) failure(e *envelope, f *Frame) (bad string) {
	f.Type = Fail
	if bad := r.setID(e.raw[memberID], f); bad != "" {
		return bad
	}
	if !setFlag(e.raw[memberNotRun], f, NotRun) {
		return "invalid response: notRun is no boolean"
	}
	if bad := setError(e.raw[memberError], f); bad != "" {
		return bad
	}
	return setMeta(e.raw[memberMeta], f)
}
