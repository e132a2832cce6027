package main

import "github.com/typedrpc/typedrpc"

// What client and server share. Nothing in it says what happens when the
// connection breaks: going on is what sessions do by themselves.
var (
	// Numbers carries numbers both ways, each side its own, until the client
	// ends its side.
	Numbers = typedrpc.NewBidiStream[struct{}, int64, int64]("numbers")
	// Noted is a numbered notification.
	Noted = typedrpc.NewNotification[int64]("noted")
	// Double is a call that must not run twice.
	Double = typedrpc.NewMethod[int64, int64]("double")
	// Flush returns when the notifications before it were handled: serial
	// calls and notifications are handled in the order in which they were sent.
	Flush = typedrpc.NewMethod[struct{}, struct{}]("flush", typedrpc.Serial, typedrpc.Idempotent)
)
