package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// Types that no message can be of are found when the program starts.

type (
	figure  interface{ Area() float64 }
	drawing struct {
		Title string
		Parts map[string][]*piece `json:"parts,omitempty"`
	}
	piece struct {
		Of figure `json:"of,omitempty"`
	}
)

// registers is a mux with one declaration.
func registers[F any](d typedrpc.Handled[F], f F) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, d, f)
	return mux
}

func TestCheck_whatCannotBeDecoded(t *testing.T) {
	type none = struct{}
	for name, mux := range map[string]*typedrpc.Mux{
		"request":      registers(typedrpc.NewMethod[drawing, none]("x"), func(context.Context, drawing) (n none, err error) { return }),
		"response":     registers(typedrpc.NewMethod[none, *drawing]("x"), func(context.Context, none) (d *drawing, err error) { return }),
		"notification": registers(typedrpc.NewNotification[[]drawing]("x"), func(context.Context, []drawing) error { return nil }),
		"item down":    registers(typedrpc.NewServerStream[none, drawing]("x"), func(context.Context, none, func(drawing) error) error { return nil }),
		"item up":      registers(typedrpc.NewBidiStream[none, none, drawing]("x"), func(context.Context, none, *typedrpc.Stream[drawing, none]) error { return nil }),
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			srv := &typedrpc.Server{Mux: mux}
			says(t, srv.Check(), "field Parts.Of is e2e_test.figure (an interface), which cannot be decoded", `"x"`)
			_, err := typedrpc.Dial(t.Context(), "ws://nowhere/", &typedrpc.DialOptions{Mux: mux})
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			says(t, err, "field Parts.Of")
		})
	}
	t.Run("an interface alone", func(t *testing.T) {
		mux := registers(typedrpc.NewMethod[figure, none]("x"), func(context.Context, figure) (n none, err error) { return })
		says(t, (&typedrpc.Server{Mux: mux}).Check(), "cannot carry e2e_test.figure of", "it is e2e_test.figure (an interface)")
	})
	t.Run("what no zero message has either", func(t *testing.T) {
		type pipes struct{ Of struct{ C [2]chan int } }
		mux := registers(typedrpc.NewMethod[pipes, none]("x"), func(context.Context, pipes) (n none, err error) { return })
		says(t, (&typedrpc.Server{Mux: mux}).Check(), "field Of.C is chan int")
	})
	t.Run("topic", func(t *testing.T) {
		var hub topic.Hub
		defer func() { says(t, fmt.Errorf("%v", recover()), "field Parts.Of") }()
		topic.Handle(typedrpc.NewMux(), &hub, topic.New[drawing]("x"), func(context.Context, topic.Access) error { return nil })
	})
	t.Run("sign-in", func(t *testing.T) {
		signIn := typedrpc.NewSignIn[drawing, none]()
		srv := &typedrpc.Server{SignIn: signIn.Verify(func(context.Context, *http.Request, *drawing) (id typedrpc.Identity, n none, err error) { return })}
		says(t, srv.Check(), "field Parts.Of")
	})
}

