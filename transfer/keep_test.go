package transfer_test

import (
	"io"
	"runtime"
	"testing"
	"weak"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/transfer"
)

// A sender that stalls does not have the item before kept, which it has been
// credited for.
func TestReader_keepsNoItemWhileItWaits(t *testing.T) {
	is := is.New(t)
	var last weak.Pointer[byte]
	kept := false
	sent := 0
	r := transfer.NewReader(func(yield func(typedrpc.Bytes, error) bool) {
		switch sent++; sent {
		case 1:
			yield(typedrpc.Bytes{0}, nil) // a head
		case 2:
			item := make(typedrpc.Bytes, 1<<20)
			item[0] = 1 // data
			last = weak.Make(&item[0])
			yield(item, nil)
		default: // it waits for the next
			runtime.GC()
			kept = last.Value() != nil
			yield(nil, io.ErrUnexpectedEOF)
		}
	})
	n, err := io.Copy(io.Discard, r)
	is.True(err != nil)
	is.Equal(n, int64(1<<20-1))
	is.True(!kept)
}
