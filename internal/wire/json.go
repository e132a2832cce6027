package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// The JSON-RPC 2.0 dialect, PROTOCOL.md section 7: the names both directions
// share, and writing. Reading is in jsonread.go.
const (
	methodHello      = "rpc.hello"
	methodAuth       = "rpc.auth"
	methodPing       = "rpc.ping"
	methodAck        = "rpc.ack"
	methodGoAway     = "rpc.goaway"
	methodCancel     = "rpc.cancel"
	methodItem       = "rpc.item"
	methodEnd        = "rpc.end"
	methodCredit     = "rpc.credit"
	methodHead       = "rpc.head"
	methodCancelLSP  = "$/cancelRequest" // what plain clients use, after the Language Server Protocol
	maxSafeID        = uint64(1)<<53 - 1 // the largest integer that every JSON reader keeps exact
	maxJSONFields    = 240               // more than all member names and integers of one frame take
	codeParse        = -32700            // JSON-RPC 2.0 section 5.1
	codeInvalid      = -32600            //
	codeNoMethod     = -32601            //
	codeBadParams    = -32602            //
	codeInternal     = -32603            //
	ownCanceled      = 1                 // Canceled
	ownUnknown       = 2                 // Unknown
	ownBadParams     = 3                 // InvalidArgument
	ownDeadline      = 4                 // DeadlineExceeded
	ownUnimplemented = 12                // Unimplemented
	ownInternal      = 13                // Internal
	ownUnavailable   = 14                // Unavailable
)

// CodeCancelled is what language servers answer a cancelled request with.
const CodeCancelled = -32800

var kindNames = [...]string{ServerStream: "server", ClientStream: "client", BidiStream: "bidi"}

// CodeToJSON and codeFromJSON translate between typedrpc's codes, which are
// gRPC's numbers, and those that JSON-RPC reserves.
func CodeToJSON(code int64) int64 {
	switch code {
	case ownBadParams:
		return codeBadParams
	case ownUnimplemented:
		return codeNoMethod
	case ownInternal:
		return codeInternal
	}
	return code
}

func codeFromJSON(code int64) int64 {
	switch code {
	case codeBadParams, codeParse, codeInvalid:
		return ownBadParams
	case codeNoMethod:
		return ownUnimplemented
	case codeInternal:
		return ownInternal
	}
	return code
}

// isControl reports whether method is one that this version uses itself.
func isControl(method string) bool {
	switch method {
	case methodHello, methodAuth, methodPing, methodAck, methodGoAway,
		methodCancel, methodItem, methodEnd, methodCredit, methodHead:
		return true
	}
	return false
}

// MayBeIgnored reports whether a notification by name is nobody's loss: the Language Server
// Protocol lets whoever does not know one that begins with $/ ignore it.
func MayBeIgnored(name string) bool { return strings.HasPrefix(name, "$/") }

// Kept reports whether name is one that the dialects with hello, or the plain one, use
// themselves: under it a program's message would become one of ours. Safe for
// concurrent use.
func Kept(name string, hello bool) bool {
	if hello {
		return isControl(name)
	}
	return name == methodCancel || name == methodCancelLSP
}

// JSONSize returns an upper bound on the length of f's JSON encoding, cheaply.
// Safe for concurrent use.
func JSONSize(f *Frame) int {
	n := maxJSONFields + len(f.RawID) + 6*(len(f.Method)+len(f.Message)+len(f.Fault)) + len(f.Payload)
	for k, v := range f.Meta {
		n += len(`"":"",`) + 6*(len(k)+len(v))
	}
	return n
}

