package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/typedrpc/typedrpc"
)

// The statuses with which a command ends. A script tells by them what the peer said, and
// whether the call may have run all the same.
const (
	statusFailed      = 1   // what was asked for did not work, or is stale
	statusUsage       = 2   // the command line makes no sense
	statusCode        = 64  // and the number of one of gRPC's codes, 1 to 16
	statusOwn         = 81  // a code of the application's own, or of a plain peer's
	statusMayHaveRun  = 32  // on top of those: nobody knows whether it ran
	statusInterrupted = 130 // by Ctrl-C, or the signal to terminate
	statusPipe        = 141 // nobody reads standard output any more
)

// status is an error of a command that has told all that there is to tell.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usage is an error of a command line that makes no sense.
type usage struct{ error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// failure is an error of a command whose line made sense.
type failure struct{ error }

// Unwrap returns what the failure is.
func (f failure) Unwrap() error { return f.error }

// hinted is an error with names that may have been meant.
type hinted struct {
	error
	hints []string
}

// Unwrap returns the error without them.
func (h hinted) Unwrap() error { return h.error }

// report tells an error, and returns the status that stands for it.
func (env *Env) report(ctx context.Context, err error) int {
	var said status
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.Is(err, syscall.EPIPE) && !errors.As(err, new(*typedrpc.Error)): // not a link that was cut
		return statusPipe // as who is told of it by a signal
	case errors.As(err, &said):
		return int(said)
	case !errors.As(err, &failed):
		fmt.Fprintf(env.Err, "typedrpc: %v; \"typedrpc help%s\" says more\n", err, env.about)
		return statusUsage
	}
	n := statusOf(failed.error)
	if ctx.Err() != nil {
		n = statusInterrupted
	}
	if env.json {
		env.tellJSON(failed.error, n)
	} else {
		env.tell(failed.error, n == statusInterrupted)
	}
	return n
}

// statusOf is the status that stands for the error of a command whose line made sense.
func statusOf(err error) int {
	var e *typedrpc.Error
	if !errors.As(err, &e) {
		return statusFailed
	}
	n := statusOwn
	if e.Code >= typedrpc.Canceled && e.Code <= typedrpc.Unauthenticated {
		n = statusCode + int(e.Code)
	}
	if e.Outcome == typedrpc.MayHaveRun {
		n += statusMayHaveRun
	}
	return n
}

// tell tells an error to a person.
func (env *Env) tell(err error, interrupted bool) {
	var e *typedrpc.Error
	called := errors.As(err, &e)
	switch {
	case interrupted && called && e.Outcome == typedrpc.MayHaveRun:
		fmt.Fprintln(env.Err, "typedrpc: interrupted; the call may have run")
		return
	case interrupted:
		fmt.Fprintln(env.Err, "typedrpc: interrupted")
		return
	}
	text := brief(err)
	if called && e.Outcome == typedrpc.NotSent {
		text += " (not sent)"
	}
	fmt.Fprintf(env.Err, "typedrpc: %s\n", printable(text))
	if called {
		if name := e.FaultName(); name != "" {
			fmt.Fprintf(env.Err, "  fault: %s\n", printable(name))
		}
		if len(e.Data) > 0 {
			fmt.Fprintf(env.Err, "  data: %s\n", oneLine(e.Data))
		}
		if e.RetryAfter > 0 {
			fmt.Fprintf(env.Err, "  retry after: %v\n", e.RetryAfter)
		}
	}
	var h hinted
	if errors.As(err, &h) && len(h.hints) > 0 {
		fmt.Fprintf(env.Err, "  did you mean %s?\n", printable(strings.Join(h.hints, ", or ")))
	}
	if text := advice(err); text != "" {
		fmt.Fprintf(env.Err, "  %s\n", text)
	}
}

// told is an error as JSON.
type told struct {
	Status     int             `json:"status"` // of the process
	Code       int64           `json:"code,omitempty"`
	Name       string          `json:"name,omitempty"` // of the code
	Number     int64           `json:"number,omitempty"`
	Message    string          `json:"message"`
	Outcome    string          `json:"outcome,omitempty"`
	Fault      string          `json:"fault,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
	RetryAfter int64           `json:"retryAfter,omitempty"` // milliseconds
	DidYouMean []string        `json:"didYouMean,omitempty"`
	Advice     string          `json:"advice,omitempty"`
}

// tellJSON tells an error to a program.
func (env *Env) tellJSON(err error, n int) {
	t := told{Status: n, Message: strings.TrimPrefix(err.Error(), "typedrpc: "), Advice: advice(err)}
	var e *typedrpc.Error
	if errors.As(err, &e) {
		t.Code, t.Name, t.Number, t.Message = int64(e.Code), e.Code.Error(), e.Number, e.Message
		t.Outcome, t.Fault, t.RetryAfter = e.Outcome.String(), e.FaultName(), e.RetryAfter.Milliseconds()
		if len(e.Data) > 0 {
			t.Data = oneLine(e.Data)
		}
	}
	var h hinted
	if errors.As(err, &h) {
		t.DidYouMean = h.hints
	}
	line, _ := json.Marshal(struct {
		Error told `json:"error"`
	}{t})
	fmt.Fprintf(env.Err, "%s\n", line)
}
