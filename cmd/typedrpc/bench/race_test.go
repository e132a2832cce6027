//go:build race

package bench

func init() { slow = 5 }
