package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// UpgradeError is the cause of a dial that an HTTP server answered with something
// other than an upgrade.
type UpgradeError struct {
	Status int
	Header http.Header
	Body   string // its first 1,024 bytes
}

func (e *UpgradeError) Error() string {
	text := fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	if body := strings.TrimSpace(e.Body); body != "" {
		text += ": " + body
	}
	return text
}

// dialError explains a failed dial without repeating the URL, which may hold
// secrets.
func (d *Client) dialError(ctx context.Context, resp *http.Response, err error) *status.Error {
	text := "cannot connect to " + d.at.where + ": "
	var re *link.RedirectError
	switch {
	case errors.As(err, &re):
		return &status.Error{Code: httpCode(re.Status), Message: text + re.Text, Cause: &UpgradeError{Status: re.Status, Header: re.Header}}
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != 0:
		u := &UpgradeError{Status: resp.StatusCode, Header: resp.Header}
		if resp.Body != nil {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
			u.Body = string(body)
		}
		return &status.Error{Code: httpCode(u.Status), Message: text + u.Error(), Cause: u, RetryAfter: retryAfter(resp.Header)}
	case ctx.Err() != nil:
		return status.Ended(ctx, status.NotSent)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return &status.Error{Code: status.Unavailable, Message: text + logs.Clip(err.Error()), Cause: err}
}

// retryAfter reads the hint of a response: seconds, or a date (RFC 9110 section
// 10.2.3), which is by the server's clock.
func retryAfter(h http.Header) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text != "" && strings.Trim(text, "0123456789") == "" {
		s, err := strconv.ParseInt(text, 10, 64)
		if most := int64(flow.MaxHint / time.Second); err != nil || s > most {
			s = most
		}
		return time.Duration(s) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(at.Sub(now), 0), flow.MaxHint)
}

func httpCode(answer int) status.Code {
	switch answer {
	case http.StatusBadRequest:
		return status.InvalidArgument
	case http.StatusUnauthorized:
		return status.Unauthenticated
	case http.StatusForbidden:
		return status.PermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUpgradeRequired:
		return status.Unimplemented
	case http.StatusTooManyRequests:
		return status.ResourceExhausted
	}
	return status.Unavailable
}

// explain makes the cause of a link's end an *Error.
func (d *Client) explain(cause error) *status.Error {
	var e *status.Error
	if errors.As(cause, &e) {
		return e
	}
	e = &status.Error{Code: status.Unavailable, Message: "the connection to " + d.at.where + " ended", Cause: cause}
	var ce *link.CloseError
	if errors.As(cause, &ce) {
		e.Message += ": " + ce.Error()
		switch ce.Code {
		case session.CloseProtocol:
			e.Code = status.Internal
		case session.CloseUnauthed:
			e.Code = status.Unauthenticated
		case session.CloseForbidden:
			e.Code = status.PermissionDenied
		case session.CloseTimeout:
			if !d.opened {
				e.Code = status.DeadlineExceeded
			}
		}
	}
	return e
}

// final reports whether coming back is pointless (PROTOCOL.md section 8).
func (d *Client) final(cause error) bool {
	var u *UpgradeError
	if errors.As(cause, &u) {
		switch httpCode(u.Status) {
		case status.Unauthenticated, status.PermissionDenied, status.InvalidArgument:
			return true
		}
		return false
	}
	var ce *link.CloseError
	if !errors.As(cause, &ce) {
		return false
	}
	switch ce.Code {
	case session.CloseProtocol, session.CloseForbidden:
		return true
	case session.CloseUnauthed:
		return !d.opened // else one try with fresh credentials
	}
	return false
}

// verdict decides whether and when to come back.
func (d *Client) verdict(cause error) (wait time.Duration, back bool) {
	b := d.o.Backoff
	if most := d.o.MaxAttempts; most < 0 || most > 0 && int(d.failed) > most || d.final(cause) {
		return 0, false
	}
	d.mu.Lock()
	low, high := d.min, d.max
	d.min, d.max = 0, 0
	if d.sess != nil { // which does not wait for ever, nor as long as a server's restart takes
		low, high = 0, 0
		b.Max = min(b.Max, max(d.grace/4, 1))
		b.Min = min(b.Min, b.Max)
	}
	d.mu.Unlock()
	d.leave = high > 0
	wait = b.Delay(int(d.failed))
	var e *status.Error
	if errors.As(cause, &e) && e.RetryAfter > 0 { // which all are told: not at the same moment
		wait = max(wait, e.RetryAfter+rand.N(e.RetryAfter/2+1))
	}
	code := 0 // of what never got as far as a link
	var ce *link.CloseError
	if errors.As(cause, &ce) {
		code = ce.Code
	}
	switch {
	case code == session.CloseFlood, code == session.CloseBudget:
		return b.Max/2 + b.Delay(1<<10)/2, true
	case code == session.CloseUnauthed:
		return wait, true
	case high > 0:
		window := low + rand.N(high-low+1)
		if d.failed > 1 { // a server that sends every link away is not well, whatever it says
			window = max(window, wait)
		}
		return window, true
	}
	return wait, true
}
