package link

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A CloseError ends a link with a close code: the peer's when it was received,
// ours when it is to be sent. Code 0 means that the link ends without goodbye.
type CloseError struct {
	Code   int
	Reason string
	Remote bool  // the peer closed
	Err    error // what led to it, may be nil
}

func (e *CloseError) Error() string {
	who := "closing the link"
	if e.Remote {
		who = "link closed by the peer"
	}
	switch {
	case e.Code == 0 && e.Err != nil:
		return fmt.Sprintf("link lost: %v", e.Err)
	case e.Err != nil:
		return fmt.Sprintf("%s with code %d: %s: %v", who, e.Code, e.Reason, e.Err)
	default:
		return fmt.Sprintf("%s with code %d: %s", who, e.Code, e.Reason)
	}
}

func (e *CloseError) Unwrap() error { return e.Err }

// mostReason is how long the reason of a close frame may be: a control frame holds
// 125 bytes, two of them the code (RFC 6455 section 5.5).
const mostReason = 123

// clipReason is a reason as it may be sent: UTF-8, and cut where a character ends
// (section 7.1.6). What is none is replaced.
func clipReason(reason string) string {
	reason = validReason(reason)
	if len(reason) <= mostReason {
		return reason
	}
	cut := mostReason
	for !utf8.RuneStart(reason[cut]) {
		cut--
	}
	return reason[:cut]
}

// validReason is a reason as it may be shown, and be sent on in an error's text.
func validReason(reason string) string { return strings.ToValidUTF8(reason, "\uFFFD") }
