package wire

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Answers of plain peers. Whoever made a call waits for its answer, so one that is
// not as JSON-RPC 2.0 asks for still ends it: with what it says, where that is
// clear, and else with an error that says what is wrong. It is never answered
// itself: the peer would take that for the answer to a call of its own.

// Oddity is how a plain peer's answer differs from what JSON-RPC 2.0 asks for.
type Oddity struct {
	ID         string // as it was written, cut to 64 bytes; "": there is none
	Text       string
	Understood bool // what it says is clear all the same
}

// maxOdd bounds what is noted of one message.
const maxOdd = 16

// odd notes what is wrong with an answer.
func (r *Reader) odd(e *envelope, understood bool, text string) {
	if len(r.Odd) < maxOdd {
		r.Odd = append(r.Odd, Oddity{ID: cut(e.raw[memberID], 64), Text: text, Understood: understood})
	}
}

// answers reports whether a plain peer's object answers a call, well or not.
func (r *Reader) answers(e *envelope) bool {
	result, fault := e.raw[memberResult], e.raw[memberError]
	if e.raw[memberMethod] == nil && (result != nil || fault != nil) {
		return true
	}
	if isMissing(e.raw[memberMethod]) || !isMissing(result) || !isMissing(fault) {
		return r.ours(e.raw[memberID])
	}
	return false
}

// ours reports whether raw is the id of a call that was made here.
func (r *Reader) ours(raw []byte) bool {
	id, _ := ownID(raw)
	return id != 0 && r.Ours != nil && r.Ours(id)
}

// answer reads a plain peer's answer. What has no readable id has the id 0.
func (r *Reader) answer(e *envelope, f *Frame) {
	var how string
	f.ID, how = ownID(e.raw[memberID])
	if raw := e.raw[memberID]; legalID(raw) || isNull(raw) {
		f.RawID = raw
	}
	if how != "" && f.ID != 0 {
		r.odd(e, true, how)
	}
	noted := len(r.Odd)
	if v := e.raw[memberJSONRPC]; !isVersion(v) {
		r.odd(e, true, `jsonrpc is not "2.0"`)
	}
	result, fault := e.raw[memberResult], e.raw[memberError]
	switch {
	case e.bad != "":
		r.unreadable(e, f, strings.TrimPrefix(e.bad, "invalid request: "))
	case !isMissing(result) && !isMissing(fault):
		r.unreadable(e, f, "it has both a result and an error")
	case !isMissing(fault):
		f.Type = Fail
		r.plainError(e, f)
		if result != nil {
			r.odd(e, true, "it has a result that is null beside its error")
		}
	case result == nil:
		r.unreadable(e, f, "it has neither a result nor an error")
	default:
		f.Type, f.Payload = Result, result
		if fault != nil {
			r.odd(e, true, "it has an error that is null beside its result")
		}
	}
	if setMeta(e.raw[memberMeta], f) != "" {
		f.Meta = nil
		r.odd(e, true, "meta is no object of strings, or too large")
	}
	if f.ID != 0 {
		return
	}
	r.Odd = r.Odd[:noted] // one line for all: nobody else is told
	if f.Type == Fail {
		how += "; it says: " + f.Message
	}
	r.odd(e, false, how)
}

// unreadable makes f the end of a call whose answer does not say how it ended.
func (r *Reader) unreadable(e *envelope, f *Frame, why string) {
	f.Type, f.Code, f.Message = Fail, ownInternal, "the peer's answer cannot be read: "+why
	r.odd(e, false, why)
}