// A fault is registered nowhere, so its data is asked about when it is first sent; where it
// would arrive as nothing, nothing is what it is at once.
func TestFault_cannotBeDecoded(t *testing.T) {
	var bad = typedrpc.NewFault[drawing]("bad", typedrpc.Aborted)
	bare := typedrpc.NewFault[*card]("bare", typedrpc.Aborted)
	down := typedrpc.NewServerStream[int, int]("down")
	faults := []error{bad.Errorf(drawing{Title: "x"}, ""), bare.Errorf(&card{"x", "y"}, "")}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return 0, faults[n] })
	typedrpc.Handle(mux, down, func(_ context.Context, n int, _ func(int) error) error { return faults[n] })
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		c, back := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, &typedrpc.DialOptions{Mux: mux, Logger: log.Logger()})
		for range 2 { // what was found is remembered
			_, err := typedrpc.Call(t.Context(), c, lab.Ask, 0)
			is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
			_, err = typedrpc.Call(t.Context(), back, lab.Ask, 0)
			is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		}
		is.True(strings.Contains(log.Text(), `cannot carry e2e_test.drawing of fault \"bad\": field Parts.Of is e2e_test.figure (an interface), which cannot be decoded`))
		if !o.Plain() {
			is.Equal(typedrpc.CodeOf(last(typedrpc.Receive(t.Context(), c, down, 0))), typedrpc.Internal)
		}
		_, err := typedrpc.Call(t.Context(), c, lab.Ask, 1)
		_, ok := bare.From(err)
		is.True(ok) // JSON takes pointers
	})
	t.Run("forgotten Alloc", func(t *testing.T) {
		is := is.New(t)
		var log lab.Logs
		codecs := []typedrpc.Codec{cards{}}
		c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux, Codecs: codecs, Logger: log.Logger()}, &typedrpc.DialOptions{Codecs: codecs})
		_, err := typedrpc.Call(t.Context(), c, lab.Ask, 1)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		is.True(strings.Contains(log.Text(), "typedrpc.Alloc[e2e_test.card]()"))
	})
}

// cards is a codec of one kind of messages, those used by pointer, which leaves the rest
// to JSON, as one for protobuf does.
type cards struct{}

type card struct{ Suit, Rank string }

func (*card) IsCard() {}

func (cards) Name() string { return "cards" }

func (cards) Append(dst []byte, v any) ([]byte, error) {
	if c, ok := v.(interface{ IsCard() }); ok {
		return fmt.Append(dst, c.(*card).Suit, " of ", c.(*card).Rank), nil
	}
	return typedrpc.JSON.Append(dst, v)
}

func (cards) Decode(data []byte, v any) error {
	if c, ok := v.(*card); ok {
		suit, rank, _ := strings.Cut(string(data), " of ")
		*c = card{suit, rank}
		return nil
	}
	return typedrpc.JSON.Decode(data, v)
}

func (cards) Check(any) error { return nil }

// plainJSON is JSON by another name: pointers are nothing to it.
type plainJSON struct{ cards }

func (plainJSON) Append(dst []byte, v any) ([]byte, error) { return typedrpc.JSON.Append(dst, v) }
func (plainJSON) Decode(data []byte, v any) error          { return typedrpc.JSON.Decode(data, v) }

func TestCheck_forgottenAlloc(t *testing.T) {
	for name, mux := range map[string]*typedrpc.Mux{
		"both":         registers(typedrpc.NewMethod[*card, *card]("x"), func(_ context.Context, c *card) (*card, error) { return c, nil }),
		"response":     registers(typedrpc.NewMethod[int, *card]("x"), func(context.Context, int) (*card, error) { return nil, nil }),
		"item":         registers(typedrpc.NewServerStream[int, *card]("x"), func(context.Context, int, func(*card) error) error { return nil }),
		"notification": registers(typedrpc.NewNotification[*card]("x"), func(context.Context, *card) error { return nil }),
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			says(t, (&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{cards{}}}).Check(), "typedrpc.Alloc[e2e_test.card]()", `"x"`)
			_, err := typedrpc.Dial(t.Context(), "ws://nowhere/", &typedrpc.DialOptions{Mux: mux, Codecs: []typedrpc.Codec{typedrpc.JSON, cards{}}})
			says(t, err, "typedrpc.Alloc[e2e_test.card]()")
			is.NoErr((&typedrpc.Server{Mux: mux}).Check()) // JSON takes pointers
			is.NoErr((&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{plainJSON{}}}).Check())
		})
	}
	for name, mux := range map[string]*typedrpc.Mux{
		"with Alloc": registers(typedrpc.NewMethod[*card, *card]("x", typedrpc.Alloc[card]()), func(_ context.Context, c *card) (*card, error) { return c, nil }),
		"by value":   registers(typedrpc.NewMethod[card, card]("x"), func(_ context.Context, c card) (card, error) { return c, nil }),
		"another":    registers(typedrpc.NewMethod[*int, *lab.Pair]("x"), func(context.Context, *int) (*lab.Pair, error) { return nil, nil }),
	} {
		t.Run(name, func(t *testing.T) {
			is.New(t).NoErr((&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{cards{}}}).Check())
		})
	}
}

