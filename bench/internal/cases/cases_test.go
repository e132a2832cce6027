package cases

import (
	"os"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/bench/internal/host"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

func TestMain(m *testing.M) {
	host.Main() // the servers' processes are this program, too
	os.Exit(m.Run())
}

// TestCases_everyPeer is a tiny round: every case, with every peer that it takes.
func TestCases_everyPeer(t *testing.T) {
	s := Settings{Time: time.Millisecond, Most: 3, Idle: 8, Subscribers: 5, Burst: 3, Items: 100, Bulk: 1 << 20, Settle: time.Millisecond}
	for _, c := range All() {
		somebody := false
		for _, p := range peer.All() {
			if !c.Takes(p) {
				continue
			}
			somebody = true
			t.Run(c.Name+"/"+p.Info().Name, func(t *testing.T) {
				is := is.New(t)
				sample, err := c.Run(t.Context(), s, p)
				is.NoErr(err)
				is.Equal(len(sample), len(c.Columns))
				if c.Name != "idle" { // what so few connections hold is less than what varies
					is.True(sample[0] > 0)
				}
			})
		}
		if !somebody {
			t.Errorf("no peer can %s", c.Name)
		}
	}
}
