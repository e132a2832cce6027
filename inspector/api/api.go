// Package api is what the inspector's page and its server have in common. The page's part
// of it, web/api.js and the types beside it, is made from this file.
package api

import "github.com/typedrpc/typedrpc"

//go:generate go run -C ../../cmd/typedrpc . ts -C ../../inspector/api -strict -notnull -import ./typedrpc.js -o ../web/api.js

// Creds are what somebody typed into the page; empty at first.
type Creds struct {
	Secret string `json:"secret"`
}

// Welcome is what a page is told first.
type Welcome struct {
	Name     string `json:"name"`     // who looks, "" where nobody said
	Call     bool   `json:"call"`     // whether methods may be tried
	End      bool   `json:"end"`      // whether connections may be ended
	Topics   bool   `json:"topics"`   // whether there are hubs to look at
	Payloads bool   `json:"payloads"` // whether frames are shown with their payloads
}

// Traffic is what went one way since the beginning.
type Traffic struct {
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"`
}

// Load is what one connection holds and has done, or all together. Bytes, but for counts.
type Load struct {
	Calls    int     `json:"calls"`   // of the peers, calls and streams being handled …
	Streams  int     `json:"streams"` // … streams among them
	Out      int     `json:"out"`     // calls and streams of this side that are under way
	Waiting  int     `json:"waiting"` // calls of this side that wait for a place, or a link
	Unacked  int     `json:"unacked"`
	Buffered int     `json:"buffered"`
	Unread   int     `json:"unread"`
	Memory   int     `json:"memory"`
	Resumes  int     `json:"resumes"`
	Sent     Traffic `json:"sent"`
	Received Traffic `json:"received"`
}

// Overview is how the server is at one moment.
type Overview struct {
	At            int  `json:"at"`    // Unix time in milliseconds
	Conns         int  `json:"conns"` // that are open, those without a link included
	Accepted      int  `json:"accepted"`
	Links         int  `json:"links"`
	Opening       int  `json:"opening"`
	Plain         int  `json:"plain"`
	MaxPlain      int  `json:"maxPlain"`
	Posts         int  `json:"posts"`
	Detached      int  `json:"detached"` // handlers of keyed calls that go on without their sessions
	Kept          int  `json:"kept"`     // sessions that wait for their clients
	MaxKept       int  `json:"maxKept"`
	KeptBytes     int  `json:"keptBytes"`
	MaxKeptBytes  int  `json:"maxKeptBytes"`
	MaxMemory     int  `json:"maxMemory"`
	EvictedGrace  int  `json:"evictedGrace"`
	EvictedKept   int  `json:"evictedKept"`
	EvictedMemory int  `json:"evictedMemory"`
	Goroutines    int  `json:"goroutines"`
	Heap          int  `json:"heap"` // bytes of Go's heap that live, or did before the last collection
	Load          Load `json:"load"`
}

// Order says which connections come first.
type Order string

const (
	Newest  Order = "newest"
	Oldest  Order = "oldest"
	Memory  Order = "memory"  // those that hold the most
	Calls   Order = "calls"   // those with the most calls under way
	Busiest Order = "traffic" // those that have sent and received the most bytes
	Unacked Order = "unacked" // those with the most bytes that are not acknowledged
)

// Query asks for some of the connections.
type Query struct {
	Text    string `json:"text,omitempty"`    // that the subject or the address contains
	Waiting bool   `json:"waiting,omitempty"` // those without a link alone
	Order   Order  `json:"order,omitempty"`
	Skip    int    `json:"skip,omitempty"`
	Most    int    `json:"most,omitempty"` // at most 100, and by default 50
}

// ID names a connection for as long as it is.
type ID struct {
	ID int `json:"id"`
}

// Conn is a connection at one moment.
type Conn struct {
	ID        int    `json:"id"`
	Subject   string `json:"subject"` // "": nobody has said
	Address   string `json:"address"` // of its latest link
	Dialect   string `json:"dialect"`
	Codec     string `json:"codec"`
	Since     int    `json:"since"`     // Unix time in milliseconds
	Expires   int    `json:"expires"`   // the same of its credentials; 0: never
	Away      int    `json:"away"`      // the same, since when it has no link; 0: it has one
	Lost      string `json:"lost"`      // what the last link ended with
	RoundTrip int    `json:"roundTrip"` // in microseconds; 0: nobody knows
	Load      Load   `json:"load"`
}

