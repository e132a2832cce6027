package link

import (
	"math/rand/v2"
	"testing"

	"github.com/matryer/is"
)

// What is messages' is told apart wherever reads cut frames.
func TestFrames_scan(t *testing.T) {
	is := is.New(t)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all []byte
		var data int64
		for range 50 {
			n := []int{0, 1, r.IntN(126), 125, 126, r.IntN(70_000), 65535, 65536}[r.IntN(8)]
			first := byte(opBinary)
			if r.IntN(3) == 0 {
				first, n = fin|opPing, min(n, 125)
			} else {
				data += int64(n)
			}
			f := frame(first, n, make([]byte, n))
			if r.IntN(2) == 0 { // a server's, which is not masked
				f[1] &^= 1 << 7
				head := len(f) - n
				f = append(f[:head-4], f[head:]...)
			}
			all = append(all, f...)
		}
		var s frames
		var got int64
		for len(all) > 0 {
			n := min(1+r.IntN([]int{1, 3, 1000, 100_000}[r.IntN(4)]), len(all))
			got += s.scan(all[:n])
			all = all[n:]
		}
		is.Equal(got, data)
		is.Equal(s.rest, uint64(0))
		is.Equal(s.have, uint8(0))
	}
}
