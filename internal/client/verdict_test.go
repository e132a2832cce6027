package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// closed is the end of a link by the peer.
func closed(code int) error { return &link.CloseError{Code: code, Reason: "why", Remote: true} }

// answered is a dial that was answered with a status.
func answered(answer int) error {
	return &status.Error{Code: httpCode(answer), Cause: &UpgradeError{Status: answer}}
}

var here = endpoint{"wss://ann:pw@a/rpc?pw", "wss://a/rpc"}

func TestClient_dialError(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		resp *http.Response
		err  error
		code status.Code
		text string
		wait time.Duration
	}{
		{"refused", t.Context(), &http.Response{StatusCode: 403, Body: io.NopCloser(strings.NewReader(" go away\n"))}, io.EOF,
			status.PermissionDenied, "cannot connect to wss://a/rpc: the server answered 403 Forbidden: go away", 0},
		{"no body", t.Context(), &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {"7"}}}, io.EOF,
			status.Unavailable, "cannot connect to wss://a/rpc: the server answered 503 Service Unavailable", 7 * time.Second},
		{"wait for ever", t.Context(), &http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {"10000000000"}}}, io.EOF,
			status.ResourceExhausted, "cannot connect to wss://a/rpc: the server answered 429 Too Many Requests", flow.MaxHint},
		{"wait until", t.Context(), &http.Response{StatusCode: 500, Header: http.Header{"Retry-After": {"Fri, 31 Dec 1999 23:59:59 GMT"}}}, io.EOF,
			status.Unavailable, "cannot connect to wss://a/rpc: the server answered 500 Internal Server Error", 0},
		{"wait less than nothing", t.Context(), &http.Response{StatusCode: 500, Header: http.Header{"Retry-After": {"-7"}}}, io.EOF,
			status.Unavailable, "cannot connect to wss://a/rpc: the server answered 500 Internal Server Error", 0},
		{"answer goes before the end of the context", gone, &http.Response{StatusCode: 404}, io.EOF,
			status.Unimplemented, "cannot connect to wss://a/rpc: the server answered 404 Not Found", 0},
		{"context", gone, nil, io.EOF, status.Canceled, "", 0},
		{"broken upgrade", t.Context(), &http.Response{StatusCode: 101}, io.ErrUnexpectedEOF,
			status.Unavailable, "cannot connect to wss://a/rpc: unexpected EOF", 0},
		{"secrets", t.Context(), nil, fmt.Errorf("dial: %w", &url.Error{Op: "Get", URL: "wss://ann:pw@a/rpc?pw", Err: io.EOF}),
			status.Unavailable, "cannot connect to wss://a/rpc: EOF", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			d := &Client{at: here}
			var e *status.Error
			is.True(errors.As(d.dialError(tt.ctx, tt.resp, tt.err), &e))
			is.Equal(e.Code, tt.code)
			is.Equal(e.Message, tt.text)
			is.Equal(e.RetryAfter, tt.wait)
			is.Equal(e.Outcome, status.NotSent)
			is.True(!strings.Contains(fmt.Sprint(e, e.Cause), "pw"))
		})
	}
}

func TestClient_dialErrorHasTheBeginningOfTheBody(t *testing.T) {
	is := is.New(t)
	body := strings.NewReader(strings.Repeat("x", 5000))
	var u *UpgradeError
	is.True(errors.As((&Client{}).dialError(t.Context(), &http.Response{StatusCode: 500, Body: io.NopCloser(body)}, io.EOF), &u))
	is.Equal(u.Body, strings.Repeat("x", 1024))
	is.Equal(body.Len(), 5000-1024) // the rest is not even read
}

func TestHTTPCode(t *testing.T) {
	is := is.New(t)
	for answer, want := range map[int]status.Code{
		200: status.Unavailable, 302: status.Unavailable, 400: status.InvalidArgument, 401: status.Unauthenticated,
		403: status.PermissionDenied, 404: status.Unimplemented, 405: status.Unimplemented, 408: status.Unavailable,
		426: status.Unimplemented, 429: status.ResourceExhausted, 500: status.Unavailable, 503: status.Unavailable,
	} {
		is.Equal(httpCode(answer), want)
	}
}

