package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// callID is the id of a call that a stranger got.
func callID(t *testing.T, text string) string {
	t.Helper()
	var call struct {
		ID     json.RawMessage
		Method string
	}
	if err := json.Unmarshal([]byte(text), &call); err != nil || len(call.ID) == 0 || call.Method == "" {
		t.Fatalf("no call: %s", text)
	}
	return string(call.ID)
}

// sloppy are the answers of peers that do not do as JSON-RPC 2.0 says. ID stands for
// the number of the call. Who reads them gets a result, or an error with a code, and a
// text that has a word in it.
var sloppy = []struct {
	answer string
	result int
	code   typedrpc.Code
	word   string
}{
	{answer: `{"jsonrpc":"2.0","id":ID,"result":7}`, result: 7},
	{answer: `{"id":ID,"result":7}`, result: 7},
	{answer: `{"jsonrpc":"1.0","id":ID,"result":7}`, result: 7},
	{answer: `{"jsonrpc":2.0,"id":ID,"result":7}`, result: 7},
	{answer: `{"jsonrpc":null,"id":ID,"result":7}`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":ID.0,"result":7}`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":IDe0,"result":7}`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":ID0E-1,"result":7}`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":"ID","result":7}`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":7,"error":null}`, result: 7},
	{answer: `{"jsonrpc":"2.0","error":null,"result":7,"id":ID}`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":ID,"method":"ask","result":7}`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":7,"meta":7}`, result: 7},
	{answer: `{"id":"ID.0","result":7,"error":null}`, result: 7},
	{answer: `[{"id":"ID","result":7}]`, result: 7},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":null}`},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":null,"error":null}`},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":-32000,"message":"broken"},"result":null}`, code: -32000, word: "broken"},
	{answer: `{"id":"ID","error":{"code":-32601,"message":"broken"}}`, code: typedrpc.Unimplemented, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":-32000.0,"message":"broken"}}`, code: -32000, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":-32000}}`, code: -32000, word: "no reason"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":-32000,"message":null}}`, code: -32000, word: "no reason"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":-32000,"message":["broken"]}}`, code: -32000, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":3000000000,"message":"broken"}}`, code: 3000000000, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"message":"broken"}}`, code: typedrpc.Internal, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"message":"broken"}}`, code: typedrpc.Internal, word: "no code"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":1.5,"message":"broken"}}`, code: typedrpc.Internal, word: "1.5"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":"E7","message":"broken"}}`, code: typedrpc.Internal, word: `"E7"`},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{"code":1e99,"message":"broken"}}`, code: typedrpc.Internal, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":{}}`, code: typedrpc.Internal, word: "no code"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":"broken"}`, code: typedrpc.Internal, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":["broken"]}`, code: typedrpc.Internal, word: "broken"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":false}`, code: typedrpc.Internal, word: "no object"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":7}`, code: typedrpc.Internal, word: "no object"},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":7,"error":{"code":1,"message":"broken"}}`, code: typedrpc.Internal, word: "both"},
	{answer: `{"jsonrpc":"2.0","id":ID,"error":null}`, code: typedrpc.Internal, word: "neither"},
	{answer: `{"jsonrpc":"2.0","id":ID}`, code: typedrpc.Internal, word: "neither"},
	{answer: `{"id":"ID"}`, code: typedrpc.Internal, word: "neither"},
	{answer: `[{"id":ID}]`, code: typedrpc.Internal, word: "neither"},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":7,"result":8}`, code: typedrpc.Internal, word: "twice"},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":NaN}`, code: typedrpc.Internal, word: "offset"},
	{answer: `{"jsonrpc":"2.0","result":"` + "\xff" + `","id":ID}`, code: typedrpc.Internal, word: "UTF-8"},
	{answer: `{"jsonrpc":"2.0","result":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `,"id":ID}`, code: typedrpc.Internal, word: "deep"},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":[1`, code: typedrpc.Internal, word: "end"},
	{answer: `[{"jsonrpc":"2.0","id":ID,"result":7},]`, code: typedrpc.Internal, word: "no value"},
	{answer: `{"jsonrpc":"2.0","id":ID,"result":7} trailing`, code: typedrpc.Internal, word: "more after"},
}

