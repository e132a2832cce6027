package peer_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/rpc"
	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

// TestEthereum_subscribes has go-ethereum's own client, unchanged, subscribe to streams and
// a topic of ours, and leave; and shows what it makes of an end, which its own server never
// tells.
func TestEthereum_subscribes(t *testing.T) {
	type filter struct {
		Address string `json:"address"`
	}
	heads := topic.New[int]("eth_heads")
	logs := typedrpc.NewServerStream[filter, string]("eth_logs")
	ends := typedrpc.NewServerStream[struct{}, int]("eth_ends")
	left := make(chan error, 1)
	var hub topic.Hub
	mux := typedrpc.NewMux()
	topic.Handle(mux, &hub, heads, topic.Everybody)
	typedrpc.Handle(mux, logs, func(ctx context.Context, f filter, send func(string) error) error {
		for i := range 1000 {
			if err := send(fmt.Sprint(f.Address, " ", i)); err != nil {
				left <- err
				return err
			}
		}
		<-ctx.Done()
		left <- ctx.Err()
		return ctx.Err()
	})
	typedrpc.Handle(mux, ends, func(context.Context, struct{}, func(int) error) error { return nil })
	srv := &typedrpc.Server{Mux: mux, Subscribes: []string{"eth"}}
	h := httptest.NewServer(srv)
	defer h.Close()
	client, err := rpc.DialWebsocket(t.Context(), strings.Replace(h.URL, "http", "ws", 1), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	came := make(chan string)
	sub, err := client.EthSubscribe(t.Context(), came, "logs", filter{"0x7"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if got, want := <-came, fmt.Sprint("0x7 ", i); got != want {
			t.Fatalf("%q came instead of %q", got, want)
		}
	}
	sub.Unsubscribe()
	if err := <-left; err == nil {
		t.Error("the handler was not told that its subscriber has left")
	}

	blocks := make(chan int)
	sub, err = client.EthSubscribe(t.Context(), blocks, "heads", "main")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		if err := topic.Publish(t.Context(), &hub, heads, "main", n); err != nil {
			t.Fatal(err)
		}
		if got := <-blocks; got != n {
			t.Fatalf("block %d came instead of %d", got, n)
		}
	}
	sub.Unsubscribe()

	if _, err := client.EthSubscribe(t.Context(), blocks, "nothing"); err == nil || !strings.Contains(err.Error(), "eth_nothing") {
		t.Errorf("there is no such stream, and it is %v", err)
	}
	none := make(chan int)
	sub, err = client.EthSubscribe(t.Context(), none, "ends")
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sub.Err(); err == nil {
		t.Error("a stream that has ended is not known to have")
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