func TestClient_explain(t *testing.T) {
	own := status.Errorf(status.NotFound, "mine")
	for _, tt := range []struct {
		cause  error
		opened bool
		code   status.Code
	}{
		{io.EOF, true, status.Unavailable}, {closed(session.CloseDone), true, status.Unavailable},
		{closed(session.CloseProtocol), true, status.Internal}, {closed(session.CloseUnauthed), true, status.Unauthenticated},
		{closed(session.CloseForbidden), false, status.PermissionDenied},
		{closed(session.CloseTimeout), false, status.DeadlineExceeded}, {closed(session.CloseTimeout), true, status.Unavailable},
		{closed(session.CloseFlood), true, status.Unavailable}, {closed(session.CloseOverload), false, status.Unavailable},
		{fmt.Errorf("wrapped: %w", own), true, status.NotFound},
		// What the server said goes before how it closed.
		{&refusedError{own, closed(session.CloseForbidden)}, false, status.NotFound},
	} {
		is := is.New(t)
		d := &Client{at: here, opened: tt.opened}
		e := d.explain(tt.cause)
		is.Equal(e.Code, tt.code)
		is.Equal(e.Outcome, status.NotSent)
		if e != own {
			is.Equal(e.Cause, tt.cause)
			is.True(strings.HasPrefix(e.Message, "the connection to wss://a/rpc ended"))
			is.Equal(strings.Contains(e.Message, "why"), tt.cause != io.EOF)
		}
	}
}

// PROTOCOL.md section 8.
func TestClient_final(t *testing.T) {
	for _, tt := range []struct {
		cause              error
		refused, afterward bool // before a WELCOME, and after one
	}{
		{io.EOF, false, false}, {status.Errorf(status.PermissionDenied, "credentials"), false, false},
		{closed(session.CloseDone), false, false}, {closed(session.CloseGoingAway), false, false},
		{closed(session.CloseTooBig), false, false}, {closed(session.CloseRestart), false, false},
		{closed(session.CloseOverload), false, false}, {closed(session.CloseTimeout), false, false},
		{closed(session.CloseSuperseded), false, false}, {closed(session.CloseFlood), false, false},
		{closed(session.CloseBudget), false, false}, {closed(4999), false, false},
		{closed(session.CloseProtocol), true, true}, {closed(session.CloseForbidden), true, true},
		{closed(session.CloseUnauthed), true, false},
		{&refusedError{status.Errorf(status.Unavailable, "no"), closed(session.CloseForbidden)}, true, true},
		{&refusedError{status.Errorf(status.PermissionDenied, "no"), closed(session.CloseOverload)}, false, false},
		{answered(400), true, true}, {answered(401), true, true}, {answered(403), true, true},
		{answered(200), false, false}, {answered(404), false, false}, {answered(426), false, false}, {answered(429), false, false}, {answered(503), false, false},
	} {
		is := is.New(t)
		is.Equal((&Client{}).final(tt.cause), tt.refused)
		is.Equal((&Client{opened: true}).final(tt.cause), tt.afterward)
	}
}

// The least and the most that verdict says in many rounds, and whether to come back.
func verdicts(d *Client, cause error, low, high time.Duration) (least, most time.Duration, back bool) {
	least = 1<<63 - 1
	for range 300 {
		d.min, d.max = low, high
		var wait time.Duration
		wait, back = d.verdict(cause)
		least, most = min(least, wait), max(most, wait)
	}
	return least, most, back
}