// AppendJSON appends f as one JSON-RPC 2.0 object (PROTOCOL.md section 7) to
// dst and returns the extended slice. hello says that the peer said hello;
// only then there are control frames, metadata, deadlines and streams, and to
// others what they would not understand is left out. A CANCEL for a plain peer
// is `$/cancelRequest`, and an ITEM, RESULT or FAIL with a method is what its subscription
// tells by that name. f.Payload, f.RawID and the bodies of HELLO and its kin
// are embedded as they are: the caller guarantees that they are valid JSON.
//
// AppendJSON fails with ErrNotEncodable for what the dialect cannot say (CHUNK,
// MORE, a control frame to a plain peer, a call without an id), and with
// ErrTooLarge when the method name or the metadata is over its limit; then dst
// is returned unchanged. It does not allocate when dst has room, and is safe
// for concurrent use.
func AppendJSON(dst []byte, f *Frame, hello bool) ([]byte, error) {
	if err := checkJSON(f, hello); err != nil {
		return dst, err
	}
	dst = append(dst, `{"jsonrpc":"2.0"`...)
	if !hello && f.isNotice() {
		return append(appendNotice(dst, f), '}'), nil
	}
	switch f.Type {
	case Call, Notify:
		dst = appendRequest(dst, f, hello)
	case Result:
		dst = appendID(dst, f)
		dst = appendRaw(dst, `,"result":`, f.Payload)
		if hello {
			dst = appendMetaJSON(dst, f.Meta)
		}
	case Fail:
		dst = appendError(dst, f, hello)
	case Hello:
		dst = appendRaw(dst, `,"id":"rpc.hello","method":"rpc.hello","params":`, f.Payload)
	case Auth:
		dst = appendRaw(dst, `,"id":"rpc.auth","method":"rpc.auth","params":`, f.Payload)
	case Welcome:
		dst = appendRaw(dst, `,"id":"rpc.hello","result":`, f.Payload)
	case AuthOK:
		dst = appendRaw(dst, `,"id":"rpc.auth","result":`, f.Payload)
	case Cancel:
		if hello {
			dst = append(dst, `,"method":"rpc.cancel","params":{"id":`...)
		} else {
			dst = append(dst, `,"method":"$/cancelRequest","params":{"id":`...)
		}
		dst = append(appendIDValue(dst, f), '}')
	default:
		dst = appendControl(dst, f)
	}
	return append(dst, '}'), nil
}

func checkJSON(f *Frame, hello bool) error {
	switch {
	case f.Type == Invalid || f.Type == Chunk || f.Type >= numTypes || f.Flags&More != 0:
		return fmt.Errorf("%w: %v or MORE in JSON", ErrNotEncodable, f.Type)
	case !hello && !f.Type.isPlain() && !f.isNotice():
		return fmt.Errorf("%w: %v to a peer without hello", ErrNotEncodable, f.Type)
	case hello && len(f.RawID) > 0:
		return fmt.Errorf("%w: %v with a plain peer's id", ErrNotEncodable, f.Type)
	case f.ID > maxSafeID && len(f.RawID) == 0:
		return fmt.Errorf("%w: %v with id %d", ErrNotEncodable, f.Type, f.ID)
	case f.ID == 0 && len(f.RawID) == 0 && f.Type.needsID() && (hello || f.Type != Fail):
		return fmt.Errorf("%w: %v without an id", ErrNotEncodable, f.Type)
	case f.Type == Credit && f.Items == 0:
		return fmt.Errorf("%w: CREDIT of 0 items", ErrNotEncodable)
	case f.Type == Call && f.Kind > BidiStream:
		return fmt.Errorf("%w: kind %d", ErrNotEncodable, f.Kind)
	}
	if f.Type == Call || f.Type == Notify {
		if err := checkMethod(f.Method); err != nil {
			return err
		}
		// Under these names a user's frame would become one of ours.
		if hello && isControl(f.Method) {
			return fmt.Errorf("%w: method name %q is reserved", ErrNotEncodable, f.Method)
		}
	}
	if err := checkFault(f); err != nil {
		return err
	}
	if f.Type.hasMeta() {
		return checkMeta(f.Meta, 0)
	}
	return nil
}

// isPlain reports whether frames of type t exist without hello.
func (t Type) isPlain() bool {
	switch t {
	case Call, Result, Fail, Cancel, Notify:
		return true
	}
	return false
}

func appendRequest(dst []byte, f *Frame, hello bool) []byte {
	if f.Type == Call {
		dst = appendID(dst, f)
	}
	dst = append(dst, `,"method":`...)
	dst = AppendString(dst, f.Method)
	dst = appendParams(dst, f.Payload)
	if !hello {
		return dst
	}
	if f.Type == Call {
		dst = appendUint(dst, `,"timeout":`, f.TimeLeft)
		if f.Kind != Unary {
			dst = append(dst, `,"stream":"`...)
			dst = append(dst, kindNames[f.Kind]...)
			dst = append(dst, '"')
		}
		dst = appendTrue(dst, `,"lane":true`, f.Flags&Lane != 0)
		dst = appendTrue(dst, `,"noItems":true`, f.Flags&NoItems != 0)
	}
	return appendMetaJSON(dst, f.Meta)
}

// appendParams makes payload what JSON-RPC allows as params: an object or an
// array, or nothing.
func appendParams(dst, payload []byte) []byte {
	start := skipSpace(payload, 0)
	if start == len(payload) {
		return dst
	}
	switch payload[start] {
	case 'n': // null
		return dst
	case '{', '[':
		return appendRaw(dst, `,"params":`, payload)
	}
	return append(appendRaw(dst, `,"params":[`, payload), ']')
}

