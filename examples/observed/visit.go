package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/observed/api"
	"github.com/typedrpc/typedrpc/otelrpc"
	"github.com/typedrpc/typedrpc/topic"
)

// visitAll starts the clients. Each has a connection of its own, over the network, and stays
// away when it is told to.
func visitAll(ctx context.Context, url string, tel *otelrpc.Telemetry, o options) *sync.WaitGroup {
	var visits sync.WaitGroup
	for n := range o.visitors {
		name := fmt.Sprintf("visitor %d", n+1)
		visits.Go(func() {
			if err := visit(ctx, url, name, tel); err != nil && ctx.Err() == nil {
				o.log.Warn("a visitor has left", "who", name, "error", err)
			}
		})
	}
	return &visits
}

// visit calls, listens and posts until ctx or the connection ends.
func visit(ctx context.Context, url, name string, tel *otelrpc.Telemetry) error {
	mux := typedrpc.NewMux(tel.Intercept)
	typedrpc.Handle(mux, api.Hello, func(context.Context, struct{}) (string, error) { return name, nil })
	conn, err := typedrpc.Dial(ctx, url, &typedrpc.DialOptions{
		Mux:                  mux,
		Schema:               api.Schema, // a server of another version of it is told in the log
		SignIn:               api.SignIn.Present(func(context.Context) (api.Creds, error) { return api.Creds{Name: name}, nil }),
		OutgoingInterceptors: []typedrpc.Interceptor{tel.Intercept},
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	listens := make(chan error, 1)
	go func() {
		for _, err := range topic.Subscribe(ctx, conn, api.Notes, "hall") {
			if err != nil {
				listens <- err
				return
			}
		}
	}()
	for n := 1; ; n++ {
		pause := time.After(rand.N(time.Second))
		select {
		case <-pause:
		case <-ctx.Done():
			return nil
		case err := <-listens:
			return err
		case <-conn.Context().Done():
			return conn.Err()
		}
		// One in fifty asks for too much, so that there are errors to look at.
		rounds := rand.IntN(mostRounds * 50 / 49)
		d, err := typedrpc.Call(ctx, conn, api.Sum, api.Text{Text: name, Rounds: rounds})
		if err == nil && n%10 == 0 {
			_, err = typedrpc.Call(ctx, conn, api.Post, api.Pin{Board: "hall", Note: api.Note{By: name, Text: d.SHA256}})
		}
		if _, asked := api.TooMany.From(err); err != nil && !asked && conn.Err() == nil && ctx.Err() == nil {
			return err
		}
	}
}
