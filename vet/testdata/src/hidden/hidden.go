package hidden

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

var (
	conn   *typedrpc.Conn
	prices typedrpc.ServerStream[int, int]
	news   topic.Topic[string]
	numb   typedrpc.ClientStream[int, string, int]
)

func use(...any) {}

func direct(ctx context.Context, s *typedrpc.Stream[int, string]) {
	for n := range typedrpc.Receive(ctx, conn, prices, 1) { // want `the loop hides errors`
		use(n)
	}
	for n, _ := range typedrpc.Receive(ctx, conn, prices, 1) { // want `the loop hides errors`
		use(n)
	}
	for text := range s.All() { // want `the loop hides errors`
		use(text)
	}
	for text := range topic.Subscribe(ctx, conn, news, "key") { // want `the loop hides errors`
		use(text)
	}
	for part := range transfer.Parts(ctx, conn) { // want `the loop hides errors`
		use(part)
	}
	for c := range typedrpc.CallAll(ctx, slices.Values([]*typedrpc.Conn{conn}), typedrpc.Method[int, int]{}, 1) { // want `the loop hides errors`
		use(c)
	}
	for c, _ := range typedrpc.CallAll(ctx, slices.Values([]*typedrpc.Conn{conn}), typedrpc.Method[int, int]{}, 1) { // want `the loop hides errors`
		use(c)
	}
	for c, f := range typedrpc.CallAll(ctx, slices.Values([]*typedrpc.Conn{conn}), typedrpc.Method[int, int]{}, 1) {
		use(c, f)
	}
	var text string
	for text = range s.All() { // want `the loop hides errors`
		use(text)
	}
}

func byVariable(ctx context.Context) {
	items := typedrpc.Receive(ctx, conn, prices, 1)
	for n := range items { // want `the loop hides errors`
		use(n)
	}
	var both iter.Seq2[int, error]
	if ctx.Err() == nil {
		both = items
	} else {
		both = typedrpc.Receive(ctx, conn, prices, 2)
	}
	for n := range both { // want `the loop hides errors`
		use(n)
	}
}

type service struct{}

func (service) method(ctx context.Context, n int, items iter.Seq2[string, error]) (int, error) {
	for text := range items { // want `the loop hides errors`
		use(text)
	}
	return 0, nil
}

func function(ctx context.Context, n int, items iter.Seq2[string, error]) (int, error) {
	for text := range items { // want `the loop hides errors`
		use(text)
	}
	return 0, nil
}

func handlers(mux *typedrpc.Mux, up transfer.Upload) {
	typedrpc.Handle(mux, numb, service{}.method)
	typedrpc.Handle(mux, numb, function)
	typedrpc.Handle(mux, numb, func(ctx context.Context, n int, items iter.Seq2[string, error]) (int, error) {
		for text := range items { // want `the loop hides errors`
			use(text)
		}
		return 0, nil
	})
	named := func(ctx context.Context, n int, items iter.Seq2[string, error]) (int, error) {
		for text := range items { // want `the loop hides errors`
			use(text)
		}
		return 0, nil
	}
	typedrpc.Handle(mux, numb, named)
	typedrpc.Handle(mux, up, func(ctx context.Context, parts iter.Seq2[[]byte, error]) error {
		for part := range parts { // want `the loop hides errors`
			use(part)
		}
		return nil
	})
	typedrpc.Handle(mux, numb, func(ctx context.Context, n int, items iter.Seq2[string, error]) (int, error) {
		items = filtered(items)
		for text := range items {
			use(text)
		}
		return 0, nil
	})
}

func filtered(items iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for text, err := range items {
			if !yield(text, err) {
				return
			}
		}
	}
}

func fine(ctx context.Context, s *typedrpc.Stream[int, string], given iter.Seq2[int, error]) {
	for n, err := range typedrpc.Receive(ctx, conn, prices, 1) {
		use(n, err)
	}
	for _, err := range typedrpc.Receive(ctx, conn, prices, 1) {
		use(err)
	}
	for range s.All() { // waits for the end
	}
	for _ = range s.All() {
	}
	for _, _ = range s.All() {
	}
	for n := range typedrpc.Items(slices.Values([]int{1})) { // has no errors
		use(n)
	}
	for key := range conn.Pairs() { // the second is no error
		use(key)
	}
	for key := range maps.All(map[string]error{}) {
		use(key)
	}
	for n := range given { // whose it is, is not known
		use(n)
	}
	other := typedrpc.Receive(ctx, conn, prices, 1)
	other = func(func(int, error) bool) {}
	for n := range other {
		use(n)
	}
	changed := typedrpc.Receive(ctx, conn, prices, 1)
	change(&changed)
	for n := range changed {
		use(n)
	}
}

func change(*iter.Seq2[int, error]) {}
