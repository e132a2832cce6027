package server

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/testkit/turns"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A body of which all has come does not keep a processor until it was read.
func TestPOST_readsInTurns(t *testing.T) {
	is := is.New(t)
	const size = 4 << 20
	w := httptest.NewRecorder()
	x := &exchange{w: &response{w, http.NewResponseController(w)}, limits: &flow.Limits{MaxMessage: size}}
	var b *buf.Buf
	var err error
	had := turns.Had(func() { b, err = x.readAll(bytes.NewReader(make([]byte, size))) })
	is.NoErr(err)
	is.Equal(b.Len(), size)
	is.True(had >= 8) // growing, it reads more at once in the end
}

// Nor do items.
func TestFeed_readsInTurns(t *testing.T) {
	for name, size := range map[string]int{"of one item": 4 << 20, "of many": 100} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			item := `"` + strings.Repeat("x", size-3) + "\"\n"
			body := strings.Repeat(item, 4<<20/size)
			w := httptest.NewRecorder()
			x := &exchange{w: &response{w, http.NewResponseController(w)}, limits: &flow.Limits{MaxMessage: size}}
			f := &feed{x: x, body: strings.NewReader(body), seq: wire.Sequence{Lines: true, Max: size, MaxDepth: 64}, b: buf.Sized(feedBuffer)}
			items := 0
			had := turns.Had(func() {
				for {
					if _, err := f.next(); err != nil {
						is.Equal(err, io.EOF)
						return
					}
					items++
				}
			})
			is.Equal(items, 4<<20/size)
			is.True(had >= 8) // of one, as of a request; of many with each 64 KiB
		})
	}
}

// A buffer that there is no room for is not made: many who are refused at once would hold more
// than what they are refused for.
func TestBody_isPaidForFirst(t *testing.T) {
	is := is.New(t)
	x := &exchange{limits: &flow.Limits{MaxMessage: 4 << 20}}
	ledger, other := flow.NewLedger(1<<20), new(flow.Account)
	x.account.Open(ledger, func() {})
	other.Open(ledger, func() {})
	other.Force(1 << 19)
	had := testing.AllocsPerRun(10, func() {
		if x.sized(4<<20) != nil {
			t.Error("there is no room")
		}
	})
	is.Equal(had, 0.0)
	is.Equal(x.account.Used(), int64(0))
	size := bodyBuffer
	for n := 0; size < 4<<20; n++ {
		is.True(n < 20)
		next := x.larger(size)
		is.True(next > size && next-size <= max(size, 256<<10, size/2)) // beyond half a mebibyte by half
		size = next
	}
	is.Equal(size, 4<<20+besideBody)
	is.Equal(x.larger(size), size)
}
