package wire

import "math"

// Subscriptions of plain peers (PROTOCOL.md section 7.4). The request for one names a
// server stream, whose items come as notifications.

// Subscribe is what the params of a request for a subscription say.
type Subscribe struct {
	Name   string // of the stream
	Params []byte // its request as written, or the rest of a list; nil: none
	Marks  bool   // items are to say their places …
	From   string // … and the stream is to go on behind this one; "": from its beginning
}

// MaxPlace bounds the places of items: one travels in a header, too, and a subscription
// keeps the one that it has begun with.
const MaxPlace = 1 << 10

// ReadSubscribe reads the params of a request for a subscription, which were scanned
// before: an object with the members method and params, or a list that begins with the
// name. bad says what is wrong with them, "" for nothing. Params has a copy.
func ReadSubscribe(params []byte) (s Subscribe, bad string) {
	if len(params) > 0 && params[0] == '[' {
		return subscribeList(params)
	}
	var name []byte
	bad = walk(params, func(key, value []byte) string {
		switch string(key) {
		case "method":
			name = value
		case "params":
			if !isNull(value) {
				s.Params = append([]byte(nil), value...)
			}
		case "from":
			switch {
			case isString(value):
				if s.Marks, s.From = true, unquote(value); len(s.From) > MaxPlace {
					return "from is longer than any place"
				}
			case !isNull(value):
				return "from is no string"
			}
		}
		return ""
	})
	switch {
	case bad != "":
		return s, "params are no object with a method: " + bad
	case !isString(name):
		return s, "params have no method, which names the stream, or one that is no string"
	}
	s.Name = unquote(name)
	return s, ""
}

// subscribeList reads ["name", …]: what follows the name is the stream's list of params.
func subscribeList(params []byte) (s Subscribe, bad string) {
	n := 0
	err := Array(params, math.MaxInt, func(value []byte) error {
		switch n {
		case 0:
			if !isString(value) {
				bad = "the first of the params is no string, which names the stream"
				break
			}
			s.Name = unquote(value)
		case 1:
			s.Params = append(append(s.Params, '['), value...)
		default:
			s.Params = append(append(s.Params, ','), value...)
		}
		n++
		return nil
	})
	switch {
	case err != nil:
		bad = "params are no list"
	case n == 0 && bad == "":
		bad = "params are an empty list, and name no stream"
	case n > 1:
		s.Params = append(s.Params, ']')
	}
	return s, bad
}

// ReadUnsubscribe reads which subscription params name: a list of its id alone, or an
// object with the member subscription. It is false where they name none.
func ReadUnsubscribe(params []byte) (id string, ok bool) {
	var raw []byte
	if len(params) > 0 && params[0] == '[' {
		n := 0
		err := Array(params, math.MaxInt, func(value []byte) error {
			raw = value
			n++
			return nil
		})
		ok = err == nil && n == 1
	} else {
		ok = walk(params, func(key, value []byte) string {
			if string(key) == "subscription" {
				raw = value
			}
			return ""
		}) == ""
	}
	if !ok || !isString(raw) {
		return "", false
	}
	return unquote(raw), true
}

// appendNotice appends what a subscription tells: the method is f's, RawID the
// subscription's id, and the type says what: an item, or how it ended.
func appendNotice(dst []byte, f *Frame) []byte {
	dst = AppendString(append(dst, `,"method":`...), f.Method)
	dst = append(dst, `,"params":{"subscription":`...)
	dst = append(dst, f.RawID...)
	switch f.Type {
	case Item:
		dst = appendTrue(dst, `,"history":true`, f.Flags&History != 0)
		dst = appendUint(dst, `,"missed":`, f.Dropped)
		dst = appendRaw(dst, `,"result":`, f.Payload)
	case Result:
		dst = append(dst, `,"done":true`...)
	case Fail:
		dst = appendErrorObject(append(dst, `,"error":`...), f, false)
	}
	return append(dst, '}')
}

// isNotice reports whether f is what a plain peer's subscription tells.
func (f *Frame) isNotice() bool {
	return f.Method != "" && (f.Type == Item || f.Type == Result || f.Type == Fail)
}

// AppendMark appends to an item's payload, which is JSON, what its notice says of its
// place beside it.
func AppendMark(payload []byte, at string) []byte {
	if len(payload) == 0 {
		payload = append(payload, "null"...)
	}
	return AppendString(append(payload, `,"at":`...), at)
}

// Notice is what a server tells the peer that asked it for one subscription.
type Notice struct {
	Answer bool   // it answers the request
	Result []byte // the item, or the id; nil: there is none
	Error  []byte // the error object; nil: none
	Code   int64  // … and its code, as JSON-RPC has it
	At     string // the item's place; "": it is not said
	Missed uint64 // items dropped before it
	Done   bool
}

// ReadNotice reads a message of ours, which is no array, for those who pass it on in
// another form. Its slices point into msg.
func ReadNotice(msg []byte) (n Notice, err error) {
	n.Answer = true
	member := func(key string, value []byte) error {
		switch key {
		case "result":
			n.Result = value
		case "error":
			n.Error = value
			return Object(value, math.MaxInt, func(key string, value []byte) error {
				if key == "code" {
					n.Code, _ = parseInt(value)
				}
				return nil
			})
		case "at":
			n.At = unquote(value)
		case "missed":
			n.Missed, _ = parseUint(value)
		case "done":
			n.Done = true
		}
		return nil
	}
	err = Object(msg, math.MaxInt, func(key string, value []byte) error {
		if key == "params" {
			n.Answer = false
			return Object(value, math.MaxInt, member)
		}
		return member(key, value)
	})
	return n, err
}
