// Command jsserver is the server that the tests of the TypeScript client talk to.
// It prints its address, and obeys the lines of its standard input: "shutdown"
// ends it gracefully, and the end of the input at once; "slow" prints an address
// where it writes slowly.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/typedrpc/typedrpc"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-quiet" {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s := newService()
	open := s.server()
	guarded := s.server()
	guarded.SignIn = signIn.Verify(verify)
	guarded.Limits.Grace = 5 * time.Second
	brief := s.server()
	brief.Limits.Grace = -1
	small := s.server()
	small.Limits = typedrpc.Limits{MaxCalls: 2, MaxBuffered: 8 << 10, MaxMessage: 4 << 10, Window: 1 << 10}
	few := s.server()
	few.Limits = typedrpc.Limits{MaxCalls: 8}
	mux := http.NewServeMux()
	mux.Handle("/", open)
	mux.Handle("/guarded", guarded)
	mux.Handle("/brief", brief)
	mux.Handle("/small", small)
	mux.Handle("/few", few)
	described := s.server()
	described.Schema = []byte(schema)
	if err := described.Check(); err != nil {
		panic(err) // log may be quiet
	}
	mux.Handle("/described", described)
	web := &http.Server{Handler: mux}
	go web.Serve(listener)
	fmt.Println(listener.Addr())

	obey(open, guarded, mux)
}

// obey does what is said on standard input, until that ends.
func obey(open, guarded *typedrpc.Server, mux http.Handler) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "shutdown":
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			open.Shutdown(ctx)
			cancel()
			fmt.Println("down")
		case "slow":
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				log.Fatal(err)
			}
			go http.Serve(slow{l}, mux)
			fmt.Println(l.Addr())
		case "revoke":
			guarded.Revoke("ada", nil)
			fmt.Println("revoked")
		case "ban": // with all that is said before
			for c := range guarded.ConnsOf("ada") {
				typedrpc.Notify(context.Background(), c, note, 1)
				c.CloseWith(&typedrpc.CloseOptions{Err: noStock.Errorf(shortage{Left: 7}, "you are banned"), StayAway: true})
			}
			fmt.Println("banned")
		case "ban at once":
			guarded.Revoke("ada", &typedrpc.CloseOptions{Err: noStock.Errorf(shortage{Left: 7}, "you are banned"), StayAway: true})
			fmt.Println("banned")
		}
	}
}

// schema is what "typedrpc schema" writes, as far as it is compared with a client's.
const schema = `{"openrpc":"1.3.2","info":{"title":"js","version":"1"},"methods":[
{"name":"math.multiply","params":[],"x-typedrpc":{"kind":"method","idempotent":true,"fingerprint":"00112233"}},
{"name":"numbers","params":[],"x-typedrpc":{"kind":"serverStream","fingerprint":"8899aabb"}},
{"name":"room","params":[],"x-typedrpc":{"kind":"topic","presence":true,"restartable":true,"history":5,"historyAge":3600000,"fingerprint":"44556677"}}]}`

// slow has connections on which a mebibyte takes a second to be written. A line that is
// slow behind them would not do: the kernel takes what it likes before that.
type slow struct{ net.Listener }

func (l slow) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return slowConn{c}, nil
}

type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(len(b)) * time.Second >> 20)
	return c.Conn.Write(b)
}
