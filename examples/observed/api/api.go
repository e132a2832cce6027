// Package api declares what the server of this example offers.
package api

import (
	_ "embed"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

//go:generate go run -C ../../../cmd/typedrpc . schema -C ../../examples/observed/api -title Observed -version 1 -o schema.json

// Schema is the document of this package, for discovery, the inspector and the command.
//
//go:embed schema.json
var Schema []byte

// Text is what a digest is made of.
type Text struct {
	Text string `json:"text"`
	// Rounds is how often the digest is taken, each time of the one before: work for a
	// processor.
	Rounds int `json:"rounds,omitempty"`
}

// Digest is the SHA-256 of a text.
type Digest struct {
	SHA256 string `json:"sha256"` // in hexadecimal digits
}

// Sum takes the digest of a text.
var Sum = typedrpc.NewMethod[Text, Digest]("text.sum", typedrpc.Idempotent, typedrpc.Timeout(5*time.Second))

// TooMany is the error of who asks for more rounds than are taken.
var TooMany = typedrpc.NewFault[Most]("text.toomany", typedrpc.InvalidArgument)

// Most is how many rounds are taken.
type Most struct {
	Rounds int `json:"rounds"`
}

// Every is how often a sample of the server's memory is taken.
type Every struct {
	Millis int `json:"millis"` // at least 100
}

// Sample is what the server's process takes at a moment.
type Sample struct {
	At         time.Time `json:"at"`
	Heap       int       `json:"heap"` // bytes of live objects and of what is not swept yet
	Goroutines int       `json:"goroutines"`
}

// Memory sends a sample again and again.
var Memory = typedrpc.NewServerStream[Every, Sample]("server.memory")

// Note is on a board.
type Note struct {
	By   string `json:"by"`
	Text string `json:"text"`
}

// Pin puts a note on a board.
type Pin struct {
	Board string `json:"board"`
	Note  Note   `json:"note"`
}

// Notes are told to everybody who looks at a board, its key.
var Notes = topic.New[Note]("notes", topic.History(20, time.Hour), topic.DropOldest)

// Post puts up a note.
var Post = typedrpc.NewMethod[Pin, struct{}]("notes.post")

// Creds are a name, which nobody checks.
type Creds struct {
	Name string `json:"name"`
}

// SignIn tells the server who somebody is.
var SignIn = typedrpc.NewSignIn[Creds, struct{}]()

// Hello is what the server calls a client for: who it is.
var Hello = typedrpc.NewMethod[struct{}, string]("client.hello", typedrpc.Idempotent)
