package flow

import (
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// What a peer that announces nothing is taken to have announced.
func TestLimits_announced(t *testing.T) {
	is := is.New(t)
	def, err := Limits{}.WithDefaults()
	is.NoErr(err)
	is.Equal(AnnouncedBy(wire.Limits{}), def.Announced())
	is.Equal(AnnouncedBy(wire.Limits{Message: 1, Depth: 9}), wire.Limits{
		Message: 1, Calls: uint64(def.MaxCalls), Window: uint64(def.Window), Budget: uint64(def.MaxBuffered), Depth: 9,
	})
	all := wire.Limits{Message: 1, Calls: 2, Window: 3, Budget: 4, Depth: 5}
	is.Equal(AnnouncedBy(all), all)
}
