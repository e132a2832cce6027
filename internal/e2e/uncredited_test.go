package e2e_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A peer that takes small messages and credits none makes a server remember the size of each,
// which counts like all else that it holds.
func TestHeld_whatIsNotCredited(t *testing.T) {
	const n = 12_000
	down := typedrpc.NewServerStream[int, int]("held.down")
	for name, test := range map[string]struct {
		begin  func(ctx context.Context, s *typedrpc.Conn) error
		call   *wire.Frame
		credit wire.Frame
	}{
		"notifications": {
			begin: func(ctx context.Context, s *typedrpc.Conn) error {
				for range n {
					if err := typedrpc.Notify(ctx, s, lab.Note, 1); err != nil {
						return err
					}
				}
				return nil
			},
			credit: wire.Frame{Type: wire.Credit, Items: n},
		},
		"items": {
			call:   &wire.Frame{Type: wire.Call, ID: 1, Kind: wire.ServerStream, Method: "held.down", Payload: []byte("1")},
			credit: wire.Frame{Type: wire.Credit, ID: 1, Flags: wire.FromCaller, Items: n},
		},
	} {
		for _, end := range []string{"credited", "cancelled", "closed"} {
			if end == "cancelled" && test.call == nil {
				continue
			}
			t.Run(name+"/"+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					mux := typedrpc.NewMux()
					typedrpc.Handle(mux, down, func(ctx context.Context, _ int, send func(int) error) error {
						for range n {
							if err := send(1); err != nil {
								return err
							}
						}
						<-ctx.Done()
						return ctx.Err()
					})
					srv := &typedrpc.Server{Mux: mux}
					p, s := lab.RawClient(t, typedrpc.Binary, srv)
					settle := func() {
						synctest.Wait()
						is.NoErr(p.Send(wire.Frame{Type: wire.Ack, Position: p.Counted}))
						synctest.Wait()
					}
					if test.call != nil {
						is.NoErr(p.Send(*test.call))
					} else {
						is.NoErr(test.begin(t.Context(), s))
					}
					settle()
					idle := hook.Conn(s).Account - 4*16_384 // the next power of two
					is.True(idle >= 0 && idle < 16<<10)
					switch end {
					case "credited":
						is.NoErr(p.Send(test.credit))
						synctest.Wait()
						is.Equal(hook.Conn(s).Account, idle)
						s.Close()
					case "cancelled":
						is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, ID: 1}))
						settle()
						is.Equal(hook.Conn(s).Account, int64(0))
						s.Close()
					case "closed":
						s.Close()
					}
					synctest.Wait()
					is.Equal(hook.Server(srv).Budget, int64(0))
					is.Equal(hook.Server(srv).Left, int64(0))
				})
			})
		}
	}
}
