package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/observed/api"
	"github.com/typedrpc/typedrpc/topic"
)

func newMux(hub *topic.Hub, in ...typedrpc.Interceptor) *typedrpc.Mux {
	mux := typedrpc.NewMux(in...)
	typedrpc.Handle(mux, api.Sum, sum)
	typedrpc.Handle(mux, api.Memory, memory)
	topic.Handle(mux, hub, api.Notes, topic.Everybody)
	typedrpc.Handle(mux, api.Post, func(ctx context.Context, p api.Pin) (struct{}, error) {
		return struct{}{}, topic.Publish(ctx, hub, api.Notes, p.Board, p.Note)
	})
	return mux
}

// signIn takes everybody by the name that they give, which no other server should: it is
// for the inspector to show, and for ending what one user has.
func signIn(_ context.Context, _ *http.Request, c *api.Creds) (typedrpc.Identity, struct{}, error) {
	if c == nil {
		return typedrpc.Identity{}, struct{}{}, nil // a stranger, as the command is without -token
	}
	return typedrpc.Identity{Subject: c.Name}, struct{}{}, nil
}

// describe tells those on this machine what there is.
func describe(ctx context.Context) error {
	conn := typedrpc.ConnFrom(ctx)
	at, err := netip.ParseAddrPort(conn.RemoteAddr())
	if err != nil || !at.Addr().Unmap().IsLoopback() {
		return typedrpc.Errorf(typedrpc.PermissionDenied, "ask on the server's machine")
	}
	return nil
}

const mostRounds = 100_000

func sum(ctx context.Context, t api.Text) (api.Digest, error) {
	if t.Rounds > mostRounds {
		return api.Digest{}, api.TooMany.Errorf(api.Most{Rounds: mostRounds}, "%d rounds are more than %d", t.Rounds, mostRounds)
	}
	d := sha256.Sum256([]byte(t.Text))
	for range t.Rounds - 1 {
		if ctx.Err() != nil {
			return api.Digest{}, ctx.Err()
		}
		d = sha256.Sum256(d[:])
	}
	return api.Digest{SHA256: hex.EncodeToString(d[:])}, nil
}

// memory samples what this process takes, until nobody listens.
func memory(ctx context.Context, e api.Every, send func(api.Sample) error) error {
	if e.Millis < 100 {
		return typedrpc.Errorf(typedrpc.InvalidArgument, "every %d ms is too often: take 100 or more", e.Millis)
	}
	every := time.NewTicker(time.Duration(e.Millis) * time.Millisecond)
	defer every.Stop()
	for {
		heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(heap)
		s := api.Sample{At: time.Now(), Heap: int(heap[0].Value.Uint64()), Goroutines: runtime.NumGoroutine()}
		if err := send(s); err != nil {
			return err
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
