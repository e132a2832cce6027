package wire

import (
	"bytes"
	"strconv"
)

func memberIndex(name []byte) int {
	switch string(name) {
	case "jsonrpc":
		return memberJSONRPC
	case "id":
		return memberID
	case "method":
		return memberMethod
	case "params":
		return memberParams
	case "result":
		return memberResult
	case "error":
		return memberError
	case "meta":
		return memberMeta
	case "timeout":
		return memberTimeout
	case "stream":
		return memberStream
	case "lane":
		return memberLane
	case "noItems":
		return memberNoItems
	case "notRun":
		return memberNotRun
	case "notification":
		return memberNotification
	}
	return -1
}

// envelope holds the members of one object as written; nil: not there.
type envelope struct {
	raw [numMembers][]byte
	bad string // why it is no valid request, if that is known already
}

// read reads the object that follows in s. Its error is one of syntax.
func (e *envelope) read(s *scanner) error {
	o, err := s.object()
	if err != nil {
		return err
	}
	o.limit = maxMembers
	for {
		name, value, err := o.next()
		if err != nil || name == nil {
			return err
		}
		i := memberIndex(name)
		switch {
		case o.count > maxMembers:
			e.bad = "invalid request: too many members"
			if i >= 0 && e.raw[i] == nil { // what it is, and whose, is to be known all the same
				e.raw[i] = value
			}
		case o.twice:
			e.bad = "invalid request: member used twice"
			if i == memberID && !SameID(e.raw[i], value) { // which of them is nobody's guess
				e.raw[i] = []byte("null")
			}
		case i >= 0:
			e.raw[i] = value
		}
	}
}

// isEvent reports whether e is an event of rpc-websockets' servers, which send a
// notification's name by another name.
func (e *envelope) isEvent() bool {
	for _, i := range [...]int{memberID, memberMethod, memberResult, memberError} {
		if e.raw[i] != nil {
			return false
		}
	}
	return isString(e.raw[memberNotification])
}

// correlatedID returns the id that an error answer may bear, nil for null. The
// id of a response is from our own numbers: the peer would take an answer with
// it for that of one of its own calls. So only what names a method has one.
func (e *envelope) correlatedID() []byte {
	if e.raw[memberMethod] == nil || !legalID(e.raw[memberID]) {
		return nil
	}
	return e.raw[memberID]
}

// legalID reports whether raw may be the id of a plain peer's request: a
// string, or a number that is finite for those who read it as a float64.
func legalID(raw []byte) bool {
	switch {
	case len(raw) == 0 || len(raw) > MaxRawID:
		return false
	case isString(raw):
		return true
	case !isNumber(raw):
		return false
	case bytes.IndexByte(raw, 'e') < 0 && bytes.IndexByte(raw, 'E') < 0:
		return true // 256 digits are no infinity yet
	}
	_, err := strconv.ParseFloat(string(raw), 64)
	return err == nil
}

// SameID reports whether two ids of a plain peer's are one: numbers are compared as
// numbers, and strings without their escapes.
func SameID(a, b []byte) bool {
	switch {
	case string(a) == string(b):
		return true
	case isString(a) && isString(b):
		return (bytes.IndexByte(a, '\\') >= 0 || bytes.IndexByte(b, '\\') >= 0) && unquote(a) == unquote(b)
	}
	x, ok := integerOf(a)
	if !ok {
		return false
	}
	y, ok := integerOf(b)
	return ok && x == y
}

// helloID reads the id of a peer with hello: an integer that survives any JSON
// reader.
func helloID(raw []byte) (id uint64, ok bool) {
	id, ok = parseUint(raw)
	return id, ok && id > 0 && id <= maxSafeID
}
