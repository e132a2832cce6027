// Package codecs has a codec that may carry interfaces: nothing is known of it.
package codecs

import "github.com/typedrpc/typedrpc"

type gob struct{}

func (gob) Name() string                             { return "gob" }
func (gob) Append(dst []byte, v any) ([]byte, error) { return dst, nil }
func (gob) Decode(data []byte, v any) error          { return nil }
func (gob) Check(v any) error                        { return nil }

type drawing struct{ Shape interface{ Area() float64 } }

var (
	_ = typedrpc.NewMethod[drawing, int]("m")
	_ = typedrpc.NewMethod[int, drawing]("m", typedrpc.Alloc[drawing]()) // want `no message of this declaration`
)
