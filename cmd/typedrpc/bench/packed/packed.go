// Package packed has the small messages for msgp.
package packed

//go:generate go run github.com/tinylib/msgp@v1.6.5 -tests=false -io=false

// Request is two integers and a text.
type Request struct {
	A   int64  `msg:"a"`
	B   int64  `msg:"b"`
	Tag string `msg:"tag"`
}

// Response is an integer and a text.
type Response struct {
	Sum  int64  `msg:"sum"`
	Text string `msg:"text"`
}
