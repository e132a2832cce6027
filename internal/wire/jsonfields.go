package wire

import "math"

// What is inside the members of an envelope. All of it has been scanned once,
// so that faults of syntax and depth cannot come any more.

// walk calls member with each name and value of an object. It returns what is
// wrong, "" for nothing.
func walk(raw []byte, member func(name, value []byte) (bad string)) (bad string) {
	if !isObject(raw) {
		return "is no object"
	}
	s := newScanner(raw, math.MaxInt)
	o, err := s.object()
	if err != nil {
		return "is no object"
	}
	for {
		name, value, err := o.next()
		switch {
		case err != nil:
			return "is no JSON"
		case name == nil:
			return ""
		case o.twice:
			return "has a member twice"
		}
		if bad := member(name, value); bad != "" {
			return bad
		}
	}
}

// setFlag sets flag if raw is true, and reports whether raw is a boolean or
// not there.
func setFlag(raw []byte, f *Frame, flag Flags) bool {
	set, ok := parseBool(raw)
	if set {
		f.Flags |= flag
	}
	return ok || raw == nil
}

func setMeta(raw []byte, f *Frame) (bad string) {
	if raw == nil {
		return ""
	}
	const wrong = "invalid request: meta is no object of strings, or too large"
	room := MaxMeta
	bad = walk(raw, func(name, value []byte) string {
		if !isString(value) {
			return wrong
		}
		v := unquote(value)
		if room -= len(name) + len(v); room < 0 {
			return wrong
		}
		if f.Meta == nil {
			f.Meta = make(map[string]string)
		}
		f.Meta[string(name)] = v
		return ""
	})
	if bad != "" {
		return wrong
	}
	return ""
}

// setError reads the error object of a peer with hello (JSON-RPC 2.0 section 5.1).
func setError(raw []byte, f *Frame) (bad string) {
	var code, message bool
	bad = walk(raw, func(name, value []byte) string {
		ok := true
		switch string(name) {
		case "code":
			f.Code, ok = parseInt(value)
			f.Code = codeFromJSON(f.Code)
			code = true
		case "message":
			if ok = isString(value); ok {
				f.Message = unquote(value)
			}
			message = true
		case "data":
			if !isNull(value) {
				f.Payload = value
			}
		case "fault": // strangers may mean something else by it
			if isString(value) {
				f.Fault = faultName(unquote(value))
			}
		case "number":
			f.Number, ok = parseInt(value)
		case "retryAfter":
			f.RetryAfter, ok = parseUint(value)
		}
		if !ok {
			return "has a member of the wrong type"
		}
		return ""
	})
	if bad != "" || !code || !message {
		return "invalid response: error is no object with an integer code and a string message"
	}
	return ""
}

// faultName is the name of a fault, "" where it is too long for one.
func faultName(name string) string {
	if len(name) > MaxMethod {
		return ""
	}
	return name
}

func isCancel(method []byte) bool {
	return string(method) == methodCancelLSP || string(method) == methodCancel
}

// plainCancel reports whether params name a call. If they do not, the frame
// stays what it looks like, a notification, which nobody answers.
func plainCancel(method, params []byte, f *Frame) bool {
	var id []byte
	bad := walk(params, func(name, value []byte) string {
		if string(name) == "id" {
			id = value
		}
		return ""
	})
	if bad != "" || !legalID(id) {
		return false
	}
	f.Type = Cancel
	f.Flags = FromCaller
	if string(method) == methodCancelLSP {
		f.Code = CodeCancelled
	}
	setRawID(id, f)
	return true
}

func checkHandshake(payload []byte, inArray bool) (bad string) {
	switch {
	case inArray:
		return "handshake in an array"
	case !isObject(payload):
		return "handshake body is no object"
	}
	return ""
}

// control reads the requests and notifications that typedrpc keeps for itself.
// It reports false for others.
func control(method, rawID, params []byte, f *Frame, inArray bool) (handled bool, bad string) {
	switch string(method) {
	case methodHello, methodAuth:
		f.Type = Hello
		if string(method) == methodAuth {
			f.Type = Auth
		}
		if !isString(rawID) || unquote(rawID) != string(method) {
			return true, "handshake with a wrong id"
		}
		f.Payload = params
		return true, checkHandshake(params, inArray)
	case methodGoAway:
		f.Type = GoAway
		f.Payload = params
		if !isObject(params) {
			return true, "rpc.goaway: params are no object"
		}
	case methodPing:
		f.Type = Ping
	case methodAck:
		f.Type = Ack
	case methodCancel:
		f.Type = Cancel
		f.Flags = FromCaller
	case methodEnd:
		f.Type = End
		f.Flags = FromCaller
	case methodItem:
		f.Type = Item
	case methodCredit:
		f.Type = Credit
	case methodHead:
		f.Type = Head
	default:
		return false, ""
	}
	if rawID != nil {
		return true, "control frame with an id"
	}
	if f.Type == GoAway {
		return true, ""
	}
	return true, controlParams(params, f)
}

// itemFlag is the flag of an ITEM that the member name stands for.
func itemFlag(name []byte) Flags {
	if string(name) == "prompt" {
		return Prompt
	}
	return History
}

// controlParams reads the named params of a control frame into f. Members
// that its type does not use are ignored.
func controlParams(params []byte, f *Frame) (bad string) {
	var id, position bool
	bad = walk(params, func(name, value []byte) string {
		ok := true
		switch string(name) {
		case "id":
			if f.Type != Ping && f.Type != Ack {
				f.ID, ok = helloID(value)
				id = true
			}
		case "position":
			if f.Type == Ping || f.Type == Ack {
				f.Position, ok = parseUint(value)
				position = true
			}
		case "caller":
			if f.Type == Item || f.Type == Credit {
				ok = setFlag(value, f, FromCaller)
			}
		case "history", "prompt":
			if f.Type == Item {
				ok = setFlag(value, f, itemFlag(name))
			}
		case "dropped":
			if f.Type == Item {
				f.Dropped, ok = parseUint(value)
			}
		case "payload":
			if f.Type == Item {
				f.Payload = value
			}
		case "meta":
			ok = f.Type != Head || setMeta(value, f) == ""
		case "items":
			if f.Type == Credit {
				f.Items, ok = parseUint(value)
			}
		case "window":
			if f.Type == Credit {
				f.Window, ok = parseUint(value)
			}
		}
		if !ok {
			return "control frame with a member of the wrong type"
		}
		return ""
	})
	switch {
	case bad != "":
		return bad
	case f.Type.needsID() && !id:
		return "control frame without an id"
	case (f.Type == Ping || f.Type == Ack) && !position:
		return "control frame without a position"
	case f.Type == Credit && f.Items == 0:
		return "rpc.credit of no items"
	}
	return ""
}
