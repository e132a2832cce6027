package typedrpctest

import (
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
)

// NetworkOptions are NewNetwork's. nil, and the zero value of every field, are
// fine.
type NetworkOptions struct {
	// Seed is what everything random depends on: Jitter, and where CutEach
	// cuts.
	Seed uint64
	// Up and Down are the conditions that the network begins with.
	Up, Down Conditions
}

// Network is a network in memory that fails on demand: hosts with names, and
// connections between a client and them that behave like TCP. What runs over
// them is real, net/http and the WebSocket included. It works inside of a
// testing/synctest bubble, where it must be made in the bubble, and outside.
//
// All methods may be called from any goroutine.
type Network struct {
	Faults

	client *http.Client
	hosts  map[string]*Host // under Faults.mu
	served sync.WaitGroup
}

// NewNetwork returns a network without hosts. Close ends it.
func NewNetwork(o *NetworkOptions) *Network {
	n := &Network{hosts: map[string]*Host{}}
	n.begun = true
	if o != nil {
		n.seed, n.now = o.Seed, [2]Conditions{o.Up, o.Down}
	}
	n.client = &http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
	return n
}

// HTTPClient returns a client, always the same, that dials the hosts of the
// network: for DialOptions.HTTPClient. A transport of your own needs
// DialContext only.
func (n *Network) HTTPClient() *http.Client { return n.made().client }

// Host returns the host of that name, which has no port, and makes it if there
// is none. A new one refuses connections until Listen or Serve is called.
func (n *Network) Host(name string) *Host {
	n.made().mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		i := len(n.hosts) + 1
		h = &Host{network: n, name: name, addr: &net.TCPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 80}}
		n.hosts[name] = h
	}
	return h
}

// DialContext connects to the host that addr names, whatever the port and the
// network are. That takes a round trip. The error is a *net.OpError, as that
// of a net.Dialer is: with ECONNREFUSED when nobody listens there, a
// *net.DNSError when there is no such host. Where the path is cut off, by
// Unplug, Stall or BlackHole, DialContext waits until it no longer is, or
// until ctx ends.
func (n *Network) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	n.made()
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		name = addr
	}
	n.mu.Lock()
	h := n.hosts[name]
	n.mu.Unlock()
	fail := func(err error) (net.Conn, error) {
		e := &net.OpError{Op: "dial", Net: network, Err: err}
		if h != nil {
			e.Addr = h.addr
		}
		return nil, e
	}
	if h == nil {
		return fail(&net.DNSError{Err: "no such host", Name: name, IsNotFound: true})
	}
	travelled := false
	for {
		n.mu.Lock()
		dead := h.unplugged || n.deadLocked()
		trip := n.now[0].Latency + n.now[1].Latency
		closed, changed := n.closed, n.changed
		switch {
		case closed:
		case dead && changed == nil:
			changed = make(chan struct{})
			n.changed = changed
		case !dead && (travelled || trip <= 0):
			c := n.connectLocked(h)
			n.mu.Unlock()
			if c == nil {
				return fail(syscall.ECONNREFUSED)
			}
			return c, nil
		}
		n.mu.Unlock()
		if closed {
			return fail(net.ErrClosed)
		}
		if dead {
			select {
			case <-changed:
			case <-ctx.Done():
				return fail(ctx.Err())
			}
			continue
		}
		travelled = true
		timer := time.NewTimer(trip)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fail(ctx.Err())
		}
	}
}

// connectLocked makes a connection to h, nil if that does not listen.
func (n *Network) connectLocked(h *Host) net.Conn {
	if h.stopped || h.listener == nil || len(h.listener.queue) == cap(h.listener.queue) {
		return nil
	}
	l := n.linkLocked(h, &net.TCPAddr{IP: net.IPv4(10, 1, 0, 1), Port: 10_000 + n.dialled%50_000}, h.addr)
	h.listener.queue <- l.listener // only here, under the lock: there is room
	return l.dialer
}

// Close ends the network: every connection is reset, listeners are closed, the
// http.Servers of Serve have ended, and who dials is refused. It ends no
// typedrpc.Conn; a dialled one goes on trying until its own Close. The error
// is nil.
func (n *Network) Close() error {
	n.made().Faults.end()
	n.mu.Lock()
	hosts := slices.Collect(maps.Values(n.hosts))
	n.mu.Unlock()
	for _, h := range hosts {
		h.close()
	}
	n.client.CloseIdleConnections()
	n.served.Wait()
	return nil
}

// Host is a machine of a Network, with a name. Its methods may be called from
// any goroutine.
type Host struct {
	network *Network
	name    string
	addr    *net.TCPAddr

	// under Network.mu
	stopped, unplugged bool
	listener           *listener
	http               *http.Server // of Serve
	handler            http.Handler
}

// URL returns the URL of the host's root: "ws://name/".
func (h *Host) URL() string {
	h.made()
	return "ws://" + h.name + "/"
}

