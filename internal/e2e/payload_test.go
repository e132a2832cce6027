package e2e_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// handed is what UnmarshalJSON was handed.
type handed string

func (h *handed) AppendJSON(dst []byte) ([]byte, error) { return append(dst, *h...), nil }
func (h *handed) UnmarshalJSON(data []byte) error       { *h = handed(data); return nil }

// What surrounds a value is no part of it, wherever it is read.
func TestPayload_whiteSpace(t *testing.T) {
	const sent, want = "\t {\"a\" : 1}\r\n ", `{"a" : 1}`
	rawCall := typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw]("call")
	rawUp := typedrpc.NewClientStream[typedrpc.Raw, typedrpc.Raw, string]("up")
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		got := ""
		typedrpc.Handle(mux, typedrpc.NewMethod[handed, typedrpc.Raw]("call"), func(_ context.Context, h handed) (typedrpc.Raw, error) {
			got = string(h)
			return typedrpc.Raw(sent), nil
		})
		typedrpc.Handle(mux, typedrpc.NewClientStream[handed, handed, string]("up"), func(_ context.Context, h handed, items iter.Seq2[handed, error]) (string, error) {
			all := string(h)
			for item, err := range items {
				if err != nil {
					return "", err
				}
				all += string(item)
			}
			return all, nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		raw, err := typedrpc.Call(t.Context(), client, rawCall, typedrpc.Raw(sent))
		is.NoErr(err)
		is.Equal(got, want)
		is.Equal(string(raw), want)
		h, err := typedrpc.Call(t.Context(), client, typedrpc.NewMethod[typedrpc.Raw, handed]("call"), typedrpc.Raw(sent))
		is.NoErr(err)
		is.Equal(string(h), want)
		if o.Plain() {
			return // no streams
		}
		all, err := typedrpc.SendAll(t.Context(), client, rawUp, typedrpc.Raw(sent), typedrpc.Items(func(yield func(typedrpc.Raw) bool) {
			yield(typedrpc.Raw(sent))
		}))
		is.NoErr(err)
		is.Equal(all, want+want)
	})
}

// A request that encoding/json refuses is refused, in words that say nothing of Go.
func TestPayload_refused(t *testing.T) {
	type numbers struct {
		Natural uint `json:"natural"`
		Quoted  int  `json:"quoted,string"`
	}
	ask := typedrpc.NewMethod[typedrpc.Raw, int]("ask")
	askNatural := typedrpc.NewMethod[typedrpc.Raw, int]("natural")
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, typedrpc.NewMethod[numbers, int]("ask"), func(context.Context, numbers) (int, error) { return 0, nil })
		typedrpc.Handle(mux, typedrpc.NewMethod[uint, int]("natural"), func(context.Context, uint) (int, error) { return 0, nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		for _, test := range []struct {
			m          typedrpc.Method[typedrpc.Raw, int]
			data, text string
		}{
			{askNatural, `-0`, "number -0 does not fit"},
			{ask, `{"natural":-0}`, "natural: number -0 does not fit"},
			{ask, `{"quoted":"x"}`, "a member does not fit: it wants a value in a string"},
		} {
			_, err := typedrpc.Call(t.Context(), client, test.m, typedrpc.Raw(test.data))
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.Equal(lab.AsError(t, err).Message, "cannot decode the request: "+test.text)
		}
	})
}
