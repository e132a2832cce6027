package strangers

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/topic"
)

// TestSubscribers has programs with no library of ours read a topic, over a WebSocket and as
// Server-Sent Events, while it is published to: they stop reading, are cut off, and go on.
// Nothing is lost, nothing comes twice, and what they cost is bounded.
func TestSubscribers(t *testing.T) {
	const total = 5000
	wall := topic.New[string]("wall", typedrpc.Safe, topic.History(total, 0))
	for _, peer := range []struct{ name, program, needs string }{
		{"node", "subscribe.mjs", "node_modules/ws"},
		{"python", "subscribe.py", ""},
	} {
		t.Run(peer.name, func(t *testing.T) {
			is := is.New(t)
			runs := program(t, "node")
			dir := "testdata/npm"
			if peer.name == "python" {
				runs, dir = "/usr/bin/python3", "testdata"
				if exec.Command(runs, "-c", "import websockets").Run() != nil {
					t.Skip("python3-websockets is not installed")
				}
			} else if !fileExists(dir + "/" + peer.needs) {
				t.Skip("npm ci has not been run")
			}
			hub := &topic.Hub{MaxKeyHistory: 8 << 20}
			mux := typedrpc.NewMux()
			begun, begin := context.WithCancel(t.Context())
			topic.Handle(mux, hub, wall, func(context.Context, topic.Access) error {
				begin()
				return nil
			})
			srv := &typedrpc.Server{Mux: mux}
			h := httptest.NewServer(srv)
			defer h.Close()
			var most atomic.Int64
			for i := range total / 2 {
				is.NoErr(topic.Publish(t.Context(), hub, wall, "x", fmt.Sprint(i, " ", strings.Repeat("x", 200))))
			}
			published := make(chan error, 1)
			go func() {
				<-begun.Done()
				for i := total / 2; i < total; i++ {
					if err := topic.Publish(t.Context(), hub, wall, "x", fmt.Sprint(i, " ", strings.Repeat("x", 200))); err != nil {
						published <- err
						return
					}
					most.Store(max(most.Load(), hook.Server(srv).Budget))
				}
				published <- nil
			}()
			cmd := exec.CommandContext(t.Context(), runs, peer.program, strings.Replace(h.URL, "http", "ws", 1)+"/", fmt.Sprint(total))
			cmd.Dir, cmd.Stderr = dir, os.Stderr
			out, err := cmd.Output()
			is.NoErr(err)
			is.NoErr(<-published)
			is.Equal(string(out), fmt.Sprintf("unsubscribed true\nwebsocket %d \"lost\" 0 \"twice\" 0\nevents %d \"lost\" 0 \"twice\" 0\n", total, total))
			t.Logf("%s: the server held %d bytes at most for its connections", peer.name, most.Load())
			is.True(most.Load() < 4<<20)
			is.NoErr(srv.Shutdown(t.Context()))
			is.Equal(hook.Server(srv).Budget, int64(0))
		})
	}
}