// A text that is none fails at its sender, whoever that is.
func TestText_refusedAtTheSender(t *testing.T) {
	is := is.New(t)
	type keys = map[string]int
	answers := typedrpc.NewMethod[int, keys]("answers")
	takes := typedrpc.NewMethod[keys, struct{}]("takes")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, answers, func(context.Context, int) (keys, error) { return keys{"\xff": 1, "\xfe": 2}, nil })
	typedrpc.Handle(mux, takes, func(context.Context, keys) (n struct{}, err error) { return })
	typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
	var log lab.Logs
	c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, &typedrpc.DialOptions{})
	_, err := typedrpc.Call(t.Context(), c, lab.Shout, "a\xff")
	lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
	says(t, err, "not UTF-8")
	_, err = typedrpc.Call(t.Context(), c, takes, keys{"\xff": 1, "\xfe": 2})
	lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
	_, err = typedrpc.Go(t.Context(), c, takes, keys{"\xff": 1}).Await(t.Context())
	lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.NotSent)
	_, err = typedrpc.Call(t.Context(), c, answers, 1)
	is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
	is.True(strings.Contains(log.Text(), "not UTF-8"))
	s, err := typedrpc.Call(t.Context(), c, lab.Shout, "a�")
	is.NoErr(err)
	is.Equal(s, "A�")
}

// saysRaw is JSON that sends what it is told, as no codec of ours does.
type saysRaw struct{ plainJSON }

func (saysRaw) Name() string { return "json" }

func (saysRaw) Append(dst []byte, v any) ([]byte, error) {
	if text, ok := v.(*string); ok {
		return append(dst, *text...), nil
	}
	return typedrpc.JSON.Append(dst, v)
}

// One that came all the same, which only binary frames carry, is refused by its receiver.
func TestText_refusedAtTheReceiver(t *testing.T) {
	type keys = map[string]int
	declared := typedrpc.NewMethod[keys, int]("takes")
	takes := typedrpc.NewMethod[string, int]("takes")
	note := typedrpc.NewNotification[keys]("note")
	up := typedrpc.NewClientStream[int, keys, int]("up")
	ups := typedrpc.NewClientStream[int, string, int]("up")
	serves := func() *typedrpc.Mux {
		mux := registers(declared, func(_ context.Context, k keys) (int, error) { return len(k), nil })
		typedrpc.Handle(mux, note, func(context.Context, keys) error { t.Error("a notification was handled"); return nil })
		typedrpc.Handle(mux, up, func(_ context.Context, _ int, items iter.Seq2[keys, error]) (n int, err error) {
			for k, err := range items {
				if err != nil {
					return 0, err
				}
				n += len(k)
			}
			return n, nil
		})
		return mux
	}
	const bad = "{\"\xff\":1,\"\xfe\":2}"
	raw := []typedrpc.Codec{saysRaw{}}
	c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: serves()}, &typedrpc.DialOptions{Codecs: raw})
	_, s := lab.Over{}.Connect(t, &typedrpc.Server{Codecs: raw}, &typedrpc.DialOptions{Mux: serves()})
	for from, c := range map[string]*typedrpc.Conn{"client": c, "server": s} {
		t.Run("from the "+from, func(t *testing.T) {
			is := is.New(t)
			n, err := typedrpc.Call(t.Context(), c, takes, `{"a":1,"\ud800":2}`)
			is.NoErr(err)
			is.Equal(n, 2) // half a pair is none
			_, err = typedrpc.Call(t.Context(), c, takes, bad)
			lab.ErrorOf(t, err, typedrpc.InvalidArgument, typedrpc.Answered)
			says(t, err, "not UTF-8")
			is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[string]("note"), bad))
			_, err = typedrpc.SendAll(t.Context(), c, ups, 1, typedrpc.Items(slices.Values([]string{`{"a":1}`, bad})))
			is.True(err != nil)
			says(t, err, "not UTF-8")
		})
	}
}
