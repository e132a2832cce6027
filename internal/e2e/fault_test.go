package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// spot is used by pointer, as protobuf's messages are, and spots is a codec that knows
// nothing else.
type spot struct{ X byte }

type spots struct{}

func (spots) Name() string { return "spots" }

func (spots) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *spot:
		return append(dst, v.X), nil
	case *typedrpc.Raw:
		return append(dst, *v...), nil
	case *struct{}:
		return dst, nil
	}
	return nil, fmt.Errorf("%T is no spot", v)
}

func (spots) Decode(data []byte, v any) error {
	switch v := v.(type) {
	case *spot:
		if len(data) != 1 {
			return errors.New("no spot")
		}
		v.X = data[0]
	case *typedrpc.Raw:
		*v = append((*v)[:0], data...)
	}
	return nil
}

func (c spots) Check(v any) error { _, err := c.Append(nil, v); return err }

// The data of a fault is made by an Alloc, as messages are, in every codec, of calls,
// streams and refusals.
func TestFault_alloc(t *testing.T) {
	wet := typedrpc.NewFault[*spot]("wet", typedrpc.Aborted, typedrpc.Alloc[spot](), typedrpc.MaxSize(100))
	signIn := typedrpc.NewSignIn[*spot, struct{}](typedrpc.Alloc[spot]())
	down := typedrpc.NewServerStream[struct{}, struct{}]("down")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Stay, func(context.Context, struct{}) (struct{}, error) {
		return struct{}{}, wet.Errorf(&spot{7}, "")
	})
	typedrpc.Handle(mux, down, func(context.Context, struct{}, func(struct{}) error) error {
		return wet.Errorf(&spot{7}, "")
	})
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		codecs := []typedrpc.Codec{spots{}, typedrpc.JSON}
		for i := range codecs {
			offer := codecs[i : i+1]
			if o.Dialect != typedrpc.Binary && offer[0] != typedrpc.JSON {
				continue
			}
			is := is.New(t)
			c, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Codecs: codecs}, &typedrpc.DialOptions{Codecs: offer})
			_, err := typedrpc.Call(t.Context(), c, lab.Stay, struct{}{})
			is.Equal(typedrpc.CodeOf(err), typedrpc.Aborted)
			data, ok := wet.From(err)
			is.True(ok)
			is.Equal(*data, spot{7})
			if o.Plain() {
				continue
			}
			data, ok = wet.From(last(typedrpc.Receive(t.Context(), c, down, struct{}{})))
			is.True(ok)
			is.Equal(*data, spot{7})
			srv := &typedrpc.Server{Codecs: codecs, SignIn: signIn.Verify(func(_ context.Context, _ *http.Request, s **spot) (typedrpc.Identity, struct{}, error) {
				return typedrpc.Identity{}, struct{}{}, wet.Errorf(*s, "")
			})}
			_, err = o.Dial(t, srv, &typedrpc.DialOptions{Codecs: offer, SignIn: signIn.Present(func(context.Context) (*spot, error) { return &spot{9}, nil })})
			data, ok = wet.From(err)
			is.True(ok)
			is.Equal(*data, spot{9})
		}
	})
}

// Data that cannot be encoded fails the call, and the log says why.
func TestFault_cannotBeEncoded(t *testing.T) {
	for want, f := range map[string]error{
		"**e2e_test.spot is no spot":               typedrpc.NewFault[*spot]("wet", typedrpc.Aborted).Errorf(&spot{}, ""),
		"the message is nil":                       typedrpc.NewFault[*spot]("wet", typedrpc.Aborted, typedrpc.Alloc[spot]()).Errorf(nil, ""),
		"it has 2 bytes, the declaration allows 1": typedrpc.NewFault[typedrpc.Raw]("wet", typedrpc.Aborted, typedrpc.MaxSize(1)).Errorf(typedrpc.Raw("12"), ""),
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			var log lab.Logs
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, lab.Stay, func(context.Context, struct{}) (struct{}, error) { return struct{}{}, f })
			codecs := []typedrpc.Codec{spots{}}
			c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux, Codecs: codecs, Logger: log.Logger()}, &typedrpc.DialOptions{Codecs: codecs})
			_, err := typedrpc.Call(t.Context(), c, lab.Stay, struct{}{})
			is.Equal(err.Error(), "internal: internal error")
			is.Equal(err.(*typedrpc.Error).FaultName(), "")
			text := log.Text()
			is.True(strings.Contains(text, "typedrpc: handler failed"))
			is.True(strings.Contains(text, `cannot encode the data of the fault \"wet\": `+want))

			signIn := typedrpc.NewSignIn[struct{}, struct{}]()
			srv := &typedrpc.Server{Codecs: codecs, Logger: log.Logger(), SignIn: signIn.Verify(func(context.Context, *http.Request, *struct{}) (typedrpc.Identity, struct{}, error) {
				return typedrpc.Identity{}, struct{}{}, f
			})}
			_, err = lab.Over{}.Dial(t, srv, &typedrpc.DialOptions{Codecs: codecs, SignIn: signIn.Present(func(context.Context) (struct{}, error) { return struct{}{}, nil })})
			is.True(err != nil)
			is.True(strings.Contains(log.Text(), "typedrpc: encoding a refusal failed"))
		})
	}
}

// What a receiver takes of a fault's data is bounded too.
func TestFault_tooLargeForReceiver(t *testing.T) {
	is := is.New(t)
	theirs := typedrpc.NewFault[string]("long", typedrpc.Aborted)
	ours := typedrpc.NewFault[string]("long", typedrpc.Aborted, typedrpc.MaxSize(5))
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return 0, theirs.Errorf(strings.Repeat("x", n), "") })
	c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	_, err := typedrpc.Call(t.Context(), c, lab.Ask, 3)
	s, ok := ours.From(err)
	is.True(ok)
	is.Equal(s, "xxx")
	_, err = typedrpc.Call(t.Context(), c, lab.Ask, 4)
	_, ok = ours.From(err)
	is.True(!ok)
	_, ok = theirs.From(err)
	is.True(ok)
}

// A handler's metadata is not taken for a fault's name, nor for a number, in any dialect.
func TestFault_notMadeByMetadata(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		stock := typedrpc.NewFault[int]("stock", typedrpc.NotFound)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
			for key, value := range map[string]string{"rpc.fault": "stock", "rpc.number": "77", "other": "kept"} {
				typedrpc.RequestFrom(ctx).ReplyMetadata.Set(key, value)
			}
			if n == 1 {
				return 0, stock.Errorf(5, "")
			}
			return 0, &typedrpc.Error{Code: typedrpc.NotFound, Data: typedrpc.Raw("5")}
		})
		c, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		var meta typedrpc.Metadata
		_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &meta}), lab.Ask, 0)
		_, ok := stock.From(err)
		is.True(!ok)
		is.Equal(err.(*typedrpc.Error).FaultName(), "")
		if !o.Plain() {
			is.Equal(err.(*typedrpc.Error).Number, int64(0))
			is.Equal(meta["other"], "kept")
		}
		_, err = typedrpc.Call(t.Context(), c, lab.Ask, 1)
		n, ok := stock.From(err)
		is.True(ok)
		is.Equal(n, 5)
	})
}