// Page is some of the connections at one moment.
type Page struct {
	At    int    `json:"at"`    // Unix time in milliseconds
	All   int    `json:"all"`   // that there are
	Found int    `json:"found"` // of them, those that were asked for
	Rows  []Conn `json:"rows"`
}

// One is a connection at one moment, or that it is no more.
type One struct {
	At    int    `json:"at"`    // Unix time in milliseconds
	Ended string `json:"ended"` // why; "": it has not
	Conn  Conn   `json:"conn"`
}

// Frame is one that has passed.
type Frame struct {
	At       int               `json:"at"`   // Unix time in microseconds
	Sent     bool              `json:"sent"` // by the server
	Type     string            `json:"type"`
	ID       string            `json:"id"`     // of the call
	Theirs   bool              `json:"theirs"` // the call is the client's
	Method   string            `json:"method"`
	Note     string            `json:"note"`    // what else it says
	Bad      bool              `json:"bad"`     // it fails something
	Size     int               `json:"size"`    // of its payload, in bytes
	Payload  string            `json:"payload"` // as much as is shown of it
	Base64   bool              `json:"base64"`  // the payload is no text, and is written so
	Cut      bool              `json:"cut"`     // the payload has more
	Metadata map[string]string `json:"metadata"`
}

// Frames are those that have passed since the last ones.
type Frames struct {
	Missed int     `json:"missed"` // before them: nobody took them in time
	Frames []Frame `json:"frames"`
}

// Filter asks for some of the topics' keys.
type Filter struct {
	Text string `json:"text,omitempty"` // that the topic or the key contains
}

// Key is what a hub has of one key of a topic.
type Key struct {
	Hub         int    `json:"hub"` // which, from 0
	Topic       string `json:"topic"`
	Key         string `json:"key"`
	Subscribers int    `json:"subscribers"`
	Listeners   int    `json:"listeners"` // of the server's process
	Onlookers   int    `json:"onlookers"` // at who is there
	Members     int    `json:"members"`
	History     int    `json:"history"`
	Bytes       int    `json:"bytes"`    // of the history
	Messages    int    `json:"messages"` // since the key is in use
	Dropped     int    `json:"dropped"`  // messages that subscribers were not given
	Slow        int    `json:"slow"`     // subscribers that were ended for being slow
}

// Keys are some of the hubs' keys, those with the most subscribers.
type Keys struct {
	At          int   `json:"at"` // Unix time in milliseconds
	All         int   `json:"all"`
	Found       int   `json:"found"`
	Subscribers int   `json:"subscribers"`
	History     int   `json:"history"` // bytes of all histories
	Rows        []Key `json:"rows"`
}

// Document is an OpenRPC document of what the server handles.
type Document struct {
	OpenRPC string `json:"openrpc"` // JSON
}

// Ending says what is to end, and how.
type Ending struct {
	ID       int    `json:"id,omitempty"`       // of a connection; 0: all of the subject
	Subject  string `json:"subject,omitempty"`  // whose connections; with an ID nobody looks at it
	StayAway bool   `json:"stayAway,omitempty"` // the client is told not to come back
	Reason   string `json:"reason,omitempty"`   // that it is told
}

// Ended is how many connections were ended.
type Ended struct {
	Conns int `json:"conns"`
}

// Ticket lets the page connect to the inspected server, as a cookie.
type Ticket struct {
	Value string `json:"value"`
}

var (
	SignIn = typedrpc.NewSignIn[Creds, Welcome]()

	// Watch is the server, once a second.
	Watch = typedrpc.NewServerStream[struct{}, Overview]("inspector.watch")

	// List are its connections, once a second.
	List = typedrpc.NewServerStream[Query, Page]("inspector.list")

	// Look is one connection, once a second.
	Look = typedrpc.NewServerStream[ID, One]("inspector.look")

	// Tap are the frames of one connection, as they pass.
	Tap = typedrpc.NewServerStream[ID, Frames]("inspector.tap")

	// Topics are the hubs' keys, once a second.
	Topics = typedrpc.NewServerStream[Filter, Keys]("inspector.topics")

	// Describe says what the server handles.
	Describe = typedrpc.NewMethod[struct{}, Document]("inspector.describe", typedrpc.Idempotent)

	// Admit asks for a ticket. It counts for as long as the connection that asked.
	Admit = typedrpc.NewMethod[struct{}, Ticket]("inspector.admit", typedrpc.Idempotent)

	// End ends connections.
	End = typedrpc.NewMethod[Ending, Ended]("inspector.end")
)
