package e2e_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// What contradicts itself is refused where it is said.

func TestContradictions_declared(t *testing.T) {
	type point struct{ X int }
	alloc, twice, one, two := typedrpc.Alloc[point](), typedrpc.Alloc[*point](), typedrpc.MaxSize(1), typedrpc.MaxSize(2)
	for what, f := range map[string]func(){
		`method "m" has the trait Timeout twice`: func() {
			typedrpc.NewMethod[int, int]("m", typedrpc.Timeout(1), typedrpc.Timeout(2))
		},
		`method "m" has the trait Retry twice`: func() {
			typedrpc.NewMethod[int, int]("m", typedrpc.Retry(typedrpc.RetryPolicy{}), typedrpc.Retry(typedrpc.RetryPolicy{MaxAttempts: 9}))
		},
		`method "m" is Inline, and Serial or Keyed`:   func() { typedrpc.NewMethod[int, int]("m", typedrpc.Inline, typedrpc.Serial) },
		`method "m" is Inline, and Serial or Keyed: `: func() { typedrpc.NewMethod[int, int]("m", typedrpc.Keyed, typedrpc.Inline) },
		`method "m" has the trait Params twice`: func() {
			typedrpc.NewMethod[int, int]("m", typedrpc.Params("a"), typedrpc.Params("b"))
		},
		`notification "n" has the trait MaxSize twice`:         func() { typedrpc.NewNotification[int]("n", one, two) },
		`server stream "s" has the trait MaxSize twice`:        func() { topic.New[int]("s", one, two) },
		`client stream "u" has the trait MaxSize twice`:        func() { transfer.NewUpload[int, int]("u", one, two) },
		`the sign-in has the trait MaxSize twice`:              func() { typedrpc.NewSignIn[int, int](one, two) },
		`fault "f" has the trait MaxSize twice`:                func() { typedrpc.NewFault[int]("f", typedrpc.NotFound, one, two) },
		`notification "n": Params needs a name`:                func() { typedrpc.NewNotification[int]("n", typedrpc.Params()) },
		`server stream "s": Timeout must be positive, it is 0`: func() { typedrpc.NewServerStream[int, int]("s", typedrpc.Timeout(0)) },
		`fault "f" has the code OK`:                            func() { typedrpc.NewFault[int]("f", typedrpc.OK) },
		`fault "f" has the code -7, `:                          func() { typedrpc.NewFault[int]("f", -7) },
		`fault "f" has the code 17, `:                          func() { typedrpc.NewFault[int]("f", 17) },
		`fault "f" has the code 99, `:                          func() { typedrpc.NewFault[int]("f", 99) },
		`topic "t": 2 is none of the traits`:                   func() { topic.New[int]("t", topic.Restartable+1) },
		`fault "f" has a nil trait`:                            func() { typedrpc.NewFault[int]("f", typedrpc.NotFound, nil) },
		`method "m" has an Alloc for *e2e_test.point, `:        func() { typedrpc.NewMethod[point, int]("m", alloc) },
		`method "m" has an Alloc for **e2e_test.point, `: func() {
			typedrpc.NewMethod[*point, int]("m", twice)
		},
		`notification "n" has an Alloc`:         func() { typedrpc.NewNotification[point]("n", alloc) },
		`server stream "s" has an Alloc`:        func() { typedrpc.NewServerStream[int, point]("s", alloc) },
		`client stream "s" has an Alloc`:        func() { typedrpc.NewClientStream[int, int, point]("s", alloc) },
		`bidirectional stream "s" has an Alloc`: func() { typedrpc.NewBidiStream[int, point, int]("s", alloc) },
		`server stream "t" has an Alloc`:        func() { topic.New[point]("t", alloc) },
		`client stream "u" has an Alloc`:        func() { transfer.NewUpload[point, int]("u", alloc) },
		`server stream "d" has an Alloc`:        func() { transfer.NewDownload[point]("d", alloc) },
		`the sign-in has an Alloc`:              func() { typedrpc.NewSignIn[point, int](alloc) },
		`fault "f" has an Alloc`:                func() { typedrpc.NewFault[point]("f", typedrpc.NotFound, alloc) },
	} {
		t.Run(what, func(t *testing.T) {
			text := panicText(f)
			is.New(t).True(strings.HasPrefix(text, "typedrpc: "+what))
		})
	}
	// Each message that is a pointer may have its own, whichever it is.
	_ = typedrpc.NewMethod[int, *point]("m", alloc)
	_ = typedrpc.NewBidiStream[int, int, *point]("s", alloc)
	_ = typedrpc.NewClientStream[int, *point, int]("s", alloc)
	_ = typedrpc.NewSignIn[int, *point](alloc)
	_ = topic.New[*point]("t", alloc)
	_ = transfer.NewUpload[int, *point]("u", alloc)
}

