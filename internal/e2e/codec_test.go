package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// JSON writes scalars itself, and what it writes is what encoding/json writes.
func TestJSON_appendLikeEncodingJSON(t *testing.T) {
	i, i32, i64 := -7, int32(math.MinInt32), int64(math.MinInt64)
	u, u32, u64 := uint(7), uint32(math.MaxUint32), uint64(math.MaxUint64)
	yes, text, none := true, "plain text", []byte(nil)
	bytes := []byte{1, 2, 255}
	values := []any{&i, &i32, &i64, &u, &u32, &u64, &yes, &text, &none, &bytes, &struct{}{}}
	for _, f := range []float64{0, math.Copysign(0, -1), 1, -1.5, 1e5, 1e6, 123456789, 1e20, 1e21, 1.5e300, 1e-6, 1e-7, 3.25e-9, math.MaxFloat64, math.SmallestNonzeroFloat64} {
		values = append(values, &f)
	}
	for _, v := range values {
		is := is.New(t)
		want, err := json.Marshal(v)
		is.NoErr(err)
		got, err := typedrpc.JSON.Append([]byte("before "), v)
		is.NoErr(err)
		is.Equal(string(got), "before "+string(want))
	}
}

func TestJSON_refusesToAppend(t *testing.T) {
	is := is.New(t)
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		_, err := typedrpc.JSON.Append(nil, &f)
		is.True(err != nil) // JSON has no such number
	}
	bad := typedrpc.Raw("{} {}")
	_, err := typedrpc.JSON.Append(nil, &bad)
	is.True(err != nil)
	deep := typedrpc.Raw(strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000))
	_, err = typedrpc.JSON.Append(nil, &deep)
	is.True(err != nil)
}

// What decodes, and to what, is as in encoding/json.
func TestJSON_decodeLikeEncodingJSON(t *testing.T) {
	inputs := []string{
		`0`, `-0`, `1`, `-12`, `007`, `1.0`, `1.5`, `1e3`, `1E+2`, `123456789012345678`, `9223372036854775807`,
		`-9223372036854775808`, `9223372036854775808`, `9007199254740993`, `1e400`, `-`, `+1`, `1 2`, ` 5 `,
		`true`, `false`, `null`, `True`, `"x"`, `"a\u0041\n"`, `"\ud800"`, `"open`, `[1]`, `{}`, `{"a":1}`, ``, `"AQL/"`,
	}
	for _, in := range inputs {
		decodeBoth[int](t, in)
		decodeBoth[int64](t, in)
		decodeBoth[uint8](t, in)
		decodeBoth[float64](t, in)
		decodeBoth[bool](t, in)
		decodeBoth[string](t, in)
		decodeBoth[[]byte](t, in)
		decodeBoth[any](t, in)
	}
}

func decodeBoth[T any](t *testing.T, in string) {
	t.Helper()
	var got, want T
	gotErr := typedrpc.JSON.Decode([]byte(in), &got)
	wantErr := json.Unmarshal([]byte(in), &want)
	if (gotErr == nil) != (wantErr == nil) {
		t.Errorf("%T of %s: error %v, encoding/json's is %v", got, in, gotErr, wantErr)
		return
	}
	if a, b := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); gotErr == nil && a != b {
		t.Errorf("%T of %s: %s, encoding/json has %s", got, in, a, b)
	}
}

// What a peer reads of a decoding error names no Go types.
func TestJSON_decodeErrors(t *testing.T) {
	is := is.New(t)
	var s string
	err := typedrpc.JSON.Decode([]byte(`{"a":1}`), &s)
	is.True(strings.Contains(err.Error(), "have an object"))
	var p lab.Pair
	err = typedrpc.JSON.Decode([]byte(`{"A":"x"}`), &p)
	is.Equal(err.Error(), "A: string does not fit")
	var n int
	err = typedrpc.JSON.Decode([]byte(`"x"`), &n)
	is.Equal(err.Error(), "string does not fit")
	var e struct{}
	is.True(typedrpc.JSON.Decode([]byte(`{"a"`), &e) != nil)
	is.NoErr(typedrpc.JSON.Decode([]byte(`[1,2]`), &e)) // says nothing, whatever it is
}