func TestClient_verdict(t *testing.T) {
	const ms = time.Millisecond
	retry := &status.Error{Code: status.Unavailable, RetryAfter: 10 * time.Second}
	for _, tt := range []struct {
		name      string
		cause     error
		failed    int
		grace     time.Duration // of a session to go on with; 0: there is none
		low, high time.Duration // the server's window
		from, to  time.Duration // what is waited
	}{
		{"first", io.EOF, 1, 0, 0, 0, 0, 100 * ms},
		{"third", io.EOF, 3, 0, 0, 0, 0, 400 * ms},
		{"many", io.EOF, 50, 0, 0, 0, 0, 8 * time.Second},
		{"flood", closed(session.CloseFlood), 1, 0, 0, 0, 4 * time.Second, 8 * time.Second},
		{"held the most", closed(session.CloseBudget), 1, 0, time.Hour, time.Hour, 4 * time.Second, 8 * time.Second},
		{"flood in a window", closed(session.CloseFlood), 1, 0, time.Hour, time.Hour, 4 * time.Second, 8 * time.Second},
		{"window", io.EOF, 1, 0, 20 * time.Second, 30 * time.Second, 20 * time.Second, 30 * time.Second},
		{"window from 0", closed(session.CloseRestart), 1, 0, 0, 200 * ms, 0, 200 * ms},
		{"window of a moment", io.EOF, 1, 0, 5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second},
		{"window of a moment, again and again", closed(session.CloseRestart), 9, 0, 0, 1, 0, 8 * time.Second},
		{"window, again and again", io.EOF, 9, 0, 20 * time.Second, 30 * time.Second, 20 * time.Second, 30 * time.Second},
		{"credentials in a window", closed(session.CloseUnauthed), 1, 0, time.Hour, time.Hour, 0, 100 * ms},
		{"session", io.EOF, 50, 2 * time.Second, 0, 0, 0, 500 * ms},
		{"session of a moment", io.EOF, 50, 1, 0, 0, 0, 1},
		{"session in a window", io.EOF, 1, time.Hour, time.Hour, time.Hour, 0, 100 * ms},
		{"hint", retry, 1, 0, 0, 0, 10 * time.Second, 15 * time.Second},
		{"hint with a session", retry, 1, time.Second, 0, 0, 10 * time.Second, 15 * time.Second},
		{"small hint", &status.Error{RetryAfter: 1}, 1, 0, 0, 0, 0, 100 * ms},
		{"hint of a refusal", &refusedError{retry, closed(session.CloseOverload)}, 1, 0, 0, 0, 10 * time.Second, 15 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			d := &Client{failed: int32(tt.failed), opened: true, o: Options{Backoff: flow.Backoff{Min: 100 * ms, Max: 8 * time.Second, Factor: 2}}}
			if tt.grace > 0 {
				d.sess, d.grace = new(session.Session), tt.grace
			}
			least, most, back := verdicts(d, tt.cause, tt.low, tt.high)
			is.True(back)
			width := tt.to - tt.from
			is.True(least >= tt.from && least <= tt.from+width/10) // all of it is used …
			is.True(most <= tt.to && most >= tt.to-width/10)       // … and no more
			is.Equal(d.leave, tt.high > 0 && tt.grace == 0)
			is.Equal(d.min, time.Duration(0)) // a window holds for once
			is.Equal(d.max, time.Duration(0))
		})
	}
}

func TestClient_verdictGivesUp(t *testing.T) {
	is := is.New(t)
	d := &Client{o: Options{MaxAttempts: 2}}
	for failed, want := range []bool{true, true, true, false, false} {
		d.failed = int32(failed)
		_, back := d.verdict(io.EOF)
		is.Equal(back, want)
	}
	d.failed, d.o.MaxAttempts = 1<<20, 0 // without end
	_, back := d.verdict(io.EOF)
	is.True(back)
	_, back = d.verdict(closed(session.CloseForbidden))
	is.True(!back)
}

func TestClient_goingAway(t *testing.T) {
	is := is.New(t)
	d := &Client{opened: true}
	d.GoingAway(time.Second, time.Second/2) // nonsense of a peer's
	wait, back := d.verdict(io.EOF)
	is.True(back)
	is.Equal(wait, time.Second)
	is.True(d.leave)
	wait, _ = d.verdict(io.EOF)
	is.True(wait <= 100*time.Millisecond)
	is.True(!d.leave)
}

func TestRetryAfter(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tt := range []struct {
		after, date string
		least, most time.Duration
	}{
		{"", "", 0, 0}, {"7", "", 7 * time.Second, 7 * time.Second}, {" 7 ", "", 7 * time.Second, 7 * time.Second}, {"0", "", 0, 0},
		{"-7", "", 0, 0}, {"+7", "", 0, 0}, {"7.5", "", 0, 0}, {"soon", "", 0, 0}, {"7, 8", "", 0, 0},
		{"86400", "", flow.MaxHint, flow.MaxHint}, {"99999999999999999999", "", flow.MaxHint, flow.MaxHint},
		{at(time.Minute), at(0), time.Minute, time.Minute},
		{at(time.Minute), at(time.Hour), 0, 0},                                 // it is over
		{at(time.Hour + time.Minute), at(time.Hour), time.Minute, time.Minute}, // by the server's clock
		{at(time.Minute), "", 50 * time.Second, time.Minute},                   // by ours, where it shows none
		{at(time.Minute), "yesterday", 50 * time.Second, time.Minute},          // … or one that is none
		{at(48 * time.Hour), at(0), flow.MaxHint, flow.MaxHint},
		{now.Add(time.Minute).Format("Monday, 02-Jan-06 15:04:05 GMT"), at(0), time.Minute, time.Minute}, // RFC 850
		{now.Add(time.Minute).Format(time.ANSIC), at(0), time.Minute, time.Minute},
		{now.Add(time.Minute).Format(time.RFC3339), at(0), 0, 0},
	} {
		t.Run(tt.after+" at "+tt.date, func(t *testing.T) {
			is := is.New(t)
			got := retryAfter(http.Header{"Retry-After": {tt.after}, "Date": {tt.date}})
			is.True(got >= tt.least && got <= tt.most)
		})
	}
}
