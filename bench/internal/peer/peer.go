// Package peer has the libraries that are measured, each in a file of its own, behind one
// small interface. Each is used as its own documents recommend.
package peer

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
)

// Peer is one library, in one way of using it.
type Peer interface {
	Info() Info
	// Serve starts a server on a port of the loopback interface.
	Serve() (Server, error)
	// Dial connects to the server at addr, for so many callers at once.
	Dial(ctx context.Context, addr string, callers int) (Client, error)
}

// Info is what is said of a peer.
type Info struct {
	Name string
	// How it is used, in one line.
	How string
	// Modules whose versions the results name.
	Modules []string
	// Floor is set where there is no RPC: what the transport alone takes.
	Floor bool
	// Against is the name of the typedrpc peer whose messages are encoded alike.
	Against string
	Can     Can
}

// Can is what a peer does beside small calls.
type Can uint

// What a peer can do.
const (
	Contexts  Can = 1 << iota // its calls take contexts
	Echo                      // Echoer
	Stream                    // Streamer
	Transfer                  // Transferrer
	Broadcast                 // Subscriber, and its server a Publisher
	Idle                      // its idle connections are measured
)

// Server is a server that runs.
type Server interface {
	Addr() string
	Close()
}

// Client is a client's end. All of its methods but Close may be called by many goroutines.
type Client interface {
	Add(ctx context.Context, r msg.Request) (msg.Reply, error)
	Close()
}

// Echoer is a Client that has bytes sent back.
type Echoer interface {
	Echo(ctx context.Context, p []byte) (n int, err error)
}

// Streamer is a Client that receives a stream of n items of msg.ItemSize bytes.
type Streamer interface {
	Items(ctx context.Context, n int) (received int, err error)
}

// Transferrer is a Client that moves many bytes on the connection of its calls, in pieces.
type Transferrer interface {
	Upload(ctx context.Context, size int) error
	Download(ctx context.Context, size int) error
}

// Subscriber is a Client that is sent what a Publisher publishes. Subscribe returns when
// nothing that is published from now on will be missed, and calls got for each message.
type Subscriber interface {
	Subscribe(ctx context.Context, got func()) error
}

// Publisher is a Server that sends n messages of msg.ItemSize bytes to all who subscribed.
type Publisher interface {
	Publish(n int) error
}

// Missing are libraries that were to be measured, and why they are not.
var Missing = []struct{ Name, Why string }{
	{"filecoin-project/go-jsonrpc", "the module proxy does not have it"},
	{"cenkalti/rpc2", "the module proxy does not have it"},
}

// All returns all peers, in the order in which they are shown.
func All() []Peer {
	return []Peer{
		handPeer(), msgpPeer(), protoPeer(), jsonPeer(), fastPeer(), inlinePeer(), jsonrpcPeer(),
		grpcPeer{}, connectPeer{h2c: true}, connectPeer{}, drpcPeer{}, ttrpcPeer{}, netRPCPeer{},
		centrifugePeer{}, centrifugePeer{json: true},
		ethereumPeer{}, jrpc2Peer{}, sourcegraphPeer{},
		coderPeer{}, gwsPeer{}, wsjsonPeer{}, tcpPeer{},
	}
}

// Named returns the peer of that name.
func Named(name string) (Peer, error) {
	for _, p := range All() {
		if p.Info().Name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no peer has the name %q", name)
}

// listen opens a port of the loopback interface.
func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// running is a Server that is closed by a function.
type running struct {
	addr  string
	close func()
}

func (s running) Addr() string { return s.addr }
func (s running) Close()       { s.close() }

// serveHTTP runs a server over HTTP/1.1, and whatever it is upgraded to. end closes what
// net/http does not know any more.
func serveHTTP(h http.Handler, end func()) (Server, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	hs := &http.Server{Handler: h}
	go hs.Serve(ln)
	return running{ln.Addr().String(), func() {
		if end != nil {
			end()
		}
		hs.Close()
	}}, nil
}

// serveTCP runs serve for each connection, and closes them all at the end.
func serveTCP(serve func(net.Conn)) (Server, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return running{ln.Addr().String(), func() { stop(); ln.Close() }}, nil
}