func TestJSON_check(t *testing.T) {
	is := is.New(t)
	is.NoErr(typedrpc.JSON.Check(new(lab.Pair)))
	is.NoErr(typedrpc.JSON.Check(new(any)))
	is.NoErr(typedrpc.JSON.Check(new(counted)))
	is.True(typedrpc.JSON.Check(new(func())) != nil)
	is.True(typedrpc.JSON.Check(new(chan int)) != nil)
	is.True(typedrpc.JSON.Check(&struct{ F func() }{}) != nil)
}

// hexed is a codec of another name, whose payloads are no JSON.
type hexed struct{}

func (hexed) Name() string { return "hexed" }

func (hexed) Check(any) error { return nil }

func (hexed) Append(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return fmt.Appendf(dst, "%x", b), err
}

func (hexed) Decode(data []byte, v any) error {
	var b []byte
	if _, err := fmt.Sscanf(string(data), "%x", &b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func TestCodec_clientChooses(t *testing.T) {
	for _, socket := range []bool{false, true} {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		fault := typedrpc.NewFault[lab.Pair]("clash", typedrpc.Aborted)
		typedrpc.Handle(mux, lab.Ask, func(context.Context, int) (int, error) { return 0, fault.Errorf(lab.Pair{A: 1, B: 2}, "") })
		srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{typedrpc.JSON, hexed{}}}
		client, server := lab.Over{Socket: socket}.Connect(t, srv, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{hexed{}, typedrpc.JSON}})
		is.Equal(client.Codec().Name(), "hexed") // its first offer
		is.Equal(server.Codec().Name(), "hexed")
		r, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{A: 20, B: 22})
		is.NoErr(err)
		is.Equal(r.Sum, 42)
		_, err = typedrpc.Call(t.Context(), client, lab.Ask, 1)
		data, ok := fault.From(err)
		is.True(ok) // its data crossed in the codec
		is.Equal(data, lab.Pair{A: 1, B: 2})
	}
}

func TestCodec_noneInCommon(t *testing.T) {
	for _, socket := range []bool{false, true} {
		is := is.New(t)
		_, err := lab.Over{Socket: socket}.Dial(t, &typedrpc.Server{}, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{hexed{}}})
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(strings.Contains(err.Error(), "typedrpc.v1.json")) // what the server does speak
	}
}

// stubborn is a codec that can carry nothing.
type stubborn struct{ hexed }

func (stubborn) Name() string { return "stubborn" }

func (stubborn) Check(any) error { return errors.New("not this one") }

func TestCodec_cannotCarryMethod(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	err := (&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{stubborn{}}}).Check()
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), `codec "stubborn" cannot carry`))
	is.True(strings.Contains(err.Error(), "math.sum"))

	_, err = typedrpc.Dial(t.Context(), "ws://127.0.0.1:1", &typedrpc.DialOptions{Mux: mux, Codecs: []typedrpc.Codec{stubborn{}}})
	is.True(errors.Is(err, typedrpc.InvalidArgument))

	calls := typedrpc.NewMux()
	typedrpc.Handle(calls, typedrpc.NewMethod[chan int, int]("chan"), func(context.Context, chan int) (int, error) { return 0, nil })
	is.True((&typedrpc.Server{Mux: calls}).Check() != nil)
}

func TestCall_unencodable(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		half := typedrpc.NewMethod[float64, float64]("half")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, half, func(_ context.Context, f float64) (float64, error) { return math.NaN(), nil })
		var log lab.Logs
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)
		_, err := typedrpc.Call(t.Context(), client, half, math.Inf(1))
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		_, err = typedrpc.Call(t.Context(), client, half, 1)
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.Internal) // the response
		is.Equal(e.Message, "internal error")
		is.True(log.Has("JSON cannot carry NaN"))
	})
}

