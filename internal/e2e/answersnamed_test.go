package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// More answers that name their call, each in a way of its own.
func TestPlain_answersThatNameTheirCalls(t *testing.T) {
	var many strings.Builder
	for i := range 200 {
		fmt.Fprintf(&many, `"x%d":0,`, i)
	}
	for _, tt := range []string{
		"\ufeff" + `{"jsonrpc":"2.0","id":ID,"result":7}`,
		"\ufeff" + `[{"jsonrpc":"2.0","id":ID,"result":7}]`,
		`{"jsonrpc":"2.0","id":77777,"result":7}` + "\n" + `{"jsonrpc":"2.0","id":ID,"result":7}`,
		`{"jsonrpc":"2.0","id":"\u0031","result":7}`,
		`{"jsonrpc":"2.0","id":ID,"id":ID,"result":7}`,
		`{` + many.String() + `"id":ID,"result":7}`,
		`{"result":7,` + many.String() + `"id":ID}`,
		`{"id":ID,"x":1,"x":2,"result":7}`,
		`{'id':1,"id":ID,"result":7}`,
		`{"id":ID,"result":undefined}`,
		`{"id":ID,"result":'x'}`,
		`{"id":ID,"result":0x10}`,
		`{"id":ID,"result":01}`,
		`{"id":ID,"result":7,}`,
		`{"id":ID,"error":{"code":-32000,"message":"a` + "\x01" + `"}}`,
		`{"id":ID,"error":{"code":-32000,"message":"a","data":NaN}}`,
		`{"id":ID,"error":{"code":-32000,"code":1,"message":"a"}}`,
		`{"id":ID,"error":{"code":9223372036854775808,"message":"a"}}`,
		`{"id":ID,"error":{"code":-0,"message":""}}`,
		`{"id":ID,"error":{"code":null,"message":null}}`,
		`{"id":ID,"error":{"code":true,"message":{}}}`,
		`{"id":ID,"error":""}`,
		`{"id":ID,"error":0}`,
		`{"id":ID,"error":[]}`,
		`{"id":ID,"params":[1]}`,
		`{"id":ID,"method":null,"result":7}`,
		`{"id":ID,"method":"","result":7}`,
		`{"id":ID,"method":null}`,
		`{"id":ID,"notification":"x"}`,
		`{"id":ID,"notification":"x","result":7}`,
		`[{"id":ID,"result":7},1]`,
		`[1,{"id":ID}]`,
		`[{"id":ID,"result":7}`,
		`[{"id":ID,"result":7}}`,
		`[{"x":NaN},{"id":ID,"result":7}]`,
	} {
		name := tt
		if len(name) > 80 {
			name = name[:20] + "…" + name[len(name)-20:]
		}
		t.Run(name, func(t *testing.T) {
			for _, bin := range []bool{false, true} {
				lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
					is := is.New(t)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					f := typedrpc.Go(ctx, c, lab.Ask, 1)
					id := callID(t, s.Only(t))
					began := time.Now()
					text := strings.ReplaceAll(tt, "ID", id)
					if bin {
						s.SendBinary(text)
					} else {
						s.Send(text)
					}
					v, err := f.Await(t.Context())
					if d := time.Since(began); d > 0 {
						t.Errorf("took %v: %v; said %q; logs %s", d, err, s.Got(), log.Text())
					} else {
						t.Logf("%v %v; said %q", v, err, s.Got())
					}
					if err != nil && strings.TrimSpace(typedrpc.CodeOf(err).Error()) == "" {
						t.Error("no code")
					}
					if errors.Is(err, context.Canceled) {
						t.Error("canceled")
					}
					is.Equal(c.Err(), nil)
				})
			}
		})
	}
}

// Foreign numbers are not ours.
func TestPlain_everyForeignNumber(t *testing.T) {
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		for n := -33000; n <= 200; n++ {
			if n == -31900 {
				n = -120
			}
			for _, form := range []string{"%d", "%d.0", "%de0"} {
				f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
				id := callID(t, s.Only(t))
				s.Send(`{"jsonrpc":"2.0","id":` + id + `,"error":{"code":` + fmt.Sprintf(form, n) + `,"message":"m"}}`)
				_, err := f.Await(t.Context())
				e := lab.AsError(t, err)
				if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, typedrpc.Unavailable) ||
					typedrpc.OutcomeOf(err) != typedrpc.Answered || int64(e.Number) != int64(n) && n != 0 {
					t.Errorf("%d: %#v %v", n, e, typedrpc.OutcomeOf(err))
				}
			}
		}
	})
}
