// Package gone uses what misled, by its old names: no line with a comment compiles.
package gone

import (
	"context"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

var deny []typedrpc.Interceptor

// Whose interceptors, retries and limits they are is in the names.
var (
	_ = typedrpc.Server{Interceptors: deny}                  // want "unknown field Interceptors"
	_ = typedrpc.DialOptions{Interceptors: deny}             // want "unknown field Interceptors"
	_ = typedrpc.Server{Retry: new(typedrpc.RetryPolicy)}    // want "unknown field Retry"
	_ = typedrpc.Server{MaxBuffered: 1}                      // want "unknown field MaxBuffered"
	_ = typedrpc.Server{RetryWindow: 1}                      // want "unknown field RetryWindow"
	_ = typedrpc.Backoff{Attempts: 1}                        // want "unknown field Attempts"
	_ = typedrpc.CallOptions{Reply: nil}                     // want "unknown field Reply"
	_ = typedrpc.Server{SignIn: nil}                         // want "cannot use nil"
	_ = typedrpc.Server{Authenticate: nil}                   // want "unknown field Authenticate"
	_ = typedrpc.DialOptions{Auth: nil}                      // want "unknown field Auth"
	_ = typedrpc.DialOptions{Dialect: typedrpc.PlainJSONRPC} // want "undefined: typedrpc.PlainJSONRPC"
)

// Gone without a trace, or under a word that says more.
var (
	_ = typedrpc.Race               // want "undefined"
	_ = typedrpc.KindCall           // want "undefined"
	_ = typedrpc.Connected          // want "undefined"
	_ = typedrpc.Connecting         // want "undefined"
	_ = typedrpc.Waiting            // want "undefined"
	_ = typedrpc.Closed             // want "undefined"
	_ typedrpc.ErrorMapper          // want "undefined"
	_ = typedrpc.HandleNotification // want "undefined"
	_ = typedrpc.HandleServerStream // want "undefined"
	_ = typedrpc.HandleClientStream // want "undefined"
	_ = typedrpc.HandleBidiStream   // want "undefined"
	_ = typedrpc.HandleTopic        // want "undefined"
	_ = typedrpc.Authenticate       // want "undefined"
	_ = typedrpc.Credentials        // want "undefined"
	_ = typedrpc.AuthReply          // want "undefined"
	_ = typedrpc.NewReplayCache     // want "undefined"
	_ typedrpc.Answer[int, int]     // want "undefined"
	_ typedrpc.ReplayCache          // want "undefined"
	_ typedrpc.Key                  // want "undefined"
	_ = typedrpc.NewKey             // want "undefined"
	_ = typedrpc.ParseKey           // want "undefined"
	_ typedrpc.Empty                // want "undefined"
	_ typedrpc.Kind                 // want "undefined"
	_ typedrpc.Authenticator        // want "undefined"
	_ typedrpc.HubOptions           // want "undefined"
	_ typedrpc.SlowPolicy           // want "undefined"
	_ typedrpc.ReplayOptions        // want "undefined"
	_ = typedrpc.NewRetryBudget     // want "undefined"
	_ = typedrpc.NewTopic[int]      // want "undefined"
	_ = typedrpc.NewHub             // want "undefined"
	_ = typedrpc.NewReader          // want "undefined"
	_ typedrpc.TransferOptions      // want "undefined"
	_ = topic.Presence              // want "undefined"
	_ = transfer.SendReader         // want "undefined"
)

func methods(ctx context.Context, mux *typedrpc.Mux, srv *typedrpc.Server, c *typedrpc.Conn, s *typedrpc.Stream[int, int], m typedrpc.Metadata, b typedrpc.Backoff, t topic.Topic[int]) {
	mux.With(deny...)                                 // want "mux.With undefined"
	c.Done()                                          // want "c.Done undefined"
	s.Close()                                         // want "s.Close undefined"
	s.Metadata()                                      // want "s.Metadata undefined"
	m.All()                                           // want "m.All undefined"
	b.Delay(1)                                        // want "b.Delay undefined"
	srv.Revoke("ann")                                 // want "not enough arguments"
	srv.RevokeWith("ann", typedrpc.CloseOptions{})    // want "srv.RevokeWith undefined"
	c.CloseWith(typedrpc.CloseOptions{})              // want "cannot use"
	typedrpc.NotFound.String()                        // want "String undefined"
	typedrpc.State("").String()                       // want "String undefined"
	m.Get("x")                                        // want "m.Get undefined"
	m.Keys()                                          // want "m.Keys undefined"
	t.Restartable()                                   // want "t.Restartable undefined"
	typedrpc.NewFault[int](typedrpc.NotFound, "gone") // want "cannot use"
}

// What is unknown is not safe: two equal keys, were it otherwise.
var _ = map[bool]int{false: 0, typedrpc.Outcome(0) == typedrpc.MayHaveRun: 1}
