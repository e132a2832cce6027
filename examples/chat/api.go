package main

import (
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

// What the page and the server have in common. The page's side of it is generated.
//
//go:generate go run -C ../../cmd/typedrpc . ts -C ../../examples/chat -strict -import ./typedrpc.js -o web/api.js

type (
	// Visitor is what a page signs in with, in its first message.
	Visitor struct {
		Name string `json:"name"`
	}
	// Welcome is the answer.
	Welcome struct {
		Rooms   []string `json:"rooms"` //typedrpc:notnull some to begin with
		MaxText int      `json:"maxText"`
	}
	Draft struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}
	Message struct {
		ID   string    `json:"id"` // by which a page knows what it has shown
		From string    `json:"from"`
		Text string    `json:"text"`
		At   time.Time `json:"at"`
	}
)

var (
	SignIn = typedrpc.NewSignIn[Visitor, Welcome]()

	// Say returns the message's ID. It is Serial, so that what somebody says
	// in two calls at once appears in their order.
	//
	//typedrpc:handler server
	Say = typedrpc.NewMethod[Draft, string]("chat.say", typedrpc.Serial, typedrpc.Timeout(30*time.Second))

	// Room has the messages, by room. Somebody on a bad line wants to know
	// what is being said now, and that something is missing before it: hence
	// DropOldest, and not Disconnect or WaitAtMost. When a session is lost its
	// subscriptions go on in the next one, with the history again.
	Room = topic.New[Message]("chat.room",
		topic.History(50, 24*time.Hour), topic.DropOldest, topic.WithPresence, topic.Restartable)

	// Type says that its sender is typing in a room, and Typing tells the
	// names to the others. A page says it every few seconds and forgets it as
	// soon: so there is nothing to take back, and an old notice is worthless.
	//
	//typedrpc:handler server
	Type   = typedrpc.NewNotification[string]("chat.type")
	Typing = topic.New[string]("chat.typing", topic.DropOldest, topic.Restartable)
)