// An answer that is not as it should be ends its call at once, is not answered, and is
// in the log.
func TestPlain_sloppyAnswersEndTheirCalls(t *testing.T) {
	for _, tt := range sloppy {
		t.Run(tt.answer[:min(len(tt.answer), 80)]+tt.word, func(t *testing.T) {
			lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
				is := is.New(t)
				f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
				id := callID(t, s.Only(t))
				began := time.Now()
				s.Send(strings.ReplaceAll(tt.answer, "ID", id))
				got, err := f.Await(t.Context())
				is.Equal(time.Since(began), time.Duration(0))
				is.Equal(typedrpc.CodeOf(err), tt.code)
				if tt.code == 0 {
					is.NoErr(err)
					is.Equal(got, tt.result)
				} else {
					is.True(strings.Contains(err.Error(), tt.word))
					is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
				}
				is.Equal(len(s.Got()), 0) // what answers is not answered

				right := tt.answer == sloppy[0].answer || strings.HasPrefix(tt.answer, `{"jsonrpc":"2.0","id":ID,"result":null}`) ||
					tt.answer == `{"jsonrpc":"2.0","id":ID,"error":{"code":3000000000,"message":"broken"}}` ||
					tt.answer == `{"jsonrpc":"2.0","id":ID,"error":{"code":-32000.0,"message":"broken"}}` || strings.Contains(tt.answer, `"method"`)
				is.Equal(log.Has("level=WARN msg=\"typedrpc: a plain peer's answer"), !right)

				f = typedrpc.Go(t.Context(), c, lab.Ask, 1) // the connection goes on
				s.Send(`{"jsonrpc":"2.0","id":` + callID(t, s.Only(t)) + `,"result":5}`)
				got, err = f.Await(t.Context())
				is.NoErr(err)
				is.Equal(got, 5)
			})
		})
	}
}

// Answers that name no call of ours end none, and the log has them: all that there is
// to find out why a call hangs.
func TestPlain_answersToNobody(t *testing.T) {
	for _, tt := range []struct{ answer, word string }{
		{`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}`, "Parse error"},
		{`{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"}}`, "Invalid Request"},
		{`{"jsonrpc":"2.0","id":{},"error":"broken"}`, "broken"},
		{`{"jsonrpc":"2.0","id":null,"result":7}`, "id is null"},
		{`{"jsonrpc":"2.0","result":7}`, "no id"},
		{`{"jsonrpc":"2.0","id":"x","result":7}`, "none of ours"},
		{`{"jsonrpc":"2.0","id":1.5,"result":7}`, "none of ours"},
		{`{"jsonrpc":"2.0","id":1e400,"result":7}`, "none of ours"},
		{`{"jsonrpc":"2.0","id":-1,"result":7}`, "none of ours"},
		{`{"jsonrpc":"2.0","id":77,"result":7}`, "never made"},
		{`[{"jsonrpc":"2.0","id":77,"error":{"code":1,"message":"m"}}]`, "never made"},
		{`{"jsonrpc":"2.0","id":[],"result":NaN}`, "bad"},
	} {
		t.Run(tt.answer, func(t *testing.T) {
			lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
				is := is.New(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				f := typedrpc.Go(ctx, c, lab.Ask, 1)
				s.Only(t)
				s.Send(tt.answer)
				is.Equal(len(s.Got()), 0)
				is.True(log.Has("level=WARN"))
				is.True(log.Has(tt.word) || tt.word == "bad")
				_, err := f.Await(t.Context())
				is.Equal(typedrpc.CodeOf(err), typedrpc.DeadlineExceeded)
			})
		})
	}
}

// However many there are, the log has a line a second.
func TestPlain_sloppyAnswersDoNotFillTheLog(t *testing.T) {
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		for range 1000 {
			f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
			s.Send(`{"id":` + callID(t, s.Only(t)) + `,"result":1}`)
			_, err := f.Await(t.Context())
			is.NoErr(err)
			s.Send(`{"id":null,"error":"x"}`)
			s.Send(`{"id":1e9,"result":1}`)
		}
		synctest.Wait()
		is.Equal(strings.Count(log.Text(), "but understood"), 1) // once for a connection
		is.Equal(strings.Count(log.Text(), "cannot be read"), 1)
		is.Equal(strings.Count(log.Text(), "never made"), 1)
	})
}

// A peer that sends a flood of them is closed as other offenders are.
func TestPlain_floodOfAnswersToNobody(t *testing.T) {
	for _, answer := range []string{
		`{"id":null,"error":"x"}`, `{"id":99,"result":1}`, `{"result":NaN}`, `[{"result":1}]`, `{"jsonrpc":"2.0","id":1}`,
	} {
		lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
			is := is.New(t)
			for range 5000 {
				s.Send(answer)
			}
			is.True(strings.Contains(s.Ended().Error(), "4429"))
		})
	}
}

