package strangers

import (
	"bufio"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// debianPython is the one that Debian's packages are for.
const debianPython = "/usr/bin/python3"

func tornado(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if err := exec.Command(debianPython, "-c", "import tornado").Run(); err != nil {
		if os.Getenv("TYPEDRPC_STRANGERS") != "" {
			t.Fatalf("Tornado is not installed: %v", err)
		}
		t.Skip("Tornado is not installed")
	}
	return exec.CommandContext(t.Context(), debianPython, append([]string{"testdata/tornado_peer.py"}, args...)...)
}

// Tornado loses the parameters of an offer that have no value, and keeps its context.
func TestTornado_server(t *testing.T) {
	cmd := tornado(t, "serve")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	for _, compress := range []bool{true, false} {
		is := is.New(t)
		var states []typedrpc.StateChange
		told := make(chan struct{})
		c, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:"+strings.TrimSpace(port)+"/rpc", &typedrpc.DialOptions{
			Dialect: typedrpc.JSONRPC, Compress: compress, Logger: slog.New(slog.DiscardHandler),
			OnState: func(s typedrpc.StateChange) {
				states = append(states, s)
				if s.State == typedrpc.StateClosed {
					close(told)
				}
			},
		})
		is.NoErr(err)
		for range 20 {
			got, err := typedrpc.Call(t.Context(), c, shout, strings.Repeat("the same words ", 200))
			is.NoErr(err)
			is.Equal(got, strings.Repeat("THE SAME WORDS ", 200))
		}
		is.NoErr(c.Close())
		<-told
		is.Equal(len(states), 3) // connecting, connected, closed: never lost
	}
}

// Its client does the same to a server that compresses: nothing in the handshake
// tells it from others, so the close says what is wrong.
func TestTornado_client(t *testing.T) {
	long := strings.Repeat("the same words ", 200)
	for compress, want := range map[bool]string{
		false: strings.ToUpper(long + "\n" + long + "\n"),
		true:  strings.ToUpper(long) + "\nclosed 1007 a compressed message is damaged, or refers to an earlier one, which was agreed not to be\n",
	} {
		is := is.New(t)
		srv := newServer(io.Discard)
		srv.Compress = compress
		hs := httptest.NewServer(srv)
		out, err := tornado(t, "call", strings.Replace(hs.URL, "http", "ws", 1), long, long).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		is.Equal(string(out), want)
		hs.Close()
	}
}
