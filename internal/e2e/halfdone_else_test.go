package e2e_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// halves are messages of which a part has come, each of another kind.
var halves = map[string][]wire.Frame{
	"a call":         {begun(1)},
	"a notification": {{Type: wire.Notify, Flags: wire.More, Method: lab.FlowNote.Name(), Payload: testkit.Quoted(1000)}},
	"an item": {
		{Type: wire.Call, ID: 1, Kind: wire.ClientStream, Method: lab.FlowUp.Name(), Payload: []byte("1")},
		{Type: wire.Item, Flags: wire.FromCaller | wire.More, ID: 1, Payload: testkit.Quoted(1000)},
	},
}

// Whatever else a peer sends, and however much of it: what it has begun has to get
// on.
func TestHalfDone_whateverElseFlows(t *testing.T) {
	note := wire.Frame{Type: wire.Notify, Method: lab.FlowNote.Name(), Payload: testkit.Quoted(1200)}
	large := note
	large.Payload = testkit.Quoted(60_000)
	for name, half := range halves {
		for other, send := range map[string]func(p *testkit.RawPeer, n int) error{
			"small notifications": func(p *testkit.RawPeer, _ int) error { return p.Send(note) },
			"large notifications": func(p *testkit.RawPeer, _ int) error { return p.Send(large, large) },
			"calls": func(p *testkit.RawPeer, n int) error {
				return p.Send(wire.Frame{Type: wire.Call, ID: uint64(n + 10), Method: lab.FlowCall.Name(), Payload: testkit.Quoted(1200)})
			},
			"another message that gets on": func(p *testkit.RawPeer, n int) error {
				if n == 0 {
					return p.Send(begun(9))
				}
				return p.Send(chunk(9, 1200, wire.More))
			},
			"a byte for it": func(p *testkit.RawPeer, _ int) error {
				f := wire.Frame{Type: wire.Chunk, Flags: wire.More, Payload: []byte("x")}
				if name != "a notification" {
					f.ID, f.Flags = 1, wire.More|wire.FromCaller
				}
				return p.Send(note, f)
			},
		} {
			if name == "a notification" && other != "calls" && other != "another message that gets on" && other != "a byte for it" {
				continue // they would be in the middle of it
			}
			testkit.Bubble(t, name+" beside "+other, func(t *testing.T, is *is.I) {
				p, c, _ := halfDone(t, typedrpc.Limits{})
				is.NoErr(p.Send(half...))
				synctest.Wait()
				held, began := hook.Conn(c).Account, time.Now()
				is.True(held > 0)
				unfinished := func() bool {
					n := hook.Conn(c).Partial
					if other == "another message that gets on" {
						n--
					}
					return n > 0
				}
				for n := 0; n < 2 || unfinished(); n++ {
					send(p, n)
					time.Sleep(time.Second)
					if time.Since(began) > time.Minute {
						t.Fatal("it was kept")
					}
					if name == "a notification" && hook.Conn(c).Unread == 0 {
						break // it keeps its place and no bytes
					}
				}
				is.True(time.Since(began) >= halfSoon && time.Since(began) <= halfLate)
				p.T.Kill()
				lab.Settled(t, c)
			})
		}
	}
}

// A peer that is never heard does not keep what it has begun by coming back.
func TestHalfDone_silentAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Mux = lab.Bidi(lab.EchoItems)
		h := wire.HelloBody{Attempt: 1, Client: "c", Limits: testkit.Roomy, Features: append([]string{"resume"}, testkit.HandFeatures...)}
		var c *typedrpc.Conn
		l.OnConnect = func(opened *typedrpc.Conn) { c = opened }
		join := func() *testkit.Peer {
			p := lab.Rejoin(t, typedrpc.Binary, l.Server, h)
			f, err := p.Until(wire.Welcome)
			is.NoErr(err)
			w, err := wire.ParseWelcome(f.Payload)
			is.NoErr(err)
			h.Token, h.Attempt = w.Token, h.Attempt+1
			is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
			return p
		}
		p := join()
		is.NoErr(p.Send(begun(1)))
		for links := 1; ; links++ {
			is.True(links <= 3)
			began := time.Now()
			p.CloseCode() // when the link ends
			synctest.Wait()
			is.True(time.Since(began) <= halfLate)
			if hook.Conn(c).Partial == 0 {
				break
			}
			time.Sleep(5 * time.Second)
			p = join()
		}
		p.T.Kill()
		time.Sleep(time.Hour)
		lab.Settled(t, c)
	})
}

// byHand opens a WebSocket of which every byte is the test's.
func byHand(t *testing.T, c net.Conn) (send func(announced int, payload []byte)) {
	t.Helper()
	is := is.New(t)
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: town\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", testkit.BinaryProtocol)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	is.NoErr(err)
	is.Equal(resp.StatusCode, http.StatusSwitchingProtocols)
	go io.Copy(io.Discard, br)
	return func(announced int, payload []byte) {
		head := binary.BigEndian.AppendUint64([]byte{0x82, 0x80 | 127}, uint64(announced))
		c.Write(append(append(head, 0, 0, 0, 0), payload...))
	}
}

// A WebSocket message that takes its time may be the rest of what has begun, but not
// for ever.
func TestHalfDone_behindASlowMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		srv := &typedrpc.Server{Mux: lab.Bidi(lab.Lingers)}
		var conn *typedrpc.Conn
		srv.OnConnect = func(c *typedrpc.Conn) { conn = c }
		_, dial := streets(t, srv)
		c := dial()
		send := byHand(t, c)
		message := func(fs ...wire.Frame) {
			p := testkit.Peer{}
			msg, err := p.Encode(fs)
			is.NoErr(err)
			send(len(msg), msg)
			synctest.Wait()
		}
		h := wire.HelloBody{Attempt: 1, Limits: testkit.Roomy, Features: testkit.HandFeatures}
		message(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)})
		message(wire.Frame{Type: wire.Ack})
		message(begun(1))
		is.Equal(hook.Conn(conn).Partial, 1)
		send(3<<20, nil)
		began := time.Now()
		for synctest.Wait(); hook.Conn(conn).Partial > 0; synctest.Wait() {
			is.True(time.Since(began) < 2*time.Minute)
			c.Write(make([]byte, 1500))
			time.Sleep(time.Second)
		}
		is.True(time.Since(began) >= halfSoon)
		is.True(time.Since(began) <= halfLate+halfSoon+5*time.Second)
	})
}
