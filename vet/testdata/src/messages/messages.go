package messages

import (
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

type (
	shape   interface{ Area() float64 }
	drawing struct {
		Name   string
		Shapes map[string][]shape
	}
	nested         struct{ Drawing *drawing }
	failed         struct{ Err error }
	loop           struct{ Next *loop }
	base           struct{ Shape shape }
	based          struct{ base }
	aka            = shape
	pair[A, B any] struct {
		A A
		B B
	}
)

var (
	_ = typedrpc.NewMethod[shape, int]("m")                         // want `the message shape of typedrpc.NewMethod cannot be decoded: it is an interface`
	_ = typedrpc.NewMethod[int, aka]("m")                           // want `it is an interface`
	_ = typedrpc.NewMethod[int, []error]("m")                       // want `\[\] is an interface`
	_ = typedrpc.NewMethod[drawing, *nested]("m")                   // want `message drawing .*: Shapes\[\]\[\] is an interface` `message \*nested .*: Drawing.Shapes\[\]\[\] is an interface`
	_ = typedrpc.NewMethod[failed, loop]("m", typedrpc.Idempotent)  // want `Err is an interface`
	_ = typedrpc.NewMethod[based, pair[int, pair[bool, shape]]]("") // want `base.Shape is an interface` `B.B is an interface`
	_ = typedrpc.NewSignIn[shape, *point](typedrpc.Alloc[point]())  // want `message shape .* it is an interface`
	_ = typedrpc.NewSignIn[int, *point]()                           // want `needs typedrpc.Alloc\[point\]`
	_ = typedrpc.NewFault[failed]("f", 5)                           // want `Err is an interface`
	_ = topic.New[drawing]("t")                                     // want `Shapes\[\]\[\] is an interface`
)

// knows decodes itself, and says so of what is in it.
type (
	knows  struct{ Shape shape }
	texts  struct{ Shape shape }
	holder struct {
		Knows  knows
		Texts  *texts
		Any    any
		Hidden shape `json:"-"`
		shape  shape
		Raw    typedrpc.Raw
		At     time.Time
		Wait   time.Duration
		Next   []*holder
	}
)

func (*knows) UnmarshalJSON([]byte) error { return nil }
func (*texts) UnmarshalText([]byte) error { return nil }

var (
	_ = typedrpc.NewMethod[holder, any]("m")
	_ = typedrpc.NewMethod[typedrpc.Raw, map[string]any]("m")
	_ = topic.New[[]holder]("t")
)

func generic[T any](name string) typedrpc.Method[T, []T] { return typedrpc.NewMethod[T, []T](name) }

func generics[T any](name string) typedrpc.Method[*T, pair[T, T]] {
	return typedrpc.NewMethod[*T, pair[T, T]](name, typedrpc.Alloc[T]())
}

// point is as protobuf's messages are.
type (
	point struct{ X, Y int }
	plain struct{ X, Y int }
)

func (*point) ProtoReflect() {}

var (
	_ = typedrpc.NewMethod[*point, *point]("m", typedrpc.Alloc[point]())
	_ = typedrpc.NewMethod[*plain, *plain]("m")
	_ = typedrpc.NewMethod[*plain, *point]("m", typedrpc.Idempotent, typedrpc.Alloc[point]())
	_ = typedrpc.NewMethod[*point, int]("m", traits...)
	_ = typedrpc.NewMethod[*point, int]("m", traits[0])
	_ = typedrpc.NewMethod[*point, int]("m", made())

	_ = typedrpc.NewFault[*point]("f", 5, typedrpc.Alloc[point]())
	_ = typedrpc.NewFault[*point]("f", 5)                                              // want `needs typedrpc.Alloc\[point\]`
	_ = typedrpc.NewFault[point]("f", 5, typedrpc.Alloc[point]())                      // want `no message of this declaration is a \*point`
	_ = typedrpc.NewMethod[*point, int]("m")                                           // want `the message \*point is protobuf's .* needs typedrpc.Alloc\[point\]`
	_ = typedrpc.NewMethod[*point, int]("m", typedrpc.Idempotent, typedrpc.Timeout(1)) // want `needs typedrpc.Alloc\[point\]`
	_ = typedrpc.NewMethod[*plain, int]("m", typedrpc.Alloc[*plain]())                 // want `no message of this declaration is a \*\*plain`
	_ = typedrpc.NewMethod[plain, int]("m", typedrpc.Alloc[plain]())                   // want `no message of this declaration is a \*plain`
	_ = typedrpc.NewMethod[*point, int]("m", typedrpc.Alloc[plain]())                  // want `no message of this declaration is a \*plain` `needs typedrpc.Alloc\[point\]`
)

var traits []typedrpc.MethodTrait

func made() typedrpc.MethodTrait { return typedrpc.Alloc[point]() }