// plainError reads the error of a plain peer's answer: as much as can be told.
func (r *Reader) plainError(e *envelope, f *Frame) {
	raw := e.raw[memberError]
	var code, message []byte
	bad := walk(raw, func(name, value []byte) string {
		switch string(name) {
		case "code":
			code = value
		case "message":
			message = value
		case "data":
			if !isNull(value) {
				f.Payload = value
			}
		case "fault": // strangers may mean something else by it
			if isString(value) {
				f.Fault = faultName(unquote(value))
			}
		}
		return ""
	})
	number, ok := integerOf(code)
	switch {
	case bad != "":
		bad = "its error " + bad
		message = raw
	case isMissing(code):
		bad = "its error has no code"
	case !ok:
		bad = "its error has the code " + cut(code, 64) + ", which is no integer"
	case isMissing(message):
		r.odd(e, true, "its error has no message")
	case !isString(message):
		r.odd(e, true, "its error has a message that is no string")
	}
	switch {
	case isString(message):
		f.Message = unquote(message)
	case !isMissing(message):
		f.Message = cut(message, 256)
	default:
		f.Message = "the peer gave no reason"
	}
	if bad != "" {
		f.Code, f.Message = ownInternal, f.Message+" (the peer's answer is malformed: "+bad+")"
		r.odd(e, false, bad)
		return
	}
	f.Code, f.Number = codeFromPlain(number), number
}

// codeFromPlain is what a plain peer's number is to us. It means what the peer means
// by it, but for those that JSON-RPC has itself. So what is acted upon here, and 0, is
// never taken from it.
func codeFromPlain(number int64) int64 {
	switch number {
	case 0, ownCanceled, ownDeadline, ownUnavailable:
		return ownUnknown
	}
	return codeFromJSON(number)
}

// ownID reads an id of ours that has come back: the same number, however it is
// written, also in a string. how is what is odd about it; id is 0 where it cannot be
// one.
func ownID(raw []byte) (id uint64, how string) {
	switch {
	case raw == nil:
		return 0, "it has no id"
	case isNull(raw):
		return 0, "its id is null"
	case len(raw) > MaxRawID:
		return 0, "its id is too long"
	}
	if id, ok := helloID(raw); ok {
		return id, ""
	}
	number := raw
	if isString(raw) {
		how, number = "its id is a string", []byte(unquote(raw))
	} else {
		how = "its id is no plain integer"
	}
	if n, ok := integerOf(number); ok && n > 0 && uint64(n) <= maxSafeID {
		return uint64(n), how
	}
	return 0, "its id is none of ours"
}

// integerOf reads a JSON number that is an integer, as it may be written: 7, 7.0,
// 70e-1. It is exact.
func integerOf(raw []byte) (v int64, ok bool) {
	if !isNumber(raw) {
		return 0, false
	}
	if end, bad := skipNumber(raw, 0); bad != "" || end < len(raw) {
		return 0, false
	}
	if v, ok = parseInt(raw); ok {
		return v, true
	}
	mantissa, exponent := raw, int64(0)
	if i := bytes.IndexAny(raw, "eE"); i >= 0 {
		if exponent, ok = parseInt(bytes.TrimPrefix(raw[i+1:], []byte("+"))); !ok {
			return 0, false
		}
		mantissa = raw[:i]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	fraction = bytes.TrimRight(fraction, "0")
	exponent -= int64(len(fraction))
	digits := append(bytes.Clone(whole), fraction...)
	for ; exponent < 0 && len(digits) > 0 && digits[len(digits)-1] == '0'; exponent++ {
		digits = digits[:len(digits)-1]
	}
	zero := len(bytes.Trim(digits, "-0")) == 0
	switch {
	case zero:
		return 0, true
	case exponent < 0 || exponent > 20: // no integer, or none of 64 bits
		return 0, false
	}
	return parseInt(append(digits, bytes.Repeat([]byte("0"), int(exponent))...))
}

// isMissing reports whether a member is not there, or null.
func isMissing(raw []byte) bool { return raw == nil || isNull(raw) }

func isVersion(raw []byte) bool {
	return string(raw) == `"2.0"` || isString(raw) && unquote(raw) == "2.0"
}

// cut is the beginning of a text, for people.
func cut(raw []byte, most int) string {
	if len(raw) <= most {
		return string(raw)
	}
	for most > 0 && !utf8.RuneStart(raw[most]) {
		most--
	}
	return string(raw[:most]) + "…"
}