func TestContradictions_policies(t *testing.T) {
	for want, p := range map[string]typedrpc.RetryPolicy{
		"MaxAttempts must not be negative": {MaxAttempts: -1},
		"Backoff: Off makes every delay":   {Backoff: typedrpc.Backoff{Off: true, Max: time.Second}},
		"Backoff: Least 2s is above Min":   {Backoff: typedrpc.Backoff{Min: time.Second, Least: 2 * time.Second}},
		"Min, Max and Least must not be":   {Backoff: typedrpc.Backoff{Least: -1}},
		"Codes has OK":                     {Codes: []typedrpc.Code{typedrpc.OK, typedrpc.NotFound}},
		"Ratio is no number":               {Budget: &typedrpc.RetryBudget{Ratio: math.NaN()}},
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			says := func(err error) bool { return err != nil && strings.Contains(err.Error(), want) }
			text := panicText(func() { typedrpc.NewMethod[int, int]("m", typedrpc.Idempotent, typedrpc.Retry(p)) })
			is.True(strings.Contains(text, want))
			is.True(says((&typedrpc.Server{OutgoingRetry: &p}).Check()))
			_, err := typedrpc.Dial(t.Context(), "ws://nowhere", &typedrpc.DialOptions{OutgoingRetry: &p})
			is.True(says(err))
			c, _ := lab.Over{}.Connect(t, &typedrpc.Server{}, nil)
			_, err = typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Retry: &p}), lab.Ask, 1)
			is.True(says(err))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		})
	}
}

// renamed is JSON by another name, or by the same.
type renamed struct {
	typedrpc.Codec
	name string
}

func (c renamed) Name() string { return c.name }

func TestContradictions_codecs(t *testing.T) {
	other := renamed{typedrpc.JSON, "other"}
	for want, codecs := range map[string][]typedrpc.Codec{
		"one of Codecs is nil":    {typedrpc.JSON, nil},
		`two of the name "json"`:  {typedrpc.JSON, renamed{typedrpc.JSON, "json"}},
		`two of the name "other"`: {other, typedrpc.JSON, other},
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			is.True(strings.Contains(fmt.Sprint((&typedrpc.Server{Codecs: codecs}).Check()), want))
			_, err := typedrpc.Dial(t.Context(), "ws://nowhere", &typedrpc.DialOptions{Codecs: codecs})
			is.True(strings.Contains(fmt.Sprint(err), want))
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		})
	}
	for _, d := range []typedrpc.Dialect{typedrpc.Text, typedrpc.JSONRPC} {
		is := is.New(t)
		_, err := typedrpc.Dial(t.Context(), "ws://nowhere", &typedrpc.DialOptions{Dialect: d, Codecs: []typedrpc.Codec{other}})
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		c, _ := lab.Over{}.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Dialect: d, Codecs: []typedrpc.Codec{typedrpc.JSON}})
		is.Equal(c.Codec(), typedrpc.JSON)
	}
	// None at all is the default, as nil is.
	c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Codecs: []typedrpc.Codec{}}, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{}, Limits: typedrpc.Limits{Grace: time.Minute}})
	is.New(t).Equal(typedrpc.OutcomeOf(typedrpc.Notify(t.Context(), c, lab.Tell, 1)), typedrpc.Answered)
}

// Credentials that nobody would be given are refused, and are not left out.
func TestContradictions_credentials(t *testing.T) {
	is := is.New(t)
	_, err := typedrpc.Dial(t.Context(), "ws://nowhere", &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, SignIn: lab.Ann})
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	is.True(strings.Contains(err.Error(), "DialOptions.SignIn"))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
}

// Broadcast refuses what Notify does.
func TestContradictions_broadcast(t *testing.T) {
	for what, o := range map[string]typedrpc.CallOptions{
		"key":      {Key: idempotency.NewKey()},
		"fail":     {FailFast: true, WaitForLink: true},
		"metadata": {Metadata: typedrpc.Metadata{"key": "\xff"}},
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			client, _ := lab.Over{}.Connect(t, &typedrpc.Server{}, nil)
			c := client.With(o)
			want := typedrpc.Notify(t.Context(), c, lab.Tell, 1)
			is.True(errors.Is(want, typedrpc.InvalidArgument))
			err := typedrpc.Broadcast(t.Context(), func(yield func(typedrpc.Caller) bool) { yield(c) }, lab.Tell, 1)
			is.True(err != nil && strings.HasSuffix(err.Error(), want.Error()))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		})
	}
}