func appendError(dst []byte, f *Frame, hello bool) []byte {
	dst = appendID(dst, f)
	dst = appendErrorObject(append(dst, `,"error":`...), f, hello)
	if !hello {
		return dst
	}
	dst = appendTrue(dst, `,"notRun":true`, f.Flags&NotRun != 0)
	return appendMetaJSON(dst, f.Meta)
}

func appendErrorObject(dst []byte, f *Frame, hello bool) []byte {
	dst = append(dst, `{"code":`...)
	code := CodeToJSON(f.Code)
	if !hello && f.Number != 0 {
		code = f.Number
	}
	dst = strconv.AppendInt(dst, code, 10)
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, f.Message)
	if len(f.Payload) > 0 {
		dst = appendRaw(dst, `,"data":`, f.Payload)
	}
	if f.Fault != "" {
		dst = AppendString(append(dst, `,"fault":`...), f.Fault)
	}
	if !hello {
		return append(dst, '}')
	}
	if f.Number != 0 {
		dst = strconv.AppendInt(append(dst, `,"number":`...), f.Number, 10)
	}
	dst = appendUint(dst, `,"retryAfter":`, f.RetryAfter)
	return append(dst, '}')
}

func appendControl(dst []byte, f *Frame) []byte {
	switch f.Type {
	case GoAway:
		return appendRaw(dst, `,"method":"rpc.goaway","params":`, f.Payload)
	case Ping, Ack:
		if f.Type == Ping {
			dst = append(dst, `,"method":"rpc.ping","params":{"position":`...)
		} else {
			dst = append(dst, `,"method":"rpc.ack","params":{"position":`...)
		}
		dst = strconv.AppendUint(dst, f.Position, 10)
	case End:
		dst = append(dst, `,"method":"rpc.end","params":{"id":`...)
		dst = strconv.AppendUint(dst, f.ID, 10)
	case Item:
		dst = append(dst, `,"method":"rpc.item","params":{"id":`...)
		dst = strconv.AppendUint(dst, f.ID, 10)
		dst = appendTrue(dst, `,"caller":true`, f.Flags&FromCaller != 0)
		dst = appendTrue(dst, `,"history":true`, f.Flags&History != 0)
		dst = appendTrue(dst, `,"prompt":true`, f.Flags&Prompt != 0)
		dst = appendUint(dst, `,"dropped":`, f.Dropped)
		if len(f.Payload) > 0 {
			dst = appendRaw(dst, `,"payload":`, f.Payload)
		}
	case Credit:
		dst = append(dst, `,"method":"rpc.credit","params":{"items":`...)
		dst = strconv.AppendUint(dst, f.Items, 10)
		dst = appendUint(dst, `,"id":`, f.ID)
		dst = appendUint(dst, `,"window":`, f.Window)
		dst = appendTrue(dst, `,"caller":true`, f.Flags&FromCaller != 0)
	case Head:
		dst = append(dst, `,"method":"rpc.head","params":{"id":`...)
		dst = strconv.AppendUint(dst, f.ID, 10)
		dst = appendMetaJSON(dst, f.Meta)
	}
	return append(dst, '}')
}

func appendID(dst []byte, f *Frame) []byte {
	dst = append(dst, `,"id":`...)
	return appendIDValue(dst, f)
}

func appendIDValue(dst []byte, f *Frame) []byte {
	switch {
	case len(f.RawID) > 0:
		return append(dst, f.RawID...)
	case f.ID == 0: // the answer to what had no readable id
		return append(dst, "null"...)
	}
	return strconv.AppendUint(dst, f.ID, 10)
}

// appendRaw appends a member whose value is JSON already; nothing is null.
func appendRaw(dst []byte, name string, value []byte) []byte {
	dst = append(dst, name...)
	if len(value) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, value...)
}

// appendUint appends a member that is left out when it is 0.
func appendUint(dst []byte, name string, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = append(dst, name...)
	return strconv.AppendUint(dst, v, 10)
}

func appendTrue(dst []byte, member string, set bool) []byte {
	if !set {
		return dst
	}
	return append(dst, member...)
}

func appendMetaJSON(dst []byte, meta map[string]string) []byte {
	if len(meta) == 0 {
		return dst
	}
	dst = append(dst, `,"meta":`...)
	var room [16]string
	sep := byte('{')
	for _, k := range sortedKeys(room[:0], meta) {
		dst = append(dst, sep)
		dst = AppendString(dst, k)
		dst = append(dst, ':')
		dst = AppendString(dst, meta[k])
		sep = ','
	}
	return append(dst, '}')
}