// A number that is of a call of the peer's, too, is never said in answer to what may be
// an answer: the peer would end its own call with it.
func TestPlain_answersAreNotAnswered(t *testing.T) {
	for _, tt := range []struct {
		said    string
		flight  bool   // our call of that number is in flight
		answers string // what we say to it; "": nothing
	}{
		{`{"jsonrpc":"2.0","id":1}`, true, ``},
		{`{"id":1}`, true, ``},
		{`{"jsonrpc":"2.0","id":"1","what":"ever"}`, true, ``},
		{`{"jsonrpc":"2.0","id":1.0}`, true, ``},
		{`[{"jsonrpc":"2.0","id":1}]`, true, ``},
		{`{"jsonrpc":"2.0","id":1}`, false, `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`},
		{`{"jsonrpc":"2.0","id":2}`, true, `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`},
		{`{"jsonrpc":"2.0","id":"x"}`, true, `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`},
		{`{"foo":"boo"}`, true, `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`},
		{`[{"jsonrpc":"2.0","id":9}]`, true, `[{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}]`},
		{`7`, true, `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`},
		{`pong`, true, `{"error":{"code":-32700,"message":"…"},"id":null,"jsonrpc":"2.0"}`},
		{`{"jsonrpc":"2.0","id":1,"result":1,"error":2}`, false, ``},
		{`{"jsonrpc":"2.0","id":1,"error":null}`, false, ``},
		{`{"jsonrpc":"2.0","id":[],"error":null}`, false, ``},
		{`{"jsonrpc":"2.0","id":1,"result":[`, false, ``},
		{`[{"jsonrpc":"2.0","id":1,"result":1},{"jsonrpc":"2.0","id":2,"error":{}}]`, false, ``},
		{`{"jsonrpc":"2.0","id":1,"method":"ask","result":1}`, true, ``},
		{`{"jsonrpc":"2.0","id":1,"method":"ask","result":1}`, false, `{"error":{"code":-32600,"message":"…"},"id":1,"jsonrpc":"2.0"}`},
		// Requests, however malformed, have their own id in the answer.
		{`{"jsonrpc":"2.0","id":1,"method":7}`, true, `{"error":{"code":-32600,"message":"…"},"id":1,"jsonrpc":"2.0"}`},
		{`{"id":1,"method":"ask"}`, true, `{"error":{"code":-32600,"message":"…"},"id":1,"jsonrpc":"2.0"}`},
	} {
		t.Run(fmt.Sprint(tt.said, tt.flight), func(t *testing.T) {
			lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
				is := is.New(t)
				if tt.flight {
					f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
					is.Equal(callID(t, s.Only(t)), "1")
					defer f.Cancel()
				}
				s.Send(tt.said)
				if tt.answers == "" {
					is.Equal(len(s.Got()), 0)
				} else {
					is.Equal(anyMessage(t, s.Only(t)), tt.answers)
				}
			})
		})
	}
}

// A page whose handler returns undefined answers with nothing but the id; the call
// that it has in flight itself under that number is not touched, and ends once.
func TestPlain_undefinedFromAPage(t *testing.T) {
	mux := typedrpc.NewMux()
	release := make(chan struct{})
	typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) { <-release; return n, nil })
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{}) // of this bubble
		is := is.New(t)
		srv := &typedrpc.Server{Mux: mux}
		s, c := lab.Page(t, srv)
		s.Send(`{"jsonrpc":"2.0","id":1,"method":"ask","params":[6]}`)
		f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
		is.Equal(callID(t, s.Only(t)), "1")
		s.Send(`{"jsonrpc":"2.0","id":1}`)
		_, err := f.Await(t.Context())
		is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		is.Equal(len(s.Got()), 0)
		close(release)
		is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":1,"result":6}`)
		c.Close()
		srv.Shutdown(t.Context())
	})
}

// Over POST there is nobody who could have been called: an answer is one to nobody.
func TestPost_answersAreNotAnswered(t *testing.T) {
	url, _ := specServer(t)
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"result":1}`, `{"id":1,"error":"x"}`, `{"result":null}`, `{"id":1,"result":NaN}`,
		`[{"id":1,"result":1},{"id":2,"error":null}]`,
	} {
		is := is.New(t)
		status, text := post(t, url, body)
		is.Equal(status, http.StatusNoContent)
		is.Equal(text, "")
	}
	is := is.New(t)
	status, text := post(t, url, `{"jsonrpc":"2.0","id":5}`)
	is.Equal(status, http.StatusOK)
	is.Equal(anyMessage(t, text), `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`)
	_, text = post(t, url, `[{"id":1,"result":1},{"jsonrpc":"2.0","id":5,"method":"sum","params":[4]}]`)
	is.Equal(text, `[{"jsonrpc":"2.0","id":5,"result":4}]`)
}

// A thousand ways to write one call's number are one number.
func TestPlain_idsAreComparedAsNumbers(t *testing.T) {
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		for i := range 1000 {
			is := is.New(t)
			f := typedrpc.Go(t.Context(), c, lab.Ask, i)
			id := callID(t, s.Only(t))
			n, err := strconv.Atoi(id)
			is.NoErr(err)
			forms := []string{
				id, id + ".0", id + ".000", id + "e0", id + "E+0", id + "e-0", id + "0e-1", id + "000.0E-3",
				fmt.Sprintf("%de-2", n*100), fmt.Sprintf("%.1fe1", float64(n)/10), `"` + id + `"`, `"` + id + `.0"`,
			}
			s.Send(`{"jsonrpc":"2.0","id":` + forms[i%len(forms)] + `,"result":` + strconv.Itoa(i) + `}`)
			got, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(got, i)
		}
	})
}
