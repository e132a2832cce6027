package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/matryer/is"
)

func TestError_text(t *testing.T) {
	for _, tt := range []struct {
		err  *Error
		want string
	}{
		{&Error{Code: NotFound}, "not found"},
		{&Error{Code: NotFound, Message: "no row"}, "not found: no row"},
		{&Error{Code: Unavailable, Message: "gone", Outcome: MayHaveRun}, "unavailable: gone (may have run)"},
		{&Error{Code: 1234, Outcome: MayHaveRun}, "code 1234 (may have run)"},
		{&Error{Code: Internal, Outcome: Answered, Cause: io.EOF, Gap: true}, "internal"}, // the cause is local
	} {
		is := is.New(t)
		is.Equal(tt.err.Error(), tt.want)
	}
}

func TestErrorf(t *testing.T) {
	is := is.New(t)
	e := Errorf(NotFound, "row %d: %w", 7, io.EOF)
	is.Equal(e.Code, NotFound)
	is.Equal(e.Message, "row 7: EOF")
	is.Equal(e.Outcome, NotSent)
	is.Equal(e.Cause, io.EOF)
	is.True(errors.Is(e, io.EOF))
	is.Equal(Errorf(NotFound, "row %v", io.EOF).Cause, nil)
	e = Errorf(NotFound, "%w, %w and %w", io.EOF, io.ErrClosedPipe, nil)
	is.True(errors.Is(e, io.EOF))
	is.True(errors.Is(e, io.ErrClosedPipe))
	is.True(!errors.Is(e, io.ErrShortWrite))
}

// Errors are compared by identity: a code alone makes nothing equal, and neither
// does a copy.
func TestError_isAndAs(t *testing.T) {
	is := is.New(t)
	e := Errorf(NotFound, "no row: %w", io.EOF)
	wrapped := fmt.Errorf("wrapped: %w", e)
	is.True(errors.Is(wrapped, e))
	is.True(errors.Is(wrapped, io.EOF))
	is.True(!errors.Is(wrapped, Errorf(NotFound, "no row: %w", io.EOF)))
	is.True(!errors.Is(wrapped, e.With(NotSent)))
	is.True(errors.Is(e.With(Answered), io.EOF)) // whose cause is the same
	var found *Error
	is.True(errors.As(wrapped, &found))
	is.Equal(found, e)
	outer := &Error{Code: Unavailable, Cause: e} // the outermost one wins
	is.True(errors.As(fmt.Errorf("%w", outer), &found))
	is.Equal(found, outer)
}

func full() *Error {
	return &Error{
		Code: Aborted, Message: "text", Outcome: Answered, RetryAfter: time.Second, Data: []byte("7"),
		Cause: io.EOF, Gap: true, Face: io.ErrNoProgress, Remote: true,
	}
}

// rest is all of e but its outcome and what Broken changes.
func rest(e *Error) string {
	return fmt.Sprint(e.Code, e.RetryAfter, e.Data, e.Cause, e.Face, e.Remote)
}

func TestError_copies(t *testing.T) {
	is := is.New(t)
	e := full()
	e.See("seen")
	x := e.With(MayHaveRun)
	is.Equal(rest(x), rest(e))
	is.Equal(x.Outcome, MayHaveRun)
	is.Equal(x.Message, "text")
	is.True(x.Gap)
	is.Equal(x.Seen(), nil) // the API has its own to make of it

	e.Gap = false
	x = e.Broken()
	is.Equal(rest(x), rest(e))
	is.Equal(x.Outcome, Answered)
	is.Equal(x.Message, "text, items may be missing")
	is.True(x.Gap)
	is.Equal(x.Seen(), nil)

	is.Equal(e.Message, "text") // not changed itself
	is.Equal(e.Outcome, Answered)
	is.True(!e.Gap)
	is.Equal(e.Seen(), "seen")
}

func TestError_seenOnce(t *testing.T) {
	is := is.New(t)
	e := new(Error)
	is.Equal(e.Seen(), nil)
	got := make([]any, 16)
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() { got[i] = e.See(i) })
	}
	all.Wait()
	for _, x := range got {
		is.Equal(x, e.Seen()) // whoever was first
	}
	is.Equal(e.See(-1), got[0])
}

func TestSessionLost(t *testing.T) {
	is := is.New(t)
	e := SessionLost(io.EOF)
	is.Equal(e.Error(), "unavailable: the session was lost, items may be missing (may have run)")
	is.True(e.Gap)
	is.True(errors.Is(e, io.EOF))
}

