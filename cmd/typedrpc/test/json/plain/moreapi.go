package awkward

import "github.com/typedrpc/typedrpc"

// Declarations of types whose JSON is odder than others need to be.
var (
	More1 = typedrpc.NewMethod[Folded, Keys]("more.1")
	More2 = typedrpc.NewMethod[Addresses, QuotedMore]("more.2")
	More3 = typedrpc.NewMethod[Hidden, HiddenValue]("more.3")
	More4 = typedrpc.NewMethod[Foreign, Methods]("more.4")
	More5 = typedrpc.NewMethod[Wide, Zeros]("more.5")
	More6 = typedrpc.NewMethod[Raws, Chain]("more.6")
	More7 = typedrpc.NewMethod[Grid, Bits]("more.7")
	More8 = typedrpc.NewMethod[Small, Real]("more.8")
)
