package typedrpctest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestHost_pairOverTheRealWebSocket(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.JSONRPC, typedrpc.PlainJSONRPC} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n := typedrpctest.NewNetwork(nil)
			t.Cleanup(func() { n.Close() })
			client, server := n.Host("a").Pair(t, &typedrpc.Server{Mux: doubles()}, &typedrpc.DialOptions{Dialect: d, Mux: doubles()})
			for _, c := range []*typedrpc.Conn{client, server} {
				got, err := typedrpc.Call(t.Context(), c, double, 21)
				is.NoErr(err)
				is.Equal(got, 42)
			}
			time.Sleep(time.Hour)
			is.Equal(client.State(), typedrpc.Connected)
			is.Equal(n.Stats().Dialled, 1)
		})
	}
}