func TestBusy(t *testing.T) {
	is := is.New(t)
	e := Busy("a call")
	is.Equal(e.Code, ResourceExhausted)
	is.Equal(e.Outcome, NotSent)
	is.True(strings.Contains(e.Message, "a call more"))
}

func TestEnded(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	told, tell := context.WithCancelCause(t.Context())
	tell(io.ErrClosedPipe)
	past := time.Unix(1, 0)
	late, stop := context.WithDeadline(t.Context(), past)
	defer stop()
	lateFor, stop := context.WithDeadlineCause(t.Context(), past, io.ErrNoProgress)
	defer stop()
	odd, oddly := context.WithCancelCause(t.Context()) // not a deadline of this context's
	oddly(context.DeadlineExceeded)
	for _, tt := range []struct {
		ctx   context.Context
		code  Code
		text  string
		cause error
	}{
		{canceled, Canceled, "", context.Canceled},
		{told, Canceled, "io: read/write on closed pipe", io.ErrClosedPipe},
		{late, DeadlineExceeded, "", context.DeadlineExceeded},
		{lateFor, DeadlineExceeded, "multiple Read calls return no data or error", io.ErrNoProgress},
		{odd, Canceled, "context deadline exceeded", context.DeadlineExceeded},
	} {
		is := is.New(t)
		e := Ended(tt.ctx, MayHaveRun)
		is.Equal(e.Code, tt.code)
		is.Equal(e.Message, tt.text)
		is.Equal(e.Cause, tt.cause)
		is.Equal(e.Outcome, MayHaveRun)
	}
}

func TestFromPeer(t *testing.T) {
	is := is.New(t)
	data := []byte(`{"left":3}`)
	e := FromPeer(9, "no stock", "shop.no-stock", time.Second, data, false)
	clear(data) // the frame's buffer, which is used again
	is.Equal(e.Code, FailedPrecondition)
	is.Equal(e.Message, "no stock")
	is.Equal(e.Fault, "shop.no-stock")
	is.Equal(e.With(NotSent).Broken().Fault, "shop.no-stock")
	is.Equal(e.RetryAfter, time.Second)
	is.Equal(e.Outcome, Answered)
	is.Equal(string(e.Data), `{"left":3}`)
	is.True(e.Remote)

	e = FromPeer(0, "", "", 0, []byte{}, true)
	is.Equal(e.Code, Unknown) // 0 would read as no error at all
	is.Equal(e.Outcome, NotSent)
	is.True(e.Data == nil)
	is.Equal(FromPeer(-1<<63, "", "", 0, nil, false).Code, Code(-1<<63))
}

func TestClip(t *testing.T) {
	is := is.New(t)
	whole := strings.Repeat("x", MaxText)
	is.Equal(Clip(NotFound, whole), whole)
	is.Equal(Clip(NotFound, whole+"y"), whole)
	is.Equal(Clip(NotFound, whole[1:]+"é"), whole[1:]) // no half of a letter
	is.Equal(Clip(NotFound, whole[2:]+"é"), whole[2:]+"é")
	is.Equal(Clip(NotFound, "a\xff\x80b\xe2\x82"), "ab")
	is.Equal(Clip(NotFound, ""), "not found") // many readers show nothing else
	is.Equal(Clip(1234, "\xff"), "code 1234")
}

// What is clipped can be sent, and what could be sent is not changed.
func FuzzClip(f *testing.F) {
	f.Add("é\xff", 0)
	f.Add("\xe2\x82\xac", MaxText-2)
	f.Fuzz(func(t *testing.T, s string, before int) {
		s = string(bytes.Repeat([]byte("x"), max(0, min(before, MaxText+1)))) + s
		got := Clip(NotFound, s)
		if strings.ToValidUTF8(s[:min(len(s), MaxText)], "") == "" {
			if got != "not found" {
				t.Fatalf("%q of %q", got, s)
			}
			return
		}
		if len(got) > MaxText || !utf8.ValidString(got) || utf8.ValidString(s) && !strings.HasPrefix(s, got) {
			t.Fatalf("%q of %q", got, s)
		}
		if utf8.ValidString(s) && len(got) < min(len(s), MaxText-utf8.UTFMax+1) {
			t.Fatalf("%d bytes of %d", len(got), len(s))
		}
	})
}