func TestCall_undecodable(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		asInt := typedrpc.NewMethod[int, int]("text.shout") // declared otherwise on the server
		asText := typedrpc.NewMethod[string, int]("text.shout")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, asInt, 5)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
		_, err = typedrpc.Call(t.Context(), client, asText, "x")
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.Internal) // the response does not fit
		is.Equal(e.Outcome, typedrpc.Answered)
		is.True(strings.Contains(e.Message, "cannot decode the response of text.shout"))
	})
}

func TestAlloc_nilMessage(t *testing.T) {
	is := is.New(t)
	m := typedrpc.NewMethod[*lab.Pair, *lab.Total]("alloc", typedrpc.Alloc[lab.Pair](), typedrpc.Alloc[lab.Total]())
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, m, func(_ context.Context, p *lab.Pair) (*lab.Total, error) {
		if p.A == 0 {
			return nil, nil
		}
		return &lab.Total{Sum: p.A + p.B}, nil
	})
	client, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	r, err := typedrpc.Call(t.Context(), client, m, &lab.Pair{A: 1, B: 2})
	is.NoErr(err)
	is.Equal(r.Sum, 3)
	_, err = typedrpc.Call(t.Context(), client, m, nil)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	_, err = typedrpc.Call(t.Context(), client, m, &lab.Pair{})
	is.True(errors.Is(err, typedrpc.Internal)) // a nil response is the handler's defect
}

// A message that writes broken JSON must not break the envelope, also when a
// binary connection, which would not notice, comes first.
func TestBroadcast_checksEveryDialect(t *testing.T) {
	is := is.New(t)
	broken := typedrpc.NewNotification[brokenJSON]("broken")
	srv := &typedrpc.Server{}
	binary, _ := lab.Over{}.Connect(t, srv, nil)
	text, _ := lab.Over{Dialect: typedrpc.Text}.Connect(t, srv, nil)
	err := typedrpc.Broadcast(t.Context(), func(yield func(*typedrpc.Conn) bool) {
		_ = yield(binary) && yield(text)
	}, broken, brokenJSON{})
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	is.Equal(text.State(), typedrpc.StateConnected)
}

type brokenJSON struct{}

func (brokenJSON) AppendJSON(dst []byte) ([]byte, error) { return append(dst, `{"a":`...), nil }

func (*brokenJSON) UnmarshalJSON([]byte) error { return nil }

// turned is a codec that notes whether what it encodes is encoded in a turn.
type turned struct {
	hexed
	had *[]bool
}

func (c turned) Append(dst []byte, v any) ([]byte, error) {
	*c.had = append(*c.had, flow.AtBulk() > 0)
	return c.hexed.Append(dst, v)
}

// Items are encoded in turns while they are large: behind a thousand who do that at once
// everybody else would wait.
func TestCodec_largeItemsHaveTurns(t *testing.T) {
	for name, up := range map[string]bool{"a handler's": false, "a caller's": true} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			var had []bool
			codecs := []typedrpc.Codec{turned{had: &had}}
			sizes := []int{100, 8 << 10, 8 << 10, 100, 100} // twice as many in hexadecimal digits
			mux := typedrpc.NewMux()
			send := func(x *typedrpc.Stream[string, string]) {
				for _, n := range sizes {
					is.NoErr(x.Send(testkit.Letters(n)))
				}
			}
			typedrpc.Handle(mux, lab.FlowBoth, func(_ context.Context, _ string, x *typedrpc.Stream[string, string]) error {
				if !up {
					send(x)
				}
				for _, err := range x.All() {
					is.NoErr(err)
				}
				return nil
			})
			client, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux, Codecs: codecs}, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{turned{had: &had}}})
			x, err := typedrpc.Open(t.Context(), client, lab.FlowBoth, "")
			is.NoErr(err)
			if up {
				send(x)
			}
			x.CloseSend()
			for _, err := range x.All() {
				is.NoErr(err)
			}
			is.Equal(had[len(had)-len(sizes):], []bool{false, false, true, true, false}) // by the one before
		})
	}
}