// Listen returns a listener for the host's connections, for an http.Server of
// your own. There is one at a time: where one is open, its own or that of
// Serve, the error is a *net.OpError with EADDRINUSE.
func (h *Host) Listen() (net.Listener, error) {
	l, err := h.listen()
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: h.addr, Err: err}
	}
	return l, nil
}

func (h *Host) listen() (*listener, error) {
	n := h.made()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, net.ErrClosed
	case h.listener != nil:
		return nil, syscall.EADDRINUSE
	}
	h.listener = &listener{host: h, queue: make(chan *conn, 128), done: make(chan struct{})}
	return h.listener, nil
}

// Serve starts an http.Server on the host that answers with handler, in the
// place of what listened there before, and does what Start does. Connections
// that an earlier handler took over, such as WebSockets, live on: Stop ends
// them. On a network that was closed it does nothing.
func (h *Host) Serve(handler http.Handler) {
	h.close()
	l, err := h.listen()
	if err != nil {
		return
	}
	hs := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	n := h.network
	n.mu.Lock()
	h.http, h.handler = hs, handler
	n.mu.Unlock()
	n.served.Go(func() { hs.Serve(l) })
	h.Start()
}

// close ends whatever listens.
func (h *Host) close() {
	n := h.made()
	n.mu.Lock()
	hs, l := h.http, h.listener
	h.http, h.handler = nil, nil
	n.mu.Unlock()
	if l != nil {
		l.Close()
	}
	if hs != nil {
		hs.Close()
	}
}

// Stop resets the host's connections and lets it refuse new ones, as a machine
// does whose server was killed. Who listens
// there goes on listening, and is connected to again after Start.
func (h *Host) Stop() {
	h.set(func() { h.stopped = true })
	for _, l := range h.links() {
		l.Cut(CutReset)
	}
}

// Unplug cuts the host off. Nothing arrives there or comes from there, and
// nobody is told; dialling hangs until its context ends. Nothing is lost: it
// arrives after Start, if its connection still lives.
func (h *Host) Unplug() {
	h.set(func() { h.unplugged = true })
	for _, l := range h.links() {
		l.unplug(true)
	}
}

// Start ends what Stop and Unplug began.
func (h *Host) Start() {
	h.set(func() { h.stopped, h.unplugged = false, false })
	for _, l := range h.links() {
		l.unplug(false)
	}
}

func (h *Host) set(f func()) {
	h.made().mu.Lock()
	defer h.network.mu.Unlock()
	f()
	h.network.changedLocked()
}

func (h *Host) links() []*Link {
	return slices.DeleteFunc(h.network.all(), func(l *Link) bool { return l.host != h })
}

// Pair lets the host serve srv, if it does not already, dials it with o, which
// may be nil, and returns the client's and the server's end. o.HTTPClient is
// the network's if there is none. Nobody else may dial srv meanwhile.
//
// Both ends are closed when the test ends, before its other cleanups that were
// registered earlier; the network is not. A handshake that fails fails the
// test.
//
//	synctest.Test(t, func(t *testing.T) {
//		n := typedrpctest.NewNetwork(nil)
//		t.Cleanup(func() { n.Close() })
//		client, _ := n.Host("shop").Pair(t, srv, nil)
//		n.CutAll(typedrpctest.CutDialer) // the server does not learn of it
//		…
//	})
func (h *Host) Pair(t testing.TB, srv *typedrpc.Server, o *typedrpc.DialOptions) (client, server *typedrpc.Conn) {
	t.Helper()
	h.made().mu.Lock()
	same := h.handler == http.Handler(srv)
	h.network.mu.Unlock()
	if !same {
		h.Serve(srv)
	}
	before := map[*typedrpc.Conn]bool{}
	for c := range srv.Conns() {
		before[c] = true
	}
	var opts typedrpc.DialOptions
	if o != nil {
		opts = *o
	}
	if opts.HTTPClient == nil {
		opts.HTTPClient = h.network.client
	}
	client, err := typedrpc.Dial(t.Context(), h.URL(), &opts)
	if err != nil {
		t.Fatalf("typedrpctest: Host.Pair: %v", err)
	}
	t.Cleanup(func() { client.Close() })
	find := func() *typedrpc.Conn {
		for c := range srv.Conns() {
			if !before[c] {
				return c
			}
		}
		return nil
	}
	// A plain peer has no handshake: when its Dial returns the server may not
	// have begun yet.
	end := time.Now().Add(10 * time.Second)
	for server = find(); server == nil; server = find() {
		if time.Now().After(end) {
			t.Fatal("typedrpctest: Host.Pair: the connection was lost at once")
		}
		time.Sleep(time.Millisecond)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}

// listener is a host's net.Listener.
type listener struct {
	host  *Host
	queue chan *conn
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.host.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Addr() net.Addr { return l.host.addr }

func (l *listener) Close() error {
	n := l.host.network
	n.mu.Lock()
	if l.host.listener != l {
		n.mu.Unlock()
		return nil
	}
	l.host.listener = nil
	n.mu.Unlock()
	close(l.done)
	for {
		select {
		case c := <-l.queue: // nobody will accept it
			c.link.Cut(CutReset)
			c.Close()
		default:
			return nil
		}
	}
}
