package jsoncodec

import (
	"fmt"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// NameParams makes an object of a list, by the names that a method declared.
func NameParams(names []string, list []byte) ([]byte, error) {
	dst, n := []byte{'{'}, 0
	err := wire.Array(list, RawDepth, func(value []byte) error {
		if n == len(names) {
			return fmt.Errorf("params has more than %d elements", len(names))
		}
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(wire.AppendString(dst, names[n]), ':')
		dst = append(dst, value...)
		n++
		return nil
	})
	return append(dst, '}'), err
}

// OnlyElement returns the only element of a list, nil if there is none or more.
func OnlyElement(list []byte) (only []byte) {
	n := 0
	err := wire.Array(list, RawDepth, func(value []byte) error {
		if n++; n > 1 {
			return fmt.Errorf("more than one")
		}
		only = value
		return nil
	})
	if err != nil {
		return nil
	}
	return only
}
