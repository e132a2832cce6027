package awkward

//lint:file-ignore U1000,SA5008 what is unused or odd here is what the command is tried with

import (
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// Shortage is the data of a fault.
type Shortage struct {
	Left int `json:"left"`
}

const maxTicks = 1 << 10

// One declaration of each kind that is no method, and methods with traits.
var (
	// Ticks can be restarted.
	Ticks = typedrpc.NewServerStream[string, Untagged]("market.ticks", typedrpc.MaxSize(maxTicks)).
		Restartable(func(req string, _ *Untagged) string { return req })
	// All is a stream of nothing much.
	All = typedrpc.NewServerStream[Empty, Color]("market.all")
	// Fill sends items.
	Fill = typedrpc.NewClientStream[Empty, Color, int]("shop.fill")
	// Pour sends bytes.
	Pour = typedrpc.NewClientStream[string, typedrpc.Bytes, int]("shop.pour", typedrpc.Timeout(1500*time.Microsecond))
	// Talk goes both ways.
	Talk = typedrpc.NewBidiStream[string, Color, Kind]("shop.talk", typedrpc.Serial)
	// Room is a topic.
	Room = topic.New[*Shortage]("chat.room", topic.History(10, time.Hour), topic.DropOldest, topic.WithPresence, topic.Restartable)
	// Prices is another.
	Prices = topic.New[float64]("prices", topic.LatestOnly)
	Put    = transfer.NewUpload[string, Shortage]("files.put")
	Get    = transfer.NewDownload[Empty]("files.get")
	// Typing says that somebody types.
	Typing = typedrpc.NewNotification[string]("chat.typing")
	// Buy runs once.
	Buy = typedrpc.NewMethod[Untagged, int]("shop.buy-now", typedrpc.Keyed, typedrpc.Params("Name", "Count"))
	// Look is at the place above others.
	Look = typedrpc.NewMethod[struct{}, Empty]("shop", typedrpc.Idempotent, typedrpc.Serial)
	// Delete has the name of a keyword.
	Delete = typedrpc.NewMethod[string, bool]("shop.delete", traits...)
	// Confirm is asked of a page.
	//
	//typedrpc:name ask.confirm
	Confirm = typedrpc.NewMethod[string, bool]("page.confirm")
	// NoStock is a fault.
	NoStock = typedrpc.NewFault[Shortage]("shop.no-stock", typedrpc.FailedPrecondition)
	// SignIn is how pages say who they are.
	SignIn = typedrpc.NewSignIn[Shortage, *Untagged]()
	// Nested are declarations in a struct.
	Nested = struct {
		// Find finds.
		Find typedrpc.Method[string, int]
	}{Find: typedrpc.NewMethod[string, int]("nested/find")}
	// Same is another name of Buy.
	Same = Buy

	traits = []typedrpc.MethodTrait{typedrpc.Idempotent, typedrpc.Timeout(2 * time.Second)}
)
